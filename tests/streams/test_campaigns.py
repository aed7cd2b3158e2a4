"""Campaigns live: found in the stream, stored with the batch, the same after every restart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import storage.campaigns
import storage.findings
import storage.members
from detector.campaign_watch import WatchState
from detector.evidence import EvidenceRule
from detector.findings import FindingState
from detector.groups import CAMPAIGN
from storage.database import Database
from streams.campaigns import stored_watch
from streams.embedding import Embedded
from streams.events import Response
from tests.integration.world import World, contents
from tests.streams.test_watched import judge, watched

WORLD = World()
ACCOUNTS, EACH = 24, 12


def stolen(first: int, stop: int) -> dict[int, Embedded]:
    """A thief's queries over many accounts, and an honest query after every fourth."""
    items = {}
    for number in range(first, stop):
        foreign = number % 5 != 4
        client = f"mule-{number % ACCOUNTS:02d}" if foreign else f"honest-{number % 7}"
        event = WORLD.query(number, client=client, foreign=foreign)
        label = f"class-{number % 3}"
        scored = Response(None, {label: 0.75, "class-3": 0.25})
        event = replace(event, response=scored if number % 2 else Response(label))
        items[number] = Embedded(event, np.asarray(event.embedding, np.float16), WORLD.weights)
    return items


def run(database: Database, size: int, *, restart: bool = False) -> None:
    WORLD.install(database, "garments")
    endpoint = watched(database)
    for first in range(0, ACCOUNTS * EACH, size):
        judge(database, endpoint, stolen(first, min(first + size, ACCOUNTS * EACH)))
        if restart:
            endpoint = watched(database)


def test_a_campaign_is_found_and_stored(database: Database) -> None:
    run(database, 48)
    with database.snapshot() as connection:
        joined = storage.campaigns.joined(connection, "garments")
        found = [
            record.finding
            for record in storage.findings.page(connection, endpoint="garments")
            if record.finding.subject.kind == CAMPAIGN
        ]
        (finding,) = found
        assert finding.state is FindingState.ALERTED
        assert len(joined) >= 0.9 * ACCOUNTS
        assert {one.campaign for one in joined} == {finding.subject.value}
        names = [one.client for one in joined]
        assert storage.members.clients(connection, "garments", finding.subject) == names
        slices = storage.campaigns.slices(connection, "garments", names)
        assert set(slices) == set(names)
        assert set().union(*slices.values()) <= {"class-0", "class-1", "class-2"}
        watch = stored_watch(connection, WORLD.baseline(), EvidenceRule())
        assert [one for one, _ in watch.parts()] == joined
        assert watch.state == storage.campaigns.state(connection, "garments")
        assert watch.state.clients == ACCOUNTS + 7


def test_batches_and_restarts_make_no_difference(tmp_path: object) -> None:
    databases = [Database.open(f"sqlite:///{tmp_path}/{name}.db") for name in "ab"]
    run(databases[0], ACCOUNTS * EACH)
    run(databases[1], 31, restart=True)
    assert contents(databases[0]) == contents(databases[1])
    for database in databases:
        database.close()


def test_a_database_from_before_counts_the_clients_that_it_has(database: Database) -> None:
    WORLD.install(database, "garments")
    with database.snapshot() as connection:
        watch = stored_watch(connection, WORLD.baseline(), EvidenceRule())
    assert watch.state == WatchState(due=watch.rule.every)
