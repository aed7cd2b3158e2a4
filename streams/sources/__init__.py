"""Where records come from."""

from __future__ import annotations

import glob
import os
import stat
import urllib.parse
from pathlib import Path

from streams.errors import StreamError
from streams.sources.directory import DirectorySource
from streams.sources.files import FileSource, file_uri
from streams.sources.source import Position, Record, Source
from streams.sources.stdin import StdinSource

__all__ = ["Position", "Record", "Source", "open_source"]

_SUPPORTED = "a path, file:///…, a directory, a pattern such as logs/*.parquet, or - for standard input"


def open_source(uri: str, *, once: bool) -> Source:
    """Open a source by what a person would write for it.

    Args:
        uri: ``log.jsonl``, ``file:///var/log/queries.jsonl``, ``-`` (standard input), ``logs/`` (all
            ``*.jsonl``, ``*.jsonl.gz`` and ``*.parquet`` below it), ``logs/*.parquet``, ``queries.parquet``,
            ``queries.jsonl.gz``.
        once: stop at the end. Standard input and single Parquet or gzip files always do; others are followed.

    Raises:
        StreamError: an unknown scheme, or nothing of that name.
    """
    if uri in ("-", "stdin:"):
        return StdinSource()
    path = _path(uri)
    if path.is_dir():
        return DirectorySource(file_uri(path) + "/", path, None, once=once)
    if not path.exists() and glob.has_magic(path.name):
        _check_parent(path, uri)
        return DirectorySource(file_uri(path), path.parent, path.name, once=once)
    if path.name.endswith((".parquet", ".gz")):
        if not path.exists():
            raise StreamError(f"no such file: {path}")
        return DirectorySource(file_uri(path), path.parent, glob.escape(path.name), once=True, single=True)
    _check_parent(path, uri)
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise StreamError(f"{path} is no regular file; pipe it in and use - as the source")
    if uri.endswith("/"):
        raise StreamError(f"no such directory: {path}")
    return FileSource(path, once=once)


def _path(uri: str) -> Path:
    """Find the absolute path that a URI or path means; links stay, since rotation may move them."""
    scheme, separator, _ = uri.partition("://")
    if not separator:
        return Path(os.path.abspath(Path(uri).expanduser()))  # noqa: PTH100 (resolve() would follow links)
    if scheme != "file":
        raise StreamError(f"{uri}: sources of {scheme}:// are not supported; use {_SUPPORTED}")
    parts = urllib.parse.urlsplit(uri.replace("?", "%3F").replace("#", "%23"))
    if parts.netloc not in ("", "localhost"):
        raise StreamError(
            f"{uri}: the file is on host {parts.netloc}; a local one has three slashes, file:///…"
        )
    return Path(os.path.abspath(urllib.parse.unquote(parts.path, errors="surrogateescape")))  # noqa: PTH100


def _check_parent(path: Path, uri: str) -> None:
    if not path.parent.is_dir():
        raise StreamError(f"{uri}: no such directory: {path.parent}")
