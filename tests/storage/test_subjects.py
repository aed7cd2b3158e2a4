from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from detector.subjects import SubjectKey
from storage import members, subjects
from storage.database import Database
from storage.records import Member
from storage.subjects import SubjectOrder
from tests.storage.examples import NETWORK, subject


def test_what_is_saved_is_loaded(database: Database) -> None:
    rows = [
        subject("key-1", evidence=1e-300, linking=2 / 3),
        subject("ключ", exposure=0.1 + 0.2),
        subject("a", kind="network"),
    ]
    with database.transaction() as connection:
        subjects.save(connection, "garments", rows)
        subjects.save(connection, "cars", [rows[0]._replace(queries=9)])
        keys = [row.key for row in rows]
        loaded = subjects.load(connection, "garments", [*keys, SubjectKey("client", "unknown"), keys[0]])
    assert sorted(loaded, key=lambda row: row.key) == sorted(rows, key=lambda row: row.key)


def test_saving_again_replaces(database: Database) -> None:
    first = subject("key-1")
    later = first._replace(
        queries=4, evidence=7.0, exposure=2.0, linking=8.0, stage=3, last_seen=99, state=b"new"
    )
    with database.transaction() as connection:
        subjects.save(connection, "garments", [first])
        subjects.save(connection, "garments", [later])
        assert subjects.load(connection, "garments", [later.key]) == [later]
        subjects.save(connection, "garments", [])
        assert subjects.load(connection, "garments", []) == []


def test_more_keys_than_one_statement_carries(database: Database) -> None:
    rows = [subject(f"key-{number:05}") for number in range(2_500)]
    with database.transaction() as connection:
        subjects.save(connection, "garments", rows)
        loaded = subjects.load(connection, "garments", (row.key for row in rows))
    assert sorted(loaded, key=lambda row: row.key) == rows


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (SubjectOrder.EVIDENCE, ["b", "a", "d", "C", "e"]),
        (SubjectOrder.EXPOSURE, ["d", "C", "b", "a", "e"]),
        (SubjectOrder.LINKING, ["e", "a", "d", "C", "b"]),
        (SubjectOrder.QUERIES, ["C", "d", "b", "a", "e"]),
    ],
)
def test_pages_join_to_the_sorted_list(database: Database, order: SubjectOrder, expected: list[str]) -> None:
    """Some pages are filled by the notable alone, some are not; ties are broken the same way everywhere."""
    rows = [
        subject("a", evidence=50.0, exposure=1.0, linking=3.0),
        subject("b", evidence=50.0, exposure=2.0),
        subject("C", evidence=0.5, exposure=9.0),
        subject("d", evidence=3.0, exposure=9.0, linking=1.0),
        subject("e", evidence=0.5, exposure=0.0, linking=7.0),
    ]
    with database.transaction() as connection:
        subjects.save(connection, "garments", rows)
        subjects.save(connection, "cars", [subject("other", evidence=99.0)])
        for size in (1, 2, 3, 5, 9):
            found = [
                row.key.value
                for start in range(0, 5, size)
                for row in subjects.page(connection, "garments", order=order, limit=size, offset=start)
            ]
            assert found == expected


def test_search_and_kind(database: Database) -> None:
    rows = [subject("Acme_1"), subject("acme-2"), subject("100%"), subject("acme", kind="organisation")]
    with database.transaction() as connection:
        subjects.save(connection, "garments", rows)

        def found(**options: str) -> list[str]:
            listed = [row.key.value for row in subjects.page(connection, "garments", **options)]  # type: ignore[arg-type]
            assert subjects.count(connection, "garments", **options) == len(listed)
            return listed

        assert found(search="ACME", kind="client") == ["Acme_1", "acme-2"]
        assert found(search="_") == ["Acme_1"]
        assert found(search="%") == ["100%"]
        assert found(kind="organisation") == ["acme"]
        assert len(found()) == 4


def test_the_list_of_the_notable_comes_from_an_index(database: Database) -> None:
    plans: list[str] = []

    def explain(connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        prefix = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
        cursor = connection.connection.cursor()
        cursor.execute(prefix + statement, parameters)
        plans.append(str(cursor.fetchall()))
        cursor.close()

    rows = [
        subject(f"key-{number}", evidence=2.0 if number % 500 == 0 else 0.1, linking=float(number % 700 == 0))
        for number in range(5_000)
    ]
    with database.transaction() as connection:
        subjects.save(connection, "garments", rows)
        connection.execute(text("ANALYZE"))
        event.listen(connection, "before_cursor_execute", explain)
        assert len(subjects.at_least(connection, "garments", kind="client", evidence=1.5)) == 10
        assert len(subjects.page(connection, "garments", limit=5)) == 5
        linked = subjects.page(connection, "garments", order=SubjectOrder.LINKING, limit=5)
        assert [row.linking for row in linked] == [1.0] * 5
    assert len(plans) == 5  # of each page first the keys, then the states
    assert all("ix_subjects_endpoint_evidence" in plan for plan in plans[:2]), plans
    assert "ix_subjects_endpoint_linking" in plans[3]


def test_members_add_up(database: Database) -> None:
    with database.transaction() as connection:
        members.add(
            connection, "garments", [Member(NETWORK, "a", 3, 1, 50, 60), Member(NETWORK, "b", 9, 0, 1, 2)]
        )
        members.add(
            connection, "garments", [Member(NETWORK, "a", 2, 2, 40, 55), Member(NETWORK, "c", 1, 0, 1, 2)]
        )
        members.add(connection, "garments", [Member(NETWORK, "a", 1, 0, 45, 70)])
        members.add(connection, "cars", [Member(NETWORK, "a", 100, 100, 0, 0)])
        members.add(connection, "garments", [])
        listed = members.page(connection, "garments", NETWORK)
        assert listed == [
            Member(NETWORK, "a", 6, 3, 40, 70),
            Member(NETWORK, "b", 9, 0, 1, 2),
            Member(NETWORK, "c", 1, 0, 1, 2),
        ]
        assert members.page(connection, "garments", NETWORK, limit=1, offset=1) == listed[1:2]
