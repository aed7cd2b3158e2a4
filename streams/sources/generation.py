"""One generation of a log file: what is written between two rotations, whatever its name is by now."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streams.errors import StreamError
from streams.sources.lines import CHUNK, Line, LineCutter

__all__ = ["Generation", "checksum", "identity", "rotated_siblings"]

_HEAD = 1024


def identity(head: bytes) -> str:
    """Name a generation by its first line that is not blank, or by what the first 1024 bytes hold of it.

    That line holds a query's own id and time, so it tells generations apart where names and inodes do not:
    renaming, copying, compressing and moving to another disk all keep it. A file without one whole line has
    no lasting identity yet.

    Args:
        head: the first 1024 bytes of the file, or all it has.

    Returns:
        16 hexadecimal digits.
    """
    line = head[:_HEAD].lstrip().split(b"\n", 1)[0]
    return hashlib.sha256(line.rstrip(b"\r")).hexdigest()[:16]


def checksum(line: bytes) -> int:
    """Sum up the first 1024 bytes of a line, whatever its line end."""
    return zlib.crc32(line[:_HEAD].rstrip(b"\r\n"))


class Generation:
    """An open log file, plain or gzip, read forward line by line.

    Args:
        path: where the file is now. It may be renamed while it is open.
        longest: most bytes in a line.
        final: whether nothing is written to it any more.

    Raises:
        OSError: it cannot be opened.
        StreamError: it is damaged gzip.
    """

    def __init__(self, path: Path, longest: int, *, final: bool = False) -> None:
        self.path = path
        self.final = final
        self._longest = longest
        self._raw = path.open("rb", buffering=0)
        self._file = gzip.GzipFile(fileobj=self._raw) if path.suffix == ".gz" else self._raw
        self._cutter = LineCutter(0, longest)
        try:
            self._head = self._read(_HEAD)
            self.seek(0)
        except StreamError:
            self.close()
            raise

    @property
    def identity(self) -> str:
        """The identity by what has been read so far."""
        return identity(self._head)

    @property
    def offset(self) -> int:
        """Where the next line begins, in uncompressed bytes."""
        return self._cutter.start

    @property
    def status(self) -> os.stat_result:
        """The open file's own status, under whatever name."""
        return os.fstat(self._raw.fileno())

    def reaches(self, offset: int) -> bool:
        """Whether the file has this many bytes; of gzip that is not known, and taken for granted."""
        return self._file is not self._raw or self.status.st_size >= offset

    def seek(self, offset: int) -> None:
        """Go to the beginning of a line.

        Raises:
            StreamError: damaged gzip.
        """
        with self._guard():
            self._file.seek(offset)
        self._cutter = LineCutter(offset, self._longest)

    def holds(self, offset: int, length: int, check: int) -> bool:
        """Whether a line lies where it lay when its position was kept; moves the place.

        Args:
            offset: where the next line begins.
            length: bytes of the line before, its line end included.
            check: `checksum` of it.

        Raises:
            StreamError: damaged gzip.
        """
        if not self.reaches(offset):
            return False
        self.seek(offset - length)
        return checksum(self._read(min(length, _HEAD))) == check

    def read(self) -> list[Line] | None:
        """Read on.

        Returns:
            The lines that the next chunk completes, perhaps none; None at the end of what is there now.

        Raises:
            StreamError: damaged gzip.
        """
        begin = self._cutter.end
        chunk = self._read(CHUNK)
        if not chunk:
            return None
        if len(self._head) < _HEAD:
            self._head += chunk[len(self._head) - begin :][: _HEAD - len(self._head)]
        return self._cutter.feed(chunk)

    def finish(self) -> list[Line]:
        """Take the end as final: a last line without a line end is a line."""
        return self._cutter.finish()

    def truncated(self) -> bool:
        """Whether the plain file has been cut short, or cut and begun anew, under our hands."""
        if self._file is not self._raw:
            return False
        cut = self.status.st_size < self._cutter.end
        return cut or os.pread(self._raw.fileno(), len(self._head), 0) != self._head

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()

    def _read(self, size: int) -> bytes:
        """Read so many bytes; fewer at the end, and before damage, which the next call then raises."""
        data = b""
        try:
            with self._guard():
                while len(data) < size and (more := self._read_some(size - len(data))):
                    data += more
        except StreamError:
            if not data:
                raise
        return data

    def _read_some(self, size: int) -> bytes:
        # Of gzip a step at a time: a longer read that meets damage loses what it has read.
        if isinstance(self._file, gzip.GzipFile):
            return self._file.read1(size)
        return self._file.read(size) or b""

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, zlib.error) as error:
            raise StreamError(f"{self.path} cannot be read after byte {self._cutter.end}: {error}") from error


def rotated_siblings(path: Path, since: int = 0) -> list[Path]:
    """List what log rotation has made of a file.

    Of ``log.jsonl`` it makes ``log.jsonl.1``, ``log.jsonl-20261122.gz``, ``log-2026-11-22.jsonl`` and so on.

    Args:
        path: the file under its own name.
        since: leave out what was last written before this time, in nanoseconds since the epoch.

    Returns:
        Paths beside it, oldest first by the time of the last write, which renaming and gzip keep.

    Raises:
        StreamError: the directory may not be listed.
    """
    stamp, end = r"[.\-_]\d[\dTZ:.\-_]*", r"(\.gz)?"
    name, stem, suffix = re.escape(path.name), re.escape(path.stem), re.escape(path.suffix)
    pattern = re.compile(f"{name}{stamp}{end}|{stem}{stamp}{suffix}{end}")
    found: list[tuple[int, int, Path]] = []
    try:
        entries = list(os.scandir(path.parent))
    except PermissionError as error:
        raise StreamError(f"cannot list {path.parent} to find rotated files: {error}") from error
    for entry in entries:
        if pattern.fullmatch(entry.name) and entry.name != path.name:
            with suppress(FileNotFoundError):  # renamed or removed meanwhile
                found.append((entry.stat().st_mtime_ns, _order(entry.name), path.parent / entry.name))
    plain = {sibling for *_, sibling in found}
    return [
        sibling
        for written, _, sibling in sorted(found)
        # log.jsonl.1.gz beside log.jsonl.1 is still being compressed.
        if written >= since and not (sibling.suffix == ".gz" and sibling.with_suffix("") in plain)
    ]


def _order(name: str) -> int:
    """Order of names whose times are equal: of small numbers the larger is older, of dates the smaller."""
    digits = int("".join(re.findall(r"\d", name)) or 0)
    return -digits if digits < 1000 else digits
