from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import streams.pipeline
from storage.database import Database
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
