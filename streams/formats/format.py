"""The contract of a log format, the registry of formats, and their detection by content."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from streams.errors import ParseError, StreamError
from streams.events import QueryEvent
from streams.sources.source import Record

__all__ = ["FORMATS", "Detecting", "Format", "detect", "json_object", "looks_like", "named"]


class Format(ABC):
    """Turns records into events. Formats keep no state, so that threads may share one.

    A format implements `recognises` and `read`; callers use `parse`.
    """

    name: ClassVar[str]

    def parse(self, record: Record) -> Sequence[QueryEvent]:
        """Read one record.

        Returns:
            Its queries, in order; most formats have exactly one.

        Raises:
            ParseError: the record is faulty; its ``at`` is set, and the reason says which format the record
                looks like where it looks like another one.
        """
        if record.fault:
            raise ParseError(record.fault, at=record.at)
        try:
            return self.read(record)
        except RecursionError:  # json's limit is found at another depth wherever it is used
            raise ParseError("nested too deeply", at=record.at) from None
        except ParseError as error:
            error.at = error.at or record.at
            other = looks_like(record.value)
            if other in (None, self.name):
                raise
            reason = f"{error.reason}; the record looks like {other}, while the source is read as {self.name}"
            raise ParseError(reason, event_id=error.event_id, item=error.item, at=error.at) from None

    @abstractmethod
    def recognises(self, value: bytes | Mapping[str, object]) -> bool:
        """Whether a raw record is of this format, however faulty."""

    @abstractmethod
    def read(self, record: Record) -> Sequence[QueryEvent]:
        """Read a whole record.

        Raises:
            ParseError: with the reason.
        """


#: The formats by name, in the order in which detection tries them.
FORMATS: dict[str, Format] = {}

# Logs that a person may well point us at. Keys that an object of each always has.
_FOREIGN: tuple[tuple[str, frozenset[str]], ...] = (
    ("SageMaker data capture", frozenset({"captureData"})),
    ("a CloudEvent (KServe, Azure ML)", frozenset({"specversion", "type"})),
    ("an Open Inference Protocol request", frozenset({"inputs"})),
    ("an Open Inference Protocol response", frozenset({"outputs"})),
)


def json_object(line: bytes) -> dict[str, object]:
    """Read a line that has to be one JSON object, in UTF-8.

    Raises:
        ParseError: it is not; says where.
    """
    try:
        value = json.loads(line.removeprefix(b"\xef\xbb\xbf").decode())
    except UnicodeDecodeError as error:
        raise ParseError(f"invalid UTF-8: byte 0x{line[error.start]:02x} at {error.start}") from None
    except json.JSONDecodeError as error:
        raise ParseError(f"invalid JSON: {error.msg} at character {error.pos}") from None
    except ValueError:  # integers of thousands of digits
        raise ParseError("invalid JSON: a number has too many digits") from None
    except RecursionError:
        raise ParseError("invalid JSON: nested too deeply") from None
    if not isinstance(value, dict):
        raise ParseError("the line is JSON, but no object")
    return value


def looks_like(value: bytes | Mapping[str, object]) -> str | None:
    """Name the format of a raw record, known to us or not; None if nothing fits."""
    for format_ in FORMATS.values():
        if format_.recognises(value):
            return format_.name
    if isinstance(value, Mapping):
        return None
    if value.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in value[:64]:
        return "UTF-16 text or a binary file"
    try:
        keys = json_object(value).keys()
    except ParseError:
        return "CSV" if value[:1] != b"{" and value.count(b",") >= 3 else None
    return next((name for name, needed in _FOREIGN if needed <= keys), None)


def detect(sample: Record) -> Format:
    """Find the format of a record by its content.

    Raises:
        StreamError: no format of ours; says what the record looks like.
    """
    for format_ in FORMATS.values():
        if not sample.fault and format_.recognises(sample.value):
            return format_
    seen = looks_like(sample.value)
    looks = f"it looks like {seen}, which is not supported" if seen else "it looks like no log that we know"
    if isinstance(sample.value, Mapping):
        looks = f"its columns are {', '.join(sample.value)}"
    raise StreamError(
        f"{sample.fault or f'the format is not recognised: {looks}'}; supported: {', '.join(FORMATS)}",
        at=sample.at,
    )


class Detecting(Format):
    """Takes the format of the first record that any format recognises, and keeps it from then on.

    Records before that one are refused. Table rows and lines are told apart throughout, since one directory
    may hold both. Not to be shared between sources.
    """

    name = "auto"

    def __init__(self) -> None:
        self._lines: Format | None = None
        self._rows: Format | None = None

    def recognises(self, value: bytes | Mapping[str, object]) -> bool:
        """Never by itself: it stands for the others."""
        return False

    def parse(self, record: Record) -> Sequence[QueryEvent]:
        """Read one record in the format of the source."""
        if record.fault:
            raise ParseError(record.fault, at=record.at)
        return self.read(record)

    def read(self, record: Record) -> Sequence[QueryEvent]:
        """Read a whole record in the format of the source, settling which that is if need be."""
        rows = isinstance(record.value, Mapping)
        settled = self._rows if rows else self._lines
        if settled is None:
            try:
                settled = detect(record)
            except StreamError as error:
                raise ParseError(error.reason, at=record.at) from None
            if rows:
                self._rows = settled
            else:
                self._lines = settled
        return settled.parse(record)


def named(name: str | None) -> Format:
    """Choose a format for one source.

    Args:
        name: a name in `FORMATS`; None or ``auto`` to detect it by content.

    Raises:
        StreamError: no such format.
    """
    if name is None or name == Detecting.name:
        return Detecting()
    try:
        return FORMATS[name]
    except KeyError:
        raise StreamError(f"no format {name!r}; choose {', '.join(FORMATS)} or auto") from None
