"""A log goes in; queries, subjects, members, findings, history, outbox, offsets and dead letters come out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

import storage.findings
import storage.members
import storage.offsets
import storage.subjects
from detector.findings import Activity, FindingState
from detector.groups import DEFAULT_GROUPS
from detector.subjects import CLIENT, SubjectKey
from storage.database import Database
from storage.errors import FencedError
from streams.formats import named
from streams.pipeline import BatchReport, Feed, Pipeline, Rules
from streams.sources import open_source
from tests.integration.world import World, contents, embeddings_only, letters, lines, stored_ids, write_log

WORLD = World()


@pytest.fixture
def new_database(new_url: Callable[[], str]) -> Iterator[Callable[[], Database]]:
    opened: list[Database] = []

    def make() -> Database:
        opened.append(Database.open(new_url()))
        return opened[-1]

    yield make
    for database in opened:
        database.close()


def watch(database: Database, *uris: Path | str, **rules: Any) -> list[BatchReport]:
    """Read sources to their ends."""
    reports: list[BatchReport] = []
    with embeddings_only() as embedder, ExitStack() as stack:
        sources = [stack.enter_context(closing(open_source(str(uri), once=True))) for uri in uris]
        pipeline = Pipeline(database, embedder, Rules(**rules))
        pipeline.run([Feed(source, named(None)) for source in sources], threading.Event(), reports.append)
    return reports


def watch_batches(database: Database, log: Path, count: int) -> list[BatchReport]:
    """Follow a log, and stop after so many batches of 20."""
    stop = threading.Event()
    reports: list[BatchReport] = []

    def on_batch(report: BatchReport) -> None:
        reports.append(report)
        if len(reports) == count:
            stop.set()

    with embeddings_only() as embedder, closing(open_source(str(log), once=False)) as source:
        Pipeline(database, embedder, Rules(batch_size=20)).run([Feed(source, named(None))], stop, on_batch)
    return reports


def test_everything_that_comes_out(database: Database, tmp_path: Path) -> None:
    events = WORLD.traffic(900)
    log = write_log(tmp_path / "log.jsonl", events)
    WORLD.install(database, "garments")
    reports = watch(database, log, batch_size=100)

    assert sum(report.queries for report in reports) == 900
    assert all(report.queries <= 100 and report.dead == report.repeated == 0 for report in reports)
    assert max(report.latest or 0 for report in reports) == max(event.time for event in events)
    assert stored_ids(database) == [event.id for event in events]
    with database.snapshot() as connection:
        alerted = storage.findings.page(connection, states=[FindingState.ALERTED])
        found = {record.finding.subject for record in alerted}
        network = SubjectKey("network", "203.0.113.0/24")
        assert {SubjectKey(CLIENT, "thief"), network} <= found
        honest = {SubjectKey(CLIENT, f"honest-{number}") for number in range(25)}
        assert not found & (honest | {SubjectKey(CLIENT, "check")})
        assert storage.members.clients(connection, "garments", network) == sorted(
            {event.client for event in events if event.client.startswith("account")}
        )
        (thief,) = storage.subjects.load(connection, "garments", [SubjectKey(CLIENT, "thief")])
        assert thief.queries == sum(event.client == "thief" for event in events)
        (finding,) = [r.finding for r in alerted if r.finding.subject == SubjectKey(CLIENT, "thief")]
        steps = storage.findings.history(connection, finding.uid)
        assert steps[0].activity is Activity.CREATE
        assert steps[-1].finding == finding
        outbox = storage.findings.pending(connection)
        changes = [change for report in reports for change in report.changes]
        assert [(entry.uid, entry.activity) for entry in outbox] == [
            (change.finding.uid, change.activity) for change in changes
        ]
        (offset,) = storage.offsets.load(connection, "banken", log.as_uri())
        assert offset.next_offset == log.stat().st_size
    assert letters(database) == []


def test_the_database_is_the_same_whatever_the_batches(
    new_database: Callable[[], Database], tmp_path: Path
) -> None:
    events = WORLD.traffic(300, endpoints=("garments", "cars", "nobody's"))
    parts = [lines([event]) for event in events]
    parts[100:100] = [b"{broken\n", parts[50], b"\xff\xfe\n"]
    parts[200:200] = [parts[201].replace(b'"time"', b'"thyme"')]
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(parts))

    found = []
    for batch_size in (1, 7, 256):
        database = new_database()
        WORLD.install(database, "garments", "cars")
        watch(database, log, batch_size=batch_size)
        found.append(contents(database))
    for name, rows in found[0].items():
        assert len(rows) > 0 or name == "campaign_members", name  # so few accounts are none
        for other in found[1:]:
            assert other[name] == rows, name


@pytest.mark.parametrize("stops", [(1,), (3, 5, 9)])
def test_resuming_changes_nothing(
    new_database: Callable[[], Database], tmp_path: Path, stops: Sequence[int]
) -> None:
    log = write_log(tmp_path / "log.jsonl", WORLD.traffic(360, endpoints=("garments", "cars")))
    undisturbed, database = new_database(), new_database()
    for one in (undisturbed, database):
        WORLD.install(one, "garments", "cars")
    watch(undisturbed, log)
    for count in stops:
        assert len(watch_batches(database, log, count)) == count
    assert len(stored_ids(database)) == 20 * sum(stops)
    watch(database, log)
    assert contents(database) == contents(undisturbed)


def test_two_sources_and_two_endpoints(new_database: Callable[[], Database], tmp_path: Path) -> None:
    events = WORLD.traffic(300, endpoints=("garments", "cars"))
    logs = [
        write_log(tmp_path / f"{endpoint}.jsonl", [e for e in events if e.endpoint == endpoint])
        for endpoint in ("garments", "cars")
    ]
    alone, together = new_database(), new_database()
    for database in (alone, together):
        WORLD.install(database, "garments", "cars")
    for log in logs:
        watch(alone, log)
    watch(together, *logs, batch_size=16)
    one, other = contents(alone), contents(together)
    numbered = {"queries", "outbox"}
    for name, rows in one.items():
        assert other[name] == rows or name in numbered, name
    for name in numbered:  # the sources take turns, so only the numbers differ
        assert sorted(row[1:] for row in other[name]) == sorted(row[1:] for row in one[name]), name


def test_a_second_worker_is_fenced_off(new_database: Callable[[], Database], tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", WORLD.traffic(200))
    database = new_database()
    WORLD.install(database, "garments")
    with embeddings_only() as embedder, ExitStack() as stack:
        sources = [stack.enter_context(closing(open_source(str(log), once=True))) for _ in range(2)]
        first, second = (Pipeline(database, embedder, Rules(batch_size=50)) for _ in range(2))
        stop = threading.Event()
        before: list[dict[str, list[tuple[Any, ...]]]] = []

        def overtake(report: BatchReport) -> None:
            """The other worker has read its offsets by now, and commits all there is."""
            first.run([Feed(sources[0], named(None))], threading.Event())
            before.append(contents(database))

        with pytest.raises(FencedError, match="another worker reads this source"):
            second.run([Feed(sources[1], named(None))], stop, overtake)
    # The first batch was the second worker's own; the first worker went on from there.
    assert contents(database) == before[0]
    undisturbed = new_database()
    WORLD.install(undisturbed, "garments")
    watch(undisturbed, log)
    assert contents(database) == contents(undisturbed)


def test_two_workers_on_two_sources_of_one_endpoint(
    new_database: Callable[[], Database], tmp_path: Path
) -> None:
    events = WORLD.traffic(240)
    logs = [write_log(tmp_path / f"{half}.jsonl", events[half * 120 :][:120]) for half in range(2)]
    alone, together = new_database(), new_database()
    for database in (alone, together):
        WORLD.install(database, "garments")
    watch_batches(alone, logs[0], 1)
    watch(alone, logs[1], batch_size=40)
    watch(alone, logs[0], batch_size=20)

    with embeddings_only() as embedder, ExitStack() as stack:
        sources = [stack.enter_context(closing(open_source(str(log), once=True))) for log in logs]
        first, second = (Pipeline(together, embedder, Rules(batch_size=size)) for size in (20, 40))
        turns = [second]

        def other_turn(report: BatchReport) -> None:
            if turns:
                turns.pop().run([Feed(sources[1], named(None))], threading.Event())

        first.run([Feed(sources[0], named(None))], threading.Event(), other_turn)
    assert contents(together) == contents(alone)


def test_another_consumer_reads_again_and_adds_nothing(database: Database, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", WORLD.traffic(200))
    WORLD.install(database, "garments")
    watch(database, log)
    before = contents(database)
    reports = watch(database, log, consumer="other")
    assert sum(report.repeated for report in reports) == 200
    after = contents(database)
    assert len(after.pop("source_offsets")) == 2
    assert after == {name: rows for name, rows in before.items() if name != "source_offsets"}


def test_a_file_replaced_by_another_is_read_too(database: Database, tmp_path: Path) -> None:
    WORLD.install(database, "garments")
    (tmp_path / "logs").mkdir()
    events = WORLD.traffic(40)
    for part in (events[:20], events[20:]):
        write_log(tmp_path / "logs" / "latest.jsonl", part)
        watch(database, tmp_path / "logs")
    assert stored_ids(database) == [event.id for event in events]
    assert letters(database) == []


def test_groups_are_judged_as_asked(database: Database, tmp_path: Path) -> None:
    WORLD.install(database, "garments")
    watch(database, write_log(tmp_path / "log.jsonl", WORLD.traffic(50)), groups=("org",))
    with database.snapshot() as connection:
        kinds = {row.key.kind for row in storage.subjects.page(connection, "garments", limit=1000)}
    assert kinds == {CLIENT, "org"}
    assert DEFAULT_GROUPS == ("org", "network", "fleet")
