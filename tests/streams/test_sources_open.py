"""What a person may write for a source, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streams.errors import StreamError
from streams.sources import open_source


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"no such file: .*/absent\.jsonl"):
        open_source(str(tmp_path / "absent.jsonl"), once=True)
    with pytest.raises(StreamError, match=r"no such directory: .*/absent"):
        open_source(str(tmp_path / "absent" / "log.jsonl"), once=False)
    with pytest.raises(StreamError, match=r"no such directory: .*/absent"):
        open_source(str(tmp_path / "absent") + "/", once=False)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StreamError, match="use - as the source"):
        open_source(str(tmp_path / "pipe"), once=False)
    with pytest.raises(StreamError, match="sources of kafka:// are not supported; use a path"):
        open_source("kafka://broker:9092/queries", once=False)
    with pytest.raises(StreamError, match="on host server"):
        open_source("file://server/log.jsonl", once=False)
    with pytest.raises(StreamError, match=r"no such file: .*\.parquet"):
        open_source(str(tmp_path / "absent.parquet"), once=False)


def test_one_file_has_one_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "a log #1?.jsonl"
    log.touch()
    monkeypatch.chdir(tmp_path)
    canonical = tmp_path.as_uri() + "/a%20log%20%231?.jsonl"
    for uri in (log.name, f"./{log.name}", str(log), f"file://{log}", f"file://localhost{log}", canonical):
        source = open_source(uri, once=True)
        assert source.uri == canonical
        assert source.poll(1, 0) == []
        source.close()
