"""What can go wrong between a source and an event."""

from __future__ import annotations

from streams.events import Coordinates

__all__ = ["ParseError", "StreamError"]


class StreamError(Exception):
    """A source, a format or the stream itself cannot go on.

    Attributes:
        reason: the fault and the fix, for a person to read.
        at: where it stood, where that is known.
    """

    def __init__(self, reason: str, *, at: Coordinates | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at

    def __str__(self) -> str:
        return f"{self.at}: {self.reason}" if self.at else self.reason


class ParseError(StreamError):
    """One record, or one query of it, is not readable: it becomes a dead letter and the stream goes on.

    Attributes:
        event_id: the query's id, where it was readable.
        item: index of the query within the record.
    """

    def __init__(
        self, reason: str, *, event_id: str | None = None, item: int = 0, at: Coordinates | None = None
    ) -> None:
        super().__init__(reason, at=at)
        self.event_id = event_id
        self.item = item
