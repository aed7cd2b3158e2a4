from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from storage import queries, schema
from storage.database import Database
from storage.errors import StorageError
from storage.records import NovelQuery, Occurrence, QueryRecord
from tests.storage.examples import query


def test_columns_come_in_the_order_of_the_fields() -> None:
    assert [column.name for column in schema.queries.c][1:] == [field.name for field in fields(QueryRecord)]


def test_a_client_page_by_page(database: Database) -> None:
    mine = [query(number) for number in range(5)]
    with database.transaction() as connection:
        queries.add(connection, [mine[0], query(10, client="other"), *mine[1:]])
        queries.add(connection, [query(0, endpoint="cars")])
        queries.add(connection, [])
        first = queries.page(connection, "garments", "key-1", limit=3)
        rest = queries.page(connection, "garments", "key-1", limit=3, before=first[-1].id)
    assert [stored.query for stored in first + rest] == mine[::-1]


def test_all_that_may_be_missing(database: Database) -> None:
    bare = replace(
        query(1), content=None, fingerprint=None, novel=None, groups=(), response=None, attributes="{}"
    )
    with database.transaction() as connection:
        queries.add(connection, [bare])
        assert [stored.query for stored in queries.page(connection, "garments", "key-1")] == [bare]


@pytest.mark.parametrize("fingerprint", [0, 2**63 - 1, 2**63, 2**64 - 1])
def test_fingerprints_of_64_bits(database: Database, fingerprint: int) -> None:
    with database.transaction() as connection:
        queries.add(connection, [replace(query(1), fingerprint=fingerprint)])
        (stored,) = queries.page(connection, "garments", "key-1")
    assert stored.query.fingerprint == fingerprint


def test_existing_ids_within_an_endpoint(database: Database) -> None:
    with database.transaction() as connection:
        queries.add(connection, [query(1), query(2), query(3, endpoint="cars")])
        asked = ["q-2", "q-3", *(f"x-{number}" for number in range(2_000)), "q-1", "q-1"]
        assert queries.existing(connection, "garments", asked) == {
            f"q-{number}": Occurrence(
                ("file:///var/log/garments.jsonl", "", 100 * number, 0), "key-1", query(number).embedding
            )
            for number in (1, 2)
        }
        assert queries.existing(connection, "garments", []) == {}


def test_nothing_is_stored_twice(database: Database) -> None:
    with database.transaction() as connection:
        queries.add(connection, [query(1)])
    same_id = replace(query(2), event_id="q-1")
    with pytest.raises(StorageError, match="contradicts"), database.transaction() as connection:
        queries.add(connection, [query(7), same_id])
    with database.snapshot() as connection:
        assert len(queries.page(connection, "garments", "key-1")) == 1


def test_a_replaced_file_has_the_same_places_again(database: Database) -> None:
    with database.transaction() as connection:
        queries.add(connection, [query(1), replace(query(1), event_id="q-2")])
        assert len(queries.page(connection, "garments", "key-1")) == 2


@pytest.mark.parametrize("unfit", [{"client": "\ud800"}, {"event_time": 2**63}, {"offset": 2**70}])
def test_values_that_no_column_holds(database: Database, unfit: dict[str, Any]) -> None:
    with pytest.raises(StorageError, match="does not fit its column"), database.transaction() as connection:
        queries.add(connection, [query(1), replace(query(2), **unfit)])
    with database.snapshot() as connection:
        assert queries.page(connection, "garments", "key-1") == []


def test_novel_queries_for_the_index(database: Database) -> None:
    rows = [query(number, novel=number // 3 if number % 3 == 0 else None) for number in range(12)]
    with database.transaction() as connection:
        assert queries.novel_count(connection, "garments") == 0
        queries.add(connection, rows)
        queries.add(connection, [query(99, endpoint="cars", novel=50)])
        assert queries.novel_count(connection, "garments") == 4
        found = list(queries.novel_since(connection, "garments", 2))
    assert found == [
        NovelQuery(
            novel=number,
            client=rows[3 * number].client,
            event_id=rows[3 * number].event_id,
            event_time=rows[3 * number].event_time,
            content=rows[3 * number].content,
            fingerprint=rows[3 * number].fingerprint,
            embedding=rows[3 * number].embedding,
            encoder="ab" * 32,
            groups=rows[3 * number].groups,
        )
        for number in (2, 3)
    ]
