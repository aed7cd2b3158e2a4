"""Rows of a Parquet table, one query a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streams.errors import ParseError
from streams.events import QueryEvent
from streams.formats import fields
from streams.formats.format import Format
from streams.sources.source import Record

__all__ = ["Table"]

_NEEDED = frozenset({"id", "time", "client", "endpoint"})
_PAYLOADS = frozenset({"image", "embedding"})
_OWN = _NEEDED | _PAYLOADS | {"encoder", "label", "scores", "attributes"}


class Table(Format):
    """One query a row.

    Columns: ``id``, ``time`` (timestamp with zone, integer milliseconds, or ISO 8601), ``client``,
    ``endpoint``; ``image`` (bytes) or ``embedding`` (list) with ``encoder``; ``label`` and ``scores`` (map or
    struct). An ``attributes`` map or struct, and every other column of strings, are attributes.
    """

    name = "parquet"

    def recognises(self, value: bytes | Mapping[str, object]) -> bool:
        """Whether the columns that every query needs are there."""
        return isinstance(value, Mapping) and value.keys() >= _NEEDED and not _PAYLOADS.isdisjoint(value)

    def read(self, record: Record) -> Sequence[QueryEvent]:
        """Read one row.

        Returns:
            Exactly one event.

        Raises:
            ParseError: with the first fault found.
        """
        if not isinstance(record.value, Mapping):
            raise ParseError("a line is no table row; leave out --format parquet")
        event_id = fields.string(record.value.get("id"), "id")
        try:
            return (_event(event_id, record.value, record),)
        except ParseError as error:
            error.event_id = event_id
            raise


def _event(event_id: str, row: Mapping[str, object], record: Record) -> QueryEvent:
    image, embedding, encoder = row.get("image"), row.get("embedding"), row.get("encoder")
    if (image is None) == (embedding is None):
        has = "neither" if image is None else "both"
        raise ParseError(f"exactly one of image and embedding is needed; the row has {has}")
    if image is not None and not (isinstance(image, bytes) and image):
        raise ParseError(f"image must be bytes, not {'empty' if image == b'' else fields.kind(image)}")
    if embedding is not None and encoder is None:
        raise ParseError("embedding needs encoder, the weights hash of the encoder that made it")
    label, scores = row.get("label"), row.get("scores")
    others = {name: value for name, value in row.items() if name not in _OWN and isinstance(value, str)}
    return QueryEvent(
        id=event_id,
        time=fields.time_ms(row.get("time")),
        client=fields.string(row.get("client"), "client"),
        endpoint=fields.string(row.get("endpoint"), "endpoint"),
        at=record.at,
        image=image,
        embedding=None if embedding is None else fields.embedding(embedding),
        encoder=None if embedding is None else fields.string(encoder, "encoder"),
        response=None if label is None and scores is None else fields.response(label, scores),
        attributes=fields.attributes(others) | fields.attributes(row.get("attributes")),
    )
