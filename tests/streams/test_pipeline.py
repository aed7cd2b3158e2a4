from __future__ import annotations

import gzip
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest
import structlog
from sqlalchemy import event

import streams.pipeline
from storage.database import Database
from storage.errors import UnavailableError
from streams.errors import StreamError
from streams.events import Coordinates
from streams.formats import named
from streams.pipeline import BatchReport, Feed, Pipeline, Rules
from streams.sources import Position, Record, open_source
from tests.integration.world import START, World, contents, embeddings_only, letters, lines, stored_ids

WORLD = World()


class Busy:
    """A source that always has more."""

    exhausted = False

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.given = 0

    def seek(self, committed: Mapping[str, Position]) -> None:
        pass

    def poll(self, max_records: int, timeout: float) -> Sequence[Record]:
        begin, self.given = self.given, self.given + max_records
        return [
            Record(Coordinates(self.uri, "", i), b"no query", Position("", i + 1))
            for i in range(begin, self.given)
        ]

    def close(self) -> None:
        pass


@contextmanager
def running(
    database: Database, log: Path, **rules: float
) -> Iterator[tuple[threading.Event, threading.Thread]]:
    """A pipeline that follows a log in a thread of its own."""
    stop = threading.Event()
    with embeddings_only() as embedder, closing(open_source(str(log), once=False)) as source:
        pipeline = Pipeline(database, embedder, Rules(**rules))  # type: ignore[arg-type]
        thread = threading.Thread(target=pipeline.run, args=([Feed(source, named(None))], stop))
        thread.start()
        try:
            yield stop, thread
        finally:
            stop.set()
            thread.join()


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("batch_size", [1, 2, 30])
def test_no_source_starves_another(database: Database, batch_size: int) -> None:
    stop = threading.Event()
    sources = [Busy(f"test:{name}") for name in "abc"]

    def on_batch(report: BatchReport) -> None:
        assert report.dead == batch_size
        if sum(source.given for source in sources) >= 90:
            stop.set()

    with embeddings_only() as embedder:
        pipeline = Pipeline(database, embedder, Rules(batch_size=batch_size))
        pipeline.run([Feed(source, named(None)) for source in sources], stop, on_batch)
    given = [source.given for source in sources]
    assert max(given) - min(given) <= batch_size


def test_a_quiet_source_takes_no_room(database: Database, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines([WORLD.query(0)]))
    WORLD.install(database, "garments")
    stop = threading.Event()
    reports: list[BatchReport] = []

    def on_batch(report: BatchReport) -> None:
        reports.append(report)
        if len(reports) == 3:
            stop.set()

    with embeddings_only() as embedder, closing(open_source(str(log), once=False)) as source:
        feeds = [Feed(source, named(None)), Feed(Busy("test:busy"), named(None))]
        Pipeline(database, embedder, Rules(batch_size=20)).run(feeds, stop, on_batch)
    assert [report.queries + report.dead for report in reports] == [20, 20, 20]
    assert reports[0].queries == 1


def test_a_lone_query_does_not_wait_for_others(database: Database, tmp_path: Path) -> None:
    WORLD.install(database, "garments")
    log = tmp_path / "log.jsonl"
    with running(database, log, batch_seconds=0.3):
        for number in range(2):
            with log.open("ab") as file:
                file.write(lines([WORLD.query(number)]))
            assert eventually(lambda number=number: len(stored_ids(database)) == number + 1, 5)  # type: ignore[misc]


def test_it_stops_while_it_waits_for_a_batch_to_fill(database: Database, tmp_path: Path) -> None:
    WORLD.install(database, "garments")
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines([WORLD.query(0)]))
    with running(database, log, batch_seconds=600) as (stop, thread):
        time.sleep(0.3)
        stop.set()
        thread.join(2)
        assert not thread.is_alive()
    assert stored_ids(database) == []
    with running(database, log, batch_seconds=0.1):
        assert eventually(lambda: stored_ids(database) == ["garments-0"], 5)


def test_large_records_end_a_batch_early(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.pipeline, "_BATCH_BYTES", 1)
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"x" * 9_000_000 + b"\n" + b"y" * 9_000_000 + b"\nz\n")
    reports: list[BatchReport] = []
    with embeddings_only() as embedder, closing(open_source(str(log), once=True)) as source:
        pipeline = Pipeline(database, embedder, Rules())
        pipeline.run([Feed(source, named(None))], threading.Event(), reports.append)
    assert [report.dead for report in reports] == [1, 2]
    assert [(letter.offset, len(letter.raw)) for letter in letters(database)] == [
        (0, 4096),
        (9_000_001, 4096),
        (18_000_002, 1),
    ]


def test_a_source_given_twice(database: Database, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").touch()
    feeds = [Feed(open_source(str(tmp_path / "log.jsonl"), once=True), named(None)) for _ in range(2)]
    before = contents(database)
    with embeddings_only() as embedder, pytest.raises(StreamError, match="is given 2 times; give it once"):
        Pipeline(database, embedder, Rules()).run(feeds, threading.Event())
    assert contents(database) == before


def test_stopped_before_it_began(database: Database, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines([WORLD.query(0)]))
    stop = threading.Event()
    stop.set()
    with embeddings_only() as embedder, closing(open_source(str(log), once=True)) as source:
        Pipeline(database, embedder, Rules()).run([Feed(source, named(None))], stop)
    assert stored_ids(database) == []


@pytest.mark.parametrize(("ahead", "dead"), [(3_600_000, 0), (3_600_001, 1)])
def test_how_far_ahead_of_the_clock_is_allowed(
    database: Database, tmp_path: Path, ahead: int, dead: int
) -> None:
    WORLD.install(database, "garments")
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines([WORLD.query(0)]))
    with embeddings_only() as embedder, closing(open_source(str(log), once=True)) as source:
        pipeline = Pipeline(database, embedder, Rules(max_future=3_600_000), clock=lambda: START - ahead)
        pipeline.run([Feed(source, named(None))], threading.Event())
    assert len(letters(database)) == dead


def test_what_lies_before_damage_is_judged_and_then_it_is_said(database: Database, tmp_path: Path) -> None:
    WORLD.install(database, "garments")
    log = tmp_path / "log.jsonl.gz"
    packed = gzip.compress(lines(WORLD.query(number) for number in range(100)))
    log.write_bytes(packed[: len(packed) * 3 // 4])
    found: list[list[str]] = []
    for size in (20, 256):
        with embeddings_only() as embedder, closing(open_source(str(log), once=True)) as source:
            pipeline = Pipeline(database, embedder, Rules(batch_size=size))
            with pytest.raises(StreamError, match=r"log\.jsonl\.gz cannot be read after byte"):
                pipeline.run([Feed(source, named(None))], threading.Event())
        found.append(stored_ids(database))
    assert found[0] == found[1] == [f"garments-{number}" for number in range(len(found[0]))]
    assert 60 < len(found[0]) < 100


def _no_busy_wait(connection: sqlite3.Connection, *_: object) -> None:
    connection.execute("PRAGMA busy_timeout = 10")


def test_a_locked_database_is_waited_for(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event.listen(database.engine, "checkout", _no_busy_wait)
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(WORLD.traffic(60)))
    undisturbed = Database.open(f"sqlite:///{tmp_path}/undisturbed.db")
    for one in (database, undisturbed):
        WORLD.install(one, "garments")
    stop = threading.Event()
    waits: list[float | None] = []
    with closing(sqlite3.connect(str(database.engine.url.database), isolation_level=None)) as other:

        def wait(seconds: float | None = None) -> bool:
            waits.append(seconds)
            if len(waits) == 3:
                other.execute("ROLLBACK")
            return False

        def lock(report: BatchReport) -> None:
            if not waits:
                other.execute("BEGIN IMMEDIATE")

        def watch(one: Database, on_batch: Callable[[BatchReport], None]) -> None:
            with embeddings_only() as embedder, closing(open_source(str(log), once=True)) as source:
                pipeline = Pipeline(one, embedder, Rules(batch_size=10, patience=None))
                pipeline.run([Feed(source, named(None))], stop, on_batch)

        monkeypatch.setattr(stop, "wait", wait)
        watch(undisturbed, lambda report: None)
        with structlog.testing.capture_logs() as events:
            watch(database, lock)
    assert waits == [1.0, 2.0, 4.0]
    assert [(entry["event"], entry["again_in"]) for entry in events] == [
        ("database unavailable", seconds) for seconds in waits
    ]
    assert contents(database) == contents(undisturbed)
    undisturbed.close()


@pytest.mark.parametrize("stopped", [True, False])
def test_patience_ends(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    event.listen(database.engine, "checkout", _no_busy_wait)
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines([WORLD.query(0)]))
    stop = threading.Event()
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if stopped:
            stop.set()
        return stopped

    monkeypatch.setattr(stop, "wait", wait)
    with (
        embeddings_only() as embedder,
        closing(open_source(str(log), once=True)) as source,
        closing(sqlite3.connect(str(database.engine.url.database), isolation_level=None)) as other,
        nullcontext() if stopped else pytest.raises(UnavailableError, match="locked"),
    ):
        other.execute("BEGIN IMMEDIATE")
        Pipeline(database, embedder, Rules(patience=5)).run([Feed(source, named(None))], stop)
    assert waits == ([1.0] if stopped else [1.0, 2.0, 2.0])
    assert letters(database) == []


def test_a_new_baseline_is_taken_up_between_two_batches(database: Database, tmp_path: Path) -> None:
    WORLD.install(database, "garments")
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(WORLD.query(number) for number in range(20)))
    other = World(weights="f00d" * 16)
    reports: list[BatchReport] = []

    def on_batch(report: BatchReport) -> None:
        reports.append(report)
        if len(reports) == 1:
            other.install(database, "garments")

    with embeddings_only() as embedder, closing(open_source(str(log), once=True)) as source:
        pipeline = Pipeline(database, embedder, Rules(batch_size=10))
        pipeline.run([Feed(source, named(None))], threading.Event(), on_batch)
    assert [(report.queries, report.dead) for report in reports] == [(10, 0), (0, 10)]
    assert "the baseline's from world (f00d" in letters(database)[0].reason
