"""A log file, followed through its rotations like ``tail -F``."""

from __future__ import annotations

import json
import os
import time
import urllib.parse
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog

from streams.errors import StreamError
from streams.sources.buffered import Buffered
from streams.sources.generation import Generation, checksum, rotated_siblings
from streams.sources.lines import LONGEST_LINE, Line
from streams.sources.source import Position

__all__ = ["FileSource", "file_uri"]

_log = structlog.get_logger(__name__)

# Generations that are recognised when they turn up again under another name.
_REMEMBERED = 1000


def file_uri(path: Path) -> str:
    """Canonical URI of an absolute path, which may end in a glob pattern."""
    return "file://" + urllib.parse.quote(os.fsencode(path), safe="/*?[]!")


class FileSource(Buffered):
    """One log file. A partition is one generation of it, named by the hash of its first line.

    Rotation by renaming: the old file is read to its end, then what came between, then the new one. Rotation
    by copying and truncating: the copy is looked for and finished first. A restart finds the committed
    generation in the same way, also compressed with gzip. What cannot be found is reported, never skipped in
    silence.

    Args:
        path: the file; while following it need not exist yet.
        once: stop at the end; a last line without a line end is then a record if it is whole JSON, and else
            left to the next run. Otherwise it is waited for.
        longest: most bytes in a line; longer ones come as records with a fault.
        grace: seconds that a renamed file must be quiet, with something in its successor, before it is left.
        interval: seconds between looks at a file that does not grow.

    Raises:
        StreamError: ``once``, and there is no such file.
    """

    def __init__(
        self,
        path: Path,
        *,
        once: bool,
        longest: int = LONGEST_LINE,
        grace: float = 1.0,
        interval: float = 0.1,
    ) -> None:
        super().__init__(file_uri(path), interval)
        self._path = path
        self._once = once
        self._longest = longest
        self._grace = grace
        self._current: Generation | None = None
        self._backlog: deque[Generation] = deque()
        self._number = 0  # counts generations, so that of all committed ones the last can be told
        self._known: dict[str, Position] = {}  # by partition, where we are in it
        self._left_at: float | None = None  # since when the current file is renamed and quiet
        if not path.exists():
            if once:
                raise StreamError(f"no such file: {path}")
            _log.warning("waiting for the file", source=self.uri, meaning="there is no such file yet")

    def seek(self, committed: Mapping[str, Position]) -> None:
        """Find the generation where an earlier run stopped, under whatever name."""
        if not committed:
            return
        *_, last = inorder = sorted(committed.values(), key=lambda position: _parse(position)[0])
        self._known = {position.partition: position for position in inorder}
        self._number, *_ = _parse(last)
        newest = self._open(self._path)
        if newest is not None:
            position = self._position(newest)
            if position is not None:
                newest.seek(position.offset)
                self._current = newest
                return
            newest.close()
        self._current = self._rotated(last)
        if self._current is not None:
            return
        _log.warning(
            "lost",
            source=self.uri,
            generation=last.partition,
            offset=last.offset,
            beside=[sibling.name for sibling in rotated_siblings(self._path)],
            meaning="the file was rotated and the old one is gone; what followed here was not read",
        )

    def close(self) -> None:
        """Close all files."""
        for generation in (self._current, *self._backlog):
            if generation is not None:
                generation.close()
        self._current = None
        self._backlog.clear()
        self._ended = True

    def _advance(self) -> bool:
        """Take one step; False if there is nothing to do but wait."""
        if self._current is None and not self._next():
            self._ended = self._once
            return False
        current = self._current
        assert current is not None
        try:
            if not current.final and current.truncated():
                self._truncated(current)
                return True
            lines = current.read()
        except StreamError as error:
            if not current.final:
                raise
            self._take(current, [Line(current.offset, b"", current.offset, error.reason)])
            self._leave(current)
            return True
        if lines is not None:
            self._left_at = None
            self._take(current, lines)
            return True
        if current.final or self._renamed(current):
            self._take(current, current.finish())
            self._leave(current)
            return True
        if self._once:
            self._take_last(current)
            self._ended = True
        return False

    def _next(self) -> bool:
        """Open what comes next: a generation of the backlog, or the file under its own name."""
        self._current = self._backlog.popleft() if self._backlog else self._open(self._path)
        self._number += self._current is not None
        return self._current is not None

    def _take(self, current: Generation, lines: list[Line]) -> None:
        partition = current.identity
        for line in lines:
            assert isinstance(line.data, bytes)
            cursor = f"{self._number}:{line.end - line.offset}:{checksum(line.data)}"
            self._give(partition, cursor, [line])
            self._known[partition] = Position(partition, line.end, cursor)

    def _take_last(self, current: Generation) -> None:
        """Take a last line without a line end, unless a logger is still writing it."""
        offset, lines = current.offset, current.finish()
        if all(line.fault or _is_json(line.data) for line in lines):
            self._take(current, lines)
        else:
            _log.warning(
                "incomplete",
                source=self.uri,
                offset=offset,
                meaning="the last line has no end and is no JSON yet; the next run reads it again",
            )

    def _renamed(self, current: Generation) -> bool:
        """Whether the open file has lost its name to one that is in use, and has been quiet since."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StreamError(f"cannot look at {self._path}: {error}") from error
        if os.path.samestat(there, current.status) or not there.st_size:
            return False
        now = time.monotonic()
        self._left_at = self._left_at or now
        return now - self._left_at >= self._grace

    def _leave(self, current: Generation) -> None:
        """Close a finished generation and line up those between it and the file under its own name."""
        written = current.status.st_mtime_ns
        current.close()
        self._current, self._left_at = None, None
        for partition in list(self._known)[:-_REMEMBERED]:
            del self._known[partition]
        if self._backlog:
            return
        # The named file is opened before the others are listed, so that no renaming meanwhile hides one.
        newest = self._open(self._path)
        for sibling in self._siblings(since=written):
            same = newest is not None and os.path.samestat(sibling.status, newest.status)
            if same or self._position(sibling) is not None:
                sibling.close()
            else:
                sibling.seek(0)
                self._backlog.append(sibling)
        if newest is not None:
            self._backlog.append(newest)

    def _truncated(self, current: Generation) -> None:
        """Go on in the copy that was made before the file was cut, or else from the new beginning."""
        stopped = self._known.get(current.identity) or Position(current.identity, 0)
        copy = self._rotated(stopped)
        if copy is None:
            _log.warning(
                "truncated",
                source=self.uri,
                generation=stopped.partition,
                offset=stopped.offset,
                meaning="no copy lies beside it; lines written just before the cut may be lost",
            )
            self._take(current, current.finish())
        current.close()
        self._current = copy

    def _rotated(self, position: Position) -> Generation | None:
        """Find a generation under a rotated name, and go to the position in it."""
        for sibling in self._siblings():
            if self._position(sibling, position) is not None:
                sibling.seek(position.offset)
                return sibling
            sibling.close()
        return None

    def _position(self, generation: Generation, wanted: Position | None = None) -> Position | None:
        """Find where we are in a generation; None if we have not met it, or it is not the wanted one.

        Two generations may begin with the same line, a banner say, so the last line that was read decides.
        """
        position = wanted or self._known.get(generation.identity)
        if position is None or position.partition != generation.identity:
            return None
        _, length, check = _parse(position)
        try:
            return position if not length or generation.holds(position.offset, length, check) else None
        except StreamError:
            return None

    def _siblings(self, since: int = 0) -> Iterator[Generation]:
        """Open the rotated files one by one, oldest first; those that are renamed meanwhile come again."""
        for _ in range(5):
            try:
                for path in rotated_siblings(self._path, since):
                    try:
                        yield Generation(path, self._longest, final=True)
                    except (StreamError, PermissionError, IsADirectoryError) as error:
                        _log.warning("unreadable", source=self.uri, file=str(path), error=str(error))
            except FileNotFoundError:
                continue
            return

    def _open(self, path: Path) -> Generation | None:
        try:
            return Generation(path, self._longest)
        except FileNotFoundError:
            return None
        except (StreamError, OSError) as error:
            raise StreamError(f"cannot read {path}: {error}") from error


def _is_json(data: object) -> bool:
    assert isinstance(data, bytes)
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(position: Position) -> tuple[int, int, int]:
    """Take a cursor apart: the generation's number, and length and checksum of the line before."""
    number, length, check = (position.cursor or "0:0:0").split(":")
    return int(number), int(length), int(check)
