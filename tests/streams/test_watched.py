from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import storage.baselines
import storage.queries
from detector.errors import DetectorError
from detector.evidence import EvidenceRule
from detector.subjects import SubjectKey
from storage.database import Database
from storage.errors import StorageError
from streams.embedding import Embedded
from streams.events import Response
from streams.watched import LONGEST_CLIENT, LONGEST_ENDPOINT, WatchedEndpoint, batch_of, load_baseline, store
from tests.integration.world import World, contents, draft

WORLD = World()


def queries(numbers: range, world: World = WORLD, client: str = "thief") -> dict[int, Embedded]:
    """Foreign queries by their number as the place in a batch."""
    events = [world.query(number, client=client, foreign=True) for number in numbers]
    vectors = [event.embedding for event in events]
    return {
        number: Embedded(event, np.asarray(vector, np.float16), world.weights)
        for number, event, vector in zip(numbers, events, vectors, strict=True)
    }


def watched(database: Database, world: World = WORLD) -> WatchedEndpoint:
    with database.snapshot() as connection:
        baseline = load_baseline(connection, "garments")
        assert baseline is not None
        return WatchedEndpoint(
            connection, baseline, rule=EvidenceRule(), groups=("org", "network", "fleet"), capacity=1000
        )


def judge(database: Database, endpoint: WatchedEndpoint, items: dict[int, Embedded]) -> None:
    with database.transaction() as connection:
        store(connection, [endpoint.judge(connection, items)])
    endpoint.committed()


def test_a_new_one_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    databases = [Database.open(f"sqlite:///{tmp_path}/{name}.db") for name in "ab"]
    for database in databases:
        WORLD.install(database, "garments")
        endpoint = watched(database)
        for begin in range(0, 60, 20):
            judge(database, endpoint, queries(range(begin, begin + 20)))
            if database is databases[1]:
                endpoint = watched(database)
    assert contents(databases[0]) == contents(databases[1])
    assert contents(databases[0])["findings"]
    for database in databases:
        database.close()


@pytest.mark.parametrize("dim", [WORLD.dim, 40])
def test_vectors_of_another_encoder_are_never_compared(database: Database, dim: int) -> None:
    WORLD.install(database, "garments")
    judge(database, watched(database), queries(range(10)))
    refitted = World(dim=dim, weights="f00d" * 16)
    refitted.install(database, "garments")
    again = queries(range(10), refitted)  # with one dim the very same vectors
    renamed = {
        place + 10: replace(item, event=replace(item.event, id=f"again-{place}"))
        for place, item in again.items()
    }
    judge(database, watched(database), renamed)
    with database.snapshot() as connection:
        assert storage.queries.novel_count(connection, "garments") >= 18
        assert not any(
            stored.query.duplicate for stored in storage.queries.page(connection, "garments", "thief")
        )


def test_numbers_follow_the_log_not_the_endpoint(database: Database) -> None:
    WORLD.install(database, "garments", "cars")
    items = queries(range(30))
    with database.transaction() as connection:
        judgements = []
        for name, parity in (("cars", 1), ("garments", 0)):
            baseline = load_baseline(connection, name)
            assert baseline is not None
            endpoint = WatchedEndpoint(connection, baseline, rule=EvidenceRule(), groups=(), capacity=1000)
            mine = {
                place: replace(item, event=replace(item.event, endpoint=name))
                for place, item in items.items()
                if place % 2 == parity
            }
            judgements.append(endpoint.judge(connection, mine))
        store(connection, judgements)
    stored = contents(database)
    assert [row[3] for row in stored["queries"]] == [f"garments-{number}" for number in range(30)]
    assert len(stored["outbox"]) >= 2
    assert [row[4] for row in stored["outbox"]] == sorted(row[4] for row in stored["outbox"])


def test_only_what_changed_is_stored(database: Database) -> None:
    WORLD.install(database, "garments")
    endpoint = watched(database)
    judge(database, endpoint, queries(range(5), client="early"))
    with database.snapshot() as connection:
        judgement = endpoint.judge(connection, queries(range(5, 10), client="late"))
    assert [str(row.key) for row in judgement.subjects] == ["fleet:all", "client:late"]


def test_names_too_long_for_an_index(database: Database) -> None:
    WORLD.install(database, "garments")
    (item,) = queries(range(1)).values()
    endpoint = watched(database)
    for field, most in (("client", LONGEST_CLIENT), ("endpoint", LONGEST_ENDPOINT)):
        for name, fault in (
            ("é" * (most // 2), None),
            ("é" * (most // 2) + "x", f"its {field} has {most + 1} bytes; at most {most} are allowed"),
        ):
            event = replace(item.event, **{field: name})  # type: ignore[arg-type]
            assert endpoint.fault(replace(item, event=event)) == fault


def test_baselines_are_found_by_version(database: Database) -> None:
    with database.snapshot() as connection:
        assert load_baseline(connection, "garments") is None
    WORLD.install(database, "garments")
    with database.snapshot() as connection:
        found = load_baseline(connection, "garments", 1)
        assert found is not None
        assert found.content_hash == WORLD.baseline().content_hash
        with pytest.raises(StorageError, match="no baseline version 2"):
            load_baseline(connection, "garments", 2)


def test_a_damaged_baseline_is_no_missing_one(database: Database) -> None:
    broken = replace(draft(WORLD.baseline()), archive=b"no archive")
    with database.transaction() as connection:
        storage.baselines.add(connection, broken)
        with pytest.raises(DetectorError, match="damaged"):
            load_baseline(connection, "garments")


def test_what_the_detector_is_told() -> None:
    (item,) = queries(range(1)).values()
    event = replace(item.event, attributes={"ip": "203.0.113.7", "org": "acme"})
    batch = batch_of([replace(item, event=event, fingerprint=2**64 - 1), item], ("org", "network"))
    assert batch.ids == ["garments-0", "garments-0"]
    assert batch.groups == [
        (SubjectKey("org", "acme"), SubjectKey("network", "203.0.113.0/24")),
        (None, None),
    ]
    assert batch.fingerprints.tolist() == [2**64 - 1, 0]
    assert batch.times.tolist() == [event.time] * 2
    assert np.isnan(batch.margins).all()


@pytest.mark.parametrize(
    ("scores", "margin"),
    [
        ({"coat": 0.25, "shirt": 0.625, "bag": 0.125}, 0.375),
        ({"coat": 0.5, "shirt": 0.5}, 0.0),
        ({"coat": 1.0}, None),
        ({}, None),
    ],
)
def test_the_margin_is_between_the_two_highest_scores(scores: dict[str, float], margin: float | None) -> None:
    (item,) = queries(range(1)).values()
    answered = replace(item, event=replace(item.event, response=Response("coat", scores)))
    found = batch_of([answered], ()).margins
    assert found.dtype == np.float32
    assert np.isnan(found[0]) if margin is None else found[0] == margin
