"""What file-like sources share: reading a little ahead, and waiting."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from streams.errors import StreamError
from streams.events import Coordinates
from streams.sources.lines import Line
from streams.sources.source import Position, Record

__all__ = ["Buffered"]

# What is read ahead of a poll holds no more than about this many bytes (and one record).
_READ_AHEAD = 8 * 1024 * 1024


class Buffered(ABC):
    """A source that reads in steps of a chunk and gives out record by record.

    Args:
        uri: canonical URI.
        interval: seconds between looks at something that does not grow.
    """

    def __init__(self, uri: str, interval: float) -> None:
        self._uri = uri
        self._interval = interval
        self._records: deque[Record] = deque()
        self._ahead = 0
        self._ended = False
        self._fault: StreamError | None = None

    @property
    def uri(self) -> str:
        """Canonical URI."""
        return self._uri

    @property
    def exhausted(self) -> bool:
        """Whether the last record has been given out and no more will come."""
        return self._ended and not self._records

    @abstractmethod
    def seek(self, committed: Mapping[str, Position]) -> None:
        """Go to where an earlier run stopped; see `Source.seek`."""

    def poll(self, max_records: int, timeout: float) -> Sequence[Record]:
        """Give out the next records; see `Source.poll`. What lies before a fault is given out first."""
        deadline = time.monotonic() + timeout
        while True:
            self._read_ahead(max_records)
            if self._fault is not None and not self._records:
                raise self._fault
            remaining = deadline - time.monotonic()
            if self._records or self._ended or remaining <= 0:
                batch = [self._records.popleft() for _ in range(min(max_records, len(self._records)))]
                self._ahead -= sum(_size(record.value) for record in batch)
                return batch
            self._wait(min(self._interval, remaining))

    def _read_ahead(self, max_records: int) -> None:
        try:
            while len(self._records) < max_records and self._ahead < _READ_AHEAD:
                if self._ended or self._fault is not None or not self._advance():
                    return
        except StreamError as error:
            self._fault = error

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open."""

    @abstractmethod
    def _advance(self) -> bool:
        """Take one step; False if there is nothing to do but wait."""

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def _give(self, partition: str, cursor: str | None, lines: Iterable[Line]) -> None:
        for line in lines:
            at = Coordinates(self._uri, partition, line.offset)
            self._records.append(Record(at, line.data, Position(partition, line.end, cursor), line.fault))
            self._ahead += _size(line.data)


def _size(value: bytes | Mapping[str, object]) -> int:
    """Count what takes the memory: the bytes of a line, or of a row's longest column."""
    if isinstance(value, bytes):
        return len(value)
    return max((len(cell) for cell in value.values() if isinstance(cell, bytes | str)), default=0)
