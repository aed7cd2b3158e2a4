"""Standard input."""

from __future__ import annotations

import os
import select
from collections.abc import Mapping

from streams.errors import StreamError
from streams.sources.buffered import Buffered
from streams.sources.generation import identity
from streams.sources.lines import CHUNK, LONGEST_LINE, LineCutter
from streams.sources.source import Position

__all__ = ["StdinSource"]


class StdinSource(Buffered):
    """Lines from a pipe or a redirected file, until its end.

    Offsets are byte counts from the beginning; the partition names the stream by its first line, as for a
    file. A pipe cannot be read again, so nothing is resumed: what is piped in again is read again, and
    storage drops the ids that it has.

    Args:
        descriptor: file descriptor to read; left open by `close`.
        longest: most bytes in a line.
    """

    def __init__(self, descriptor: int = 0, *, longest: int = LONGEST_LINE) -> None:
        super().__init__("stdin:", interval=0.1)
        self._descriptor = descriptor
        self._cutter = LineCutter(0, longest)
        self._head = b""

    def seek(self, committed: Mapping[str, Position]) -> None:
        """Do nothing: a pipe has no way back."""

    def close(self) -> None:
        """Stop reading."""
        self._ended = True

    def _advance(self) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], 0)
        if not ready:
            return False
        try:
            chunk = os.read(self._descriptor, CHUNK)
        except OSError as error:
            raise StreamError(f"standard input cannot be read: {error}") from error
        lines = self._cutter.feed(chunk) if chunk else self._cutter.finish()
        self._head += chunk[: 1024 - len(self._head)]
        self._give(identity(self._head), None, lines)
        self._ended = not chunk
        return True

    def _wait(self, seconds: float) -> None:
        select.select([self._descriptor], [], [], seconds)
