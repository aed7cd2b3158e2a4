"""The contract of a source: raw records, in order, each with the position to resume from after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from streams.events import Coordinates

__all__ = ["Position", "Record", "Source"]


@dataclass(frozen=True, slots=True)
class Position:
    """Where to go on within one partition; this is what is committed.

    Attributes:
        partition: the partition, as in the records' coordinates.
        offset: byte offset or row number of the first record that has not been given out.
        cursor: what else the source needs to know the place again; only the source that wrote it reads it.
    """

    partition: str
    offset: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One raw record.

    Attributes:
        at: where it stood.
        value: a line without its line end, or a table row by column name.
        next: where to resume once this record is done with.
        fault: why the source could not give the record whole. ``value`` is then what is worth keeping of it,
            and every format refuses it with this reason.
    """

    at: Coordinates
    value: bytes | Mapping[str, object]
    next: Position
    fault: str | None = None


class Source(Protocol):
    """Something that gives out records in order. One thread at a time may use it."""

    @property
    def uri(self) -> str:
        """Canonical URI: the ``source`` of coordinates, and the key of committed positions."""

    @property
    def exhausted(self) -> bool:
        """Whether a bounded source has given out its last record. A followed source never has."""

    def seek(self, committed: Mapping[str, Position]) -> None:
        """Go to where an earlier run stopped. Called once, before the first poll.

        Args:
            committed: last committed position by partition; empty to begin at the start.
        """

    def poll(self, max_records: int, timeout: float) -> Sequence[Record]:
        """Give out the next records.

        Args:
            max_records: at most this many, ≥ 1. Large records may end a batch earlier.
            timeout: seconds to wait for the first of them, ≥ 0.

        Returns:
            Records in the order of the source; empty if none came in time.

        Raises:
            StreamError: the source is gone or damaged in a way that no dead letter can stand for.
        """

    def close(self) -> None:
        """Let go of files and connections. Safe to call twice."""
