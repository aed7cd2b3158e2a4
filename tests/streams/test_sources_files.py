from __future__ import annotations

import gzip
import logging.handlers
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import structlog

from streams.sources import Position, Record
from streams.sources.files import FileSource
from streams.sources.generation import identity, rotated_siblings


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


class Reader:
    """A source with what has been read of it, and the positions that a pipeline would have committed."""

    def __init__(
        self, path: Path, committed: dict[str, Position] | None = None, *, once: bool = False
    ) -> None:
        self.source = FileSource(path, once=once, grace=0.05, interval=0.005)
        self.committed = dict(committed or {})
        self.source.seek(self.committed)

    def take(self, records: Sequence[Record]) -> list[bytes]:
        for record in records:
            self.committed[record.next.partition] = record.next
        return [record.value for record in records if isinstance(record.value, bytes)]

    def read(self, timeout: float = 0.25) -> list[bytes]:
        """Everything until nothing has come for `timeout`."""
        lines: list[bytes] = []
        while batch := self.source.poll(1000, timeout):
            lines += self.take(batch)
        return lines


def lines(begin: int, end: int) -> list[bytes]:
    return [b'{"id": "%d"}' % n for n in range(begin, end)]


def write(path: Path, begin: int, end: int, *, mode: str = "ab") -> None:
    with path.open(mode) as file:
        file.writelines(line + b"\n" for line in lines(begin, end))


def test_coordinates_and_positions(log: Path) -> None:
    log.write_bytes(b'first\r\n\n  \nsecond\n"3rd"')
    source = FileSource(log, once=True)
    source.seek({})
    records = source.poll(10, 0)
    generation = identity(b"first")
    assert source.uri == log.as_uri()
    assert [(r.at.source, r.at.partition, r.at.offset, r.value, r.next.offset) for r in records] == [
        (log.as_uri(), generation, 0, b"first", 7),
        (log.as_uri(), generation, 11, b"second", 18),
        (log.as_uri(), generation, 18, b'"3rd"', 23),
    ]
    assert source.exhausted
    assert source.poll(10, 5) == []
    source.close()
    source.close()


def test_at_most_so_many_records_come_at_once(log: Path) -> None:
    write(log, 0, 10)
    source = FileSource(log, once=True)
    source.seek({})
    sizes = []
    while not source.exhausted:
        sizes.append(len(source.poll(4, 0)))
    source.close()
    assert sizes[:3] == [4, 4, 2]


def test_resume_after_every_line(log: Path) -> None:
    log.write_bytes(b"\n".join([*lines(0, 5), b"", b"\xff\xfe", *lines(5, 9)]))
    source = FileSource(log, once=True)
    source.seek({})
    records = source.poll(100, 0)
    source.close()
    assert len(records) == 10
    for index, record in enumerate(records):
        again = FileSource(log, once=True)
        again.seek({record.next.partition: record.next})
        assert again.poll(100, 0) == records[index + 1 :]
        assert again.poll(100, 0) == []
        assert again.exhausted
        again.close()


def test_a_half_written_line_is_waited_for(log: Path) -> None:
    reader = Reader(log)
    assert reader.read(0.02) == []
    log.write_bytes(b"who")
    assert reader.read(0.02) == []
    with log.open("ab") as file:
        file.write(b"le\nha")
    assert reader.read() == [b"whole"]
    reader.source.close()
    again = Reader(log, reader.committed)
    with log.open("ab") as file:
        file.write(b"lf\n")
    assert again.read() == [b"half"]
    again.source.close()


def test_a_long_line_is_a_record_with_a_fault(log: Path) -> None:
    log.write_bytes(b"a\n" + b"x" * (11 * 1024 * 1024) + b"\nb\n")
    source = FileSource(log, once=True)
    source.seek({})
    records: list[Record] = []
    while not source.exhausted:
        records += source.poll(10, 0)
    source.close()
    first, long, last = records
    assert (first.value, last.value, last.fault) == (b"a", b"b", None)
    assert (long.at.offset, long.value, long.next.offset) == (2, b"x" * 4096, 11 * 1024 * 1024 + 3)
    assert long.fault == "the line has 11534336 bytes; at most 10485760 are allowed"


def test_renaming_finishes_the_old_file_first(log: Path) -> None:
    write(log, 0, 3)
    reader = Reader(log)
    assert reader.read() == lines(0, 3)
    held = log.open("ab")
    log.rename(log.with_suffix(".jsonl.1"))
    log.touch()
    held.write(b'{"id": "3"}\n')
    held.flush()
    # The writer still has the old file: nothing is in the new one, so we do not leave either.
    assert reader.read() == lines(3, 4)
    held.write(b'{"id": "4"}')
    held.close()
    write(log, 5, 7)
    assert reader.read() == lines(4, 7)
    assert len(reader.committed) == 2
    reader.source.close()


def test_two_rotations_between_two_looks(log: Path) -> None:
    write(log, 0, 3)
    reader = Reader(log)
    assert reader.read() == lines(0, 3)
    write(log, 3, 4)
    log.rename(log.with_name("log.jsonl.2"))
    write(log, 4, 6)
    log.rename(log.with_name("log.jsonl.1"))
    write(log, 6, 8)
    assert reader.read() == lines(3, 8)
    reader.source.close()


def test_generations_that_begin_alike(log: Path) -> None:
    banner = b"# a log that begins like all of them"

    def begin(first: int, last: int) -> None:
        log.write_bytes(banner + b"\n")
        write(log, first, last)

    begin(0, 3)
    reader = Reader(log)
    assert reader.read() == [banner, *lines(0, 3)]
    log.rename(log.with_name("log.jsonl.2"))
    begin(3, 6)
    log.rename(log.with_name("log.jsonl.1"))
    begin(6, 9)
    assert reader.read() == [banner, *lines(3, 6), banner, *lines(6, 9)]
    reader.source.close()
    write(log, 9, 10)
    gzipped(log.with_name("log.jsonl.1"))
    log.rename(log.with_name("log.jsonl.0"))
    begin(10, 12)
    again = Reader(log, reader.committed)
    assert again.read() == [*lines(9, 10), banner, *lines(10, 12)]
    again.source.close()


@pytest.mark.parametrize("copied", [True, False])
def test_copying_and_truncating(log: Path, copied: bool) -> None:
    write(log, 0, 3)
    reader = Reader(log)
    assert reader.read() == lines(0, 3)
    write(log, 3, 5)
    if copied:
        shutil.copyfile(log, log.with_name("log.jsonl.1"))
    os.truncate(log, 0)
    with structlog.testing.capture_logs() as events:
        first = reader.read()
        write(log, 5, 7)
        assert first + reader.read() == lines(3 if copied else 5, 7)
    assert [event["event"] for event in events] == ([] if copied else ["truncated"])
    reader.source.close()


def test_truncation_is_seen_also_when_the_file_is_longer_again(log: Path) -> None:
    write(log, 0, 3)
    reader = Reader(log)
    assert reader.read() == lines(0, 3)
    write(log, 10, 50, mode="wb")
    with structlog.testing.capture_logs():
        assert reader.read() == lines(10, 50)
    reader.source.close()


def gzipped(path: Path) -> Path:
    target = path.with_name(path.name + ".gz")
    with gzip.open(target, "wb") as file:
        file.write(path.read_bytes())
    shutil.copystat(path, target)
    path.unlink()
    return target


@pytest.mark.parametrize("compress", [False, True])
def test_restart_after_rotations(log: Path, compress: bool) -> None:
    write(log, 0, 5)
    reader = Reader(log)
    reader.take(reader.source.poll(2, 1))
    reader.source.close()
    log.rename(log.with_name("log.jsonl.2"))
    write(log, 5, 8)
    log.rename(log.with_name("log.jsonl.1"))
    write(log, 8, 10)
    if compress:
        gzipped(log.with_name("log.jsonl.2"))
        gzipped(log.with_name("log.jsonl.1"))
    with structlog.testing.capture_logs() as events:
        again = Reader(log, reader.committed)
        assert again.read() == lines(2, 10)
        again.source.close()
        once = Reader(log, again.committed, once=True)
        assert once.read() == []
        assert once.source.exhausted
        once.source.close()
    assert events == []


def test_restart_after_copying_and_truncating(log: Path) -> None:
    write(log, 0, 5)
    reader = Reader(log)
    reader.take(reader.source.poll(2, 1))
    reader.source.close()
    shutil.copyfile(log, log.with_name("log-20261122.jsonl"))
    os.truncate(log, 0)
    write(log, 5, 9)
    again = Reader(log, reader.committed, once=True)
    assert again.read() == lines(2, 9)
    again.source.close()


def test_a_generation_that_is_gone_is_reported(log: Path) -> None:
    write(log, 0, 5)
    reader = Reader(log)
    reader.take(reader.source.poll(2, 1))
    reader.source.close()
    log.unlink()
    write(log, 5, 7)
    write(log.with_name("log.jsonl.1"), 90, 91)
    with structlog.testing.capture_logs() as events:
        again = Reader(log, reader.committed)
        assert again.read() == lines(5, 7)
    again.source.close()
    (event,) = events
    assert (event["event"], event["log_level"], event["offset"]) == ("lost", "warning", 24)
    assert (event["generation"], event["beside"]) == (identity(lines(0, 1)[0]), ["log.jsonl.1"])


def test_a_damaged_rotated_file_becomes_a_fault(log: Path) -> None:
    rng = random.Random(0)
    log.write_bytes(b"".join(b"%d %d\n" % (n, rng.getrandbits(900)) for n in range(20_000)))
    reader = Reader(log)
    reader.take(reader.source.poll(2, 1))
    reader.source.close()
    log.rename(log.with_name("log.jsonl.1"))
    packed = gzipped(log.with_name("log.jsonl.1"))
    os.truncate(packed, packed.stat().st_size // 2)
    write(log, 0, 2)
    source = FileSource(log, once=True)
    source.seek(reader.committed)
    records: list[Record] = []
    while not source.exhausted:
        records += source.poll(1000, 0)
    source.close()
    faults = [record for record in records if record.fault]
    assert len(faults) == 1
    assert "log.jsonl.1.gz cannot be read after byte" in str(faults[0].fault)
    assert [record.value for record in records[-2:]] == lines(0, 2)
    assert 1000 < len(records) < 20_000


def test_siblings_are_told_from_other_files(tmp_path: Path) -> None:
    names = ["log.jsonl.3", "log.jsonl.2.gz", "log.jsonl-20261122", "log-2026-11-22T09.jsonl", "log.jsonl.1"]
    for name in [
        *names,
        "log.jsonl",
        "log.jsonl.swp",
        "log.jsonl.bak",
        "blog.jsonl.1",
        "log.csv.1",
        "log-a.jsonl",
    ]:
        (tmp_path / name).touch()
    for age, name in enumerate(names):
        os.utime(tmp_path / name, ns=(0, age))
    assert [path.name for path in rotated_siblings(tmp_path / "log.jsonl")] == names
    for name in names:
        os.utime(tmp_path / name, ns=(0, 0))
    assert [path.name for path in rotated_siblings(tmp_path / "log.jsonl")][:3] == [
        "log.jsonl.3", "log.jsonl.2.gz", "log.jsonl.1",
    ]  # fmt: skip


def test_a_writer_that_rotates_all_the_time(log: Path) -> None:
    """Python's own rotating handler against a reader that is restarted at every poll or so."""
    handler = logging.handlers.RotatingFileHandler(log, maxBytes=6000, backupCount=200)
    total = 1200

    def work() -> None:
        for line in lines(0, total):
            handler.stream.write("")  # keep the handler's stream open
            handler.emit(logging.makeLogRecord({"msg": line.decode()}))
            if random.random() < 0.05:
                time.sleep(0.002)

    writer = threading.Thread(target=work)
    writer.start()
    rng, seen, committed = random.Random(1), [], {}
    with structlog.testing.capture_logs() as events:
        while writer.is_alive() or not seen or seen[-1] != lines(total - 1, total)[0]:
            reader = Reader(log, committed)
            for _ in range(rng.randrange(1, 6)):
                seen += reader.take(reader.source.poll(rng.randrange(1, 80), 0.05))
            committed = reader.committed
            reader.source.close()
            assert len(seen) <= total
    writer.join()
    handler.close()
    assert seen == lines(0, total)
    assert events == []


READER = """
import json, sys
from pathlib import Path
from streams.sources.files import FileSource
from streams.sources.source import Position
log, state, out = map(Path, sys.argv[1:])
source = FileSource(log, once=False, grace=0.05, interval=0.005)
done = json.loads(state.read_text()) if state.exists() else {"positions": {}, "size": 0}
with out.open("ab") as file:
    file.truncate(done["size"])     # what was written but not committed never happened
    source.seek({p: Position(*fields) for p, fields in done["positions"].items()})
    while True:
        for record in source.poll(7, 0.05):
            file.write(record.value + b"\\n")
            done["positions"][record.next.partition] = [
                record.next.partition, record.next.offset, record.next.cursor]
        file.flush()
        done["size"] = file.tell()
        state.with_suffix(".new").write_text(json.dumps(done))
        state.with_suffix(".new").replace(state)
"""


def test_kill_nine_and_restart(log: Path, tmp_path: Path) -> None:
    state, out, rng = tmp_path / "state", tmp_path / "out", random.Random(3)
    end = 0

    def write_until(done: Callable[[], bool]) -> None:
        nonlocal end
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline
            write(log, end, end + 3)
            end += 3
            time.sleep(0.01)

    for rotated in ("", "1", "", "2", "", "3"):
        before = state.read_text() if state.exists() else ""
        with subprocess.Popen([sys.executable, "-c", READER, log, state, out]) as process:
            try:
                write_until(lambda: state.exists() and state.read_text() != before)  # noqa: B023 (called at once)
                killed_at = time.monotonic() + rng.random() * 0.3
                write_until(lambda: time.monotonic() > killed_at)  # noqa: B023
            finally:
                process.send_signal(signal.SIGKILL)
        if rotated:
            log.rename(log.with_name(f"log.jsonl-2026112{rotated}"))
            write(log, end, end + 3)
            end += 3
    with subprocess.Popen([sys.executable, "-c", READER, log, state, out]) as process:
        try:
            deadline = time.monotonic() + 60
            while out.read_bytes().count(b"\n") < end and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGKILL)
    assert out.read_bytes().splitlines() == lines(0, end)


def test_a_dated_file_behind_a_link_is_read_once(log: Path) -> None:
    first, second = log.with_name("log-2026-11-22.jsonl"), log.with_name("log-2026-11-23.jsonl")
    write(first, 0, 3)
    log.symlink_to(first)
    reader = Reader(log)
    assert reader.read() == lines(0, 3)
    write(first, 3, 4)
    write(second, 4, 6)
    log.unlink()
    log.symlink_to(second)
    assert reader.read() == lines(3, 6)
    write(second, 6, 7)
    assert reader.read() == lines(6, 7)
    reader.source.close()
    again = Reader(log, reader.committed, once=True)
    assert again.read() == []
    again.source.close()


def test_a_file_that_is_away_for_a_moment(log: Path) -> None:
    write(log, 0, 2)
    reader = Reader(log)
    assert reader.read() == lines(0, 2)
    log.rename(log.with_name("log.jsonl.1"))
    write(log.with_name("log.jsonl.1"), 2, 3)
    assert reader.read() == lines(2, 3)
    write(log, 3, 4)
    assert reader.read() == lines(3, 4)
    log.unlink()
    assert reader.read() == []
    write(log, 4, 5)
    assert reader.read() == lines(4, 5)
    reader.source.close()


def test_a_second_writer_that_is_late_to_reopen(log: Path) -> None:
    write(log, 0, 2)
    source = FileSource(log, once=False, grace=1.0, interval=0.005)
    source.seek({})
    values = [record.value for record in source.poll(10, 1)]
    log.rename(log.with_name("log.jsonl.1"))
    write(log, 3, 4)
    assert source.poll(10, 0.1) == []
    write(log.with_name("log.jsonl.1"), 2, 3)
    while len(values) < 4 and (batch := source.poll(10, 5)):
        values += [record.value for record in batch]
    assert values == lines(0, 4)
    source.close()


def test_a_file_that_is_not_there_yet_is_said(log: Path) -> None:
    with structlog.testing.capture_logs() as events:
        Reader(log)
        log.touch()
        Reader(log).source.close()
    assert [(event["event"], event["source"]) for event in events] == [("waiting for the file", log.as_uri())]


def test_once_leaves_a_line_that_is_still_being_written(log: Path) -> None:
    write(log, 0, 3)
    whole = log.read_bytes()
    log.write_bytes(whole[:-3])
    reader = Reader(log, once=True)
    with structlog.testing.capture_logs() as events:
        assert reader.read() == lines(0, 2)
    assert [(event["event"], event["offset"]) for event in events] == [("incomplete", 24)]
    reader.source.close()
    for data, begin in ((whole[:-1], 2), (whole + b'{"id": "3"}\n', 3)):
        log.write_bytes(data)
        reader = Reader(log, reader.committed, once=True)
        assert reader.read() == lines(begin, begin + 1)
        reader.source.close()
