"""A directory of logs: lines, gzipped lines and Parquet."""

from __future__ import annotations

import os
import time
import urllib.parse
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from streams.errors import StreamError
from streams.sources.buffered import Buffered
from streams.sources.generation import Generation
from streams.sources.lines import LONGEST_LINE, Line
from streams.sources.parquet import ParquetFile
from streams.sources.source import Position

__all__ = ["DirectorySource"]

_log = structlog.get_logger(__name__)

# What is read of a directory that is named without a pattern.
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_DAMAGED = "damaged:"


@dataclass(slots=True)
class _File:
    """How far a file has been read.

    Attributes:
        offset: first byte or row that has not been read.
        identity: of the file that the offset belongs to, where that is known.
        seen: stamp at the last scan.
        since: monotonic time since when the stamp has been that, in seconds.
        done: stamp of the file as it was read to its end; None if there is something to read.
    """

    offset: int = 0
    identity: str | None = None
    seen: str = ""
    since: float = 0.0
    done: str | None = None


class DirectorySource(Buffered):
    """All files of a pattern, in the order of their names; a partition is a file, by its relative path.

    Files may grow, and new ones are picked up while following. A file that has been replaced by another is
    read from its beginning, with a warning. Of each file a few hundred bytes are kept in memory.

    Args:
        uri: canonical URI.
        root: the directory.
        pattern: glob pattern below it; None for every log of a known suffix, at any depth. What begins with
            a dot is left out.
        once: stop after the files that are there now.
        single: the pattern means one file, and damage to it stops the source. Otherwise a damaged file
            becomes one record with a fault, and the next file is read.
        longest: most bytes in a line.
        interval: seconds between scans.
        settle: seconds without change after which an incomplete Parquet or gzip file counts as damaged.
    """

    def __init__(
        self,
        uri: str,
        root: Path,
        pattern: str | None,
        *,
        once: bool,
        single: bool = False,
        longest: int = LONGEST_LINE,
        interval: float = 0.5,
        settle: float = 30.0,
    ) -> None:
        super().__init__(uri, interval)
        self._root, self._pattern = root, pattern
        self._once, self._single = once, single
        self._longest, self._settle = longest, settle
        self._files: dict[str, _File] = {}
        self._waiting: deque[tuple[str, Path]] = deque()
        self._name = ""
        self._reader: Generation | ParquetFile | None = None
        self._next_scan: float | None = None

    def seek(self, committed: Mapping[str, Position]) -> None:
        """Go on in each file where an earlier run stopped."""
        for name, position in committed.items():
            cursor = position.cursor or ""
            if cursor.startswith(_DAMAGED):
                self._files[name] = _File(position.offset, done=cursor.removeprefix(_DAMAGED))
            else:
                self._files[name] = _File(position.offset, position.cursor)

    def close(self) -> None:
        """Close the file that is open."""
        self._stop_reading()
        self._ended = True

    def _advance(self) -> bool:
        if self._reader is None:
            return self._next()
        file, reader = self._files[self._name], self._reader
        try:
            if reader.truncated():
                self._stop_reading()
                self._waiting.appendleft((self._name, reader.path))
                return True
            lines = reader.read()
        except StreamError as error:
            file.offset, file.identity = reader.offset, reader.identity
            self._damaged(file, error)
            return True
        if lines is None:
            lines = reader.finish() if reader.final else []
            file.done = file.seen
            self._stop_reading()
        self._give(self._name, reader.identity, lines)
        file.offset, file.identity = reader.offset, reader.identity
        return True

    def _next(self) -> bool:
        """Open the next file that has something new, after a scan if need be."""
        if not self._waiting:
            self._ended = self._once and self._next_scan is not None
            if self._ended or time.monotonic() < (self._next_scan or 0.0):
                return False
            self._scan()
            return bool(self._waiting)
        self._name, path = self._waiting.popleft()
        file = self._files[self._name]
        try:
            self._reader = self._open(path, file)
        except FileNotFoundError:
            file.done = file.seen
        except (StreamError, OSError) as error:
            self._damaged(file, StreamError(f"cannot read {path}: {error}"))
        return True

    def _open(self, path: Path, file: _File) -> Generation | ParquetFile:
        reader: Generation | ParquetFile
        if path.suffix == ".parquet":
            reader = ParquetFile(path)
        else:
            reader = Generation(path, self._longest, final=self._once or path.suffix == ".gz")
        if file.offset:
            same = file.identity in (None, reader.identity) and reader.reaches(file.offset)
            if not same:
                _log.warning("replaced", source=self.uri, file=self._name, offset=file.offset)
                file.offset = 0
            reader.seek(file.offset)
        return reader

    def _scan(self) -> None:
        now = time.monotonic()
        self._next_scan = now + self._interval
        found = []
        for path in self._root.glob(self._pattern or "**/*"):
            relative = path.relative_to(self._root)
            hidden = any(part.startswith(".") for part in relative.parts) and not self._single
            if hidden or not path.is_file():
                continue
            if self._pattern is None and not path.name.endswith(_SUFFIXES):
                continue
            found.append((urllib.parse.quote(os.fsencode(relative)), path))
        if self._once and not found:
            _log.warning("empty", source=self.uri, meaning="no file matches")
        for name, path in sorted(found):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            file = self._files.setdefault(name, _File())
            stamp = f"{status.st_size}:{status.st_mtime_ns}"
            if file.seen != stamp:
                file.seen, file.since = stamp, now
            if file.done != stamp:
                self._waiting.append((name, path))

    def _damaged(self, file: _File, error: StreamError) -> None:
        """Wait if the file may still be written; otherwise give a record that stands for its rest."""
        self._stop_reading()
        if self._single:
            raise error
        if not self._once and time.monotonic() - file.since < self._settle:
            return
        file.done = file.seen
        rest = Line(file.offset, b"", file.offset, error.reason)
        self._give(self._name, _DAMAGED + file.seen, [rest])

    def _stop_reading(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
