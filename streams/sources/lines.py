"""Bytes into lines, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streams.errors import StreamError

__all__ = ["CHUNK", "LONGEST_LINE", "Line", "LineCutter"]

CHUNK = 256 * 1024
LONGEST_LINE = 10 * 1024 * 1024
_KEPT_OF_LONG_LINE = 4096


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a byte stream, or one row of a table.

    Attributes:
        offset: where it begins, in bytes or rows.
        data: the line without its line end; of one that is too long, only the beginning; or the row.
        end: where the next one begins.
        fault: why ``data`` is not the whole line.
    """

    offset: int
    data: bytes | Mapping[str, object]
    end: int
    fault: str | None = None


class LineCutter:
    """Cuts chunks into lines and remembers the half-written one. Blank lines are left out.

    Args:
        offset: where the first chunk begins in the stream.
        longest: most bytes in a line. Of a longer one no more than this is ever held in memory.
    """

    def __init__(self, offset: int = 0, longest: int = LONGEST_LINE) -> None:
        if longest < 1:
            raise StreamError(f"lines must be allowed at least 1 byte, not {longest}")
        self._longest = longest
        self._kept = min(longest, _KEPT_OF_LONG_LINE)
        self._start = offset
        self._pieces: list[bytes] = []
        self._held = 0
        self._size = 0

    @property
    def start(self) -> int:
        """Where the line begins that is not complete yet, in bytes."""
        return self._start

    @property
    def end(self) -> int:
        """Where the bytes seen so far end."""
        return self._start + self._size

    def feed(self, chunk: bytes) -> list[Line]:
        """Take the next bytes.

        Returns:
            The lines that they complete.
        """
        *whole, rest = chunk.split(b"\n")
        lines = []
        for piece in whole:
            self._keep(piece)
            lines.extend(self._cut(1))
        self._keep(rest)
        return lines

    def finish(self) -> list[Line]:
        """Take the end of the stream: a last line without a line end is a line."""
        return self._cut(0)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if piece and self._held <= self._longest:
            self._pieces.append(piece)
            self._held += len(piece)
            if self._held > self._longest:
                # Too long whatever follows: from here on only the beginning is worth its memory.
                self._pieces = [b"".join(self._pieces)[: self._kept]]

    def _cut(self, newline: int) -> list[Line]:
        data = b"".join(self._pieces)
        offset, size = self._start, self._size
        self._start += size + newline
        self._pieces, self._held, self._size = [], 0, 0
        if size > self._longest:
            fault = f"the line has {size} bytes; at most {self._longest} are allowed"
            return [Line(offset, data, self._start, fault)]
        data = data.removesuffix(b"\r")
        if not data or data.isspace():
            return []
        return [Line(offset, data, self._start)]
