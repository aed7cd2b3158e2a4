from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, event

from detector.coverage_figures import CoverageFigures
from detector.progress import Progress
from detector.subjects import SubjectKey
from storage import progress, queries, subjects
from storage.database import Database
from storage.progress import SubjectProgress
from storage.records import QueryRecord
from storage.subjects import SubjectOrder
from tests.storage.examples import NETWORK, query, subject


def measured(value: str, strong: float | None = 0.5, *, n: int = 64) -> SubjectProgress:
    found = None if strong is None else Progress(n, n - 4, 2, strong, strong - 0.1, strong + 0.1, strong / 2)
    return SubjectProgress(SubjectKey("client", value), n, found, CoverageFigures(0.25, 0.5, 0.125))


def test_the_latest_figures_are_kept(database: Database) -> None:
    bare = replace(measured("b", None), coverage=CoverageFigures(None, 1.0, None))
    with database.transaction() as connection:
        progress.save(connection, "garments", [measured("a"), bare])
        progress.save(connection, "cars", [measured("a", 0.9)])
        progress.save(connection, "garments", [measured("a", 0.75, n=128)])
        progress.save(connection, "garments", [])
        keys = [SubjectKey("client", name) for name in ("a", "b", "c")]
        assert progress.load(connection, "garments", keys) == {
            keys[0]: measured("a", 0.75, n=128),
            keys[1]: bare,
        }
        progress.save(connection, "garments", [measured("a", None, n=256)])
        assert progress.load(connection, "garments", keys[:1]) == {keys[0]: measured("a", None, n=256)}
        progress.remove(connection, "garments", [keys[0], keys[2]])
        assert progress.load(connection, "garments", keys) == {keys[1]: bare}
        assert progress.load(connection, "cars", keys) == {keys[0]: measured("a", 0.9)}


def test_subjects_ranked_by_progress(database: Database) -> None:
    with database.transaction() as connection:
        subjects.save(connection, "garments", [subject(name) for name in "abcd"])
        progress.save(connection, "garments", [measured("b", 0.3), measured("c", 0.6), measured("d", None)])
        progress.save(connection, "cars", [measured("a", 0.9)])

        def ranked(limit: int) -> list[str]:
            rows = subjects.page(connection, "garments", order=SubjectOrder.PROGRESS, limit=limit)
            return [row.key.value for row in rows]

        assert ranked(2) == ["c", "b"]
        assert ranked(50) == ["c", "b", "a", "d"]


def test_what_everyone_asked_comes_from_an_index(database: Database) -> None:
    plans: list[str] = []

    def explain(connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        plans.append(str(cursor.fetchall()))
        cursor.close()

    with database.transaction() as connection:
        if connection.dialect.name != "sqlite":
            pytest.skip("a table this small is read whole by PostgreSQL")
        queries.add(connection, [query(number, client=f"key-{number % 9}") for number in range(500)])
        event.listen(connection, "before_cursor_execute", explain)
        for clients, group in ((None, None), (["key-1", "key-2"], None), (["key-1", "key-2"], NETWORK)):
            assert queries.asked(connection, "garments", clients, group=group, until=400, limit=20)
    assert "COVERING INDEX ix_queries_endpoint_id " in plans[0]
    assert all("COVERING INDEX ix_queries_endpoint_client_id " in plan for plan in plans[1:]), plans


def test_a_group_is_sought_among_the_latest_of_each_client(database: Database) -> None:
    other = SubjectKey("network", "198.51.100.0/24")
    rows = [query(n, client=f"key-{n % 2}") for n in range(40)]
    rows[3], rows[30] = replace(rows[3], groups=(other,)), replace(rows[30], groups=(other,))
    with database.transaction() as connection:
        queries.add(connection, rows)
        for clients in (["key-0", "key-1"], ["key-1", "key-0", "nobody"]):
            found = queries.asked(connection, "garments", clients, group=other, until=40, limit=2)
            assert [one.embedding for one in found] == [rows[30].embedding]


def test_what_was_asked_until_then(database: Database) -> None:
    other = SubjectKey("network", "198.51.100.0/24")
    rows = [query(n, client=f"key-{n % 3}") for n in range(30)]
    rows[4] = replace(rows[4], groups=(other,))
    with database.transaction() as connection:
        queries.add(connection, [*rows, query(1, endpoint="cars")])

        def found(clients: list[str] | None, until: QueryRecord, **more: object) -> list[bytes]:
            last = queries.id_of(connection, "garments", until.event_id)
            assert last is not None
            limit = more.pop("limit", 100)
            assert isinstance(limit, int)
            group = more.get("group")
            assert group is None or isinstance(group, SubjectKey)
            asked = queries.asked(connection, "garments", clients, group=group, until=last, limit=limit)
            return [one.embedding for one in asked]

        def embeddings(*numbers: int) -> list[bytes]:
            return [rows[n].embedding for n in numbers]

        assert found(["key-1"], rows[10]) == embeddings(1, 4, 7, 10)
        assert found(["key-1"], rows[10], limit=2) == embeddings(7, 10)
        assert found(["key-1"], rows[10], group=NETWORK) == embeddings(1, 7, 10)
        assert found(["key-0", "key-1"], rows[6], group=NETWORK, limit=3) == embeddings(1, 3, 6)
        assert found(["key-1"], rows[10], group=other) == embeddings(4)
        assert found(None, rows[2]) == embeddings(0, 1, 2)
        many = [f"key-{n}" for n in range(1500)]
        assert found(many, rows[5], limit=4) == embeddings(2, 3, 4, 5)
        third = queries.id_of_nth(connection, "garments", "key-1", 3)
        assert third == queries.id_of(connection, "garments", "q-7")
        assert queries.id_of_nth(connection, "garments", "key-1", 11) is None
        assert queries.id_of(connection, "garments", "nothing") is None
