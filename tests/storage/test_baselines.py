from __future__ import annotations

import pytest
from sqlalchemy import insert, select

from storage import baselines, schema
from storage.database import Database
from storage.errors import StorageError
from tests.storage.examples import baseline


def test_the_first_is_in_force_even_if_not_asked_for(database: Database) -> None:
    with database.transaction() as connection:
        record = baselines.add(connection, baseline(archive=b"\x00npz\xff"), activate=False)
        assert (record.version, record.active, record.summary, record.dim) == (1, True, '{"images": 3}', 512)
        assert baselines.active(connection, "garments") == record
        assert baselines.archive(connection, record) == b"\x00npz\xff"
        assert baselines.active(connection, "cars") is None


def test_versions_count_within_an_endpoint(database: Database) -> None:
    with database.transaction() as connection:
        baselines.add(connection, baseline(content_hash="aa"))
        baselines.add(connection, baseline("cars", content_hash="aa"))
        baselines.add(connection, baseline(content_hash="bb"), activate=False)
        baselines.add(connection, baseline(content_hash="cc"))
        stored = [(record.endpoint, record.version, record.active) for record in baselines.listed(connection)]
        assert stored == [
            ("cars", 1, True),
            ("garments", 1, False),
            ("garments", 2, False),
            ("garments", 3, True),
        ]
        assert len(baselines.listed(connection, "cars")) == 1


def test_the_same_fit_is_stored_once_and_can_return_to_force(database: Database) -> None:
    with database.transaction() as connection:
        first = baselines.add(connection, baseline(content_hash="aa"))
        baselines.add(connection, baseline(content_hash="bb"))
        assert baselines.add(connection, baseline(content_hash="aa"), activate=False).active is False
        assert baselines.add(connection, baseline(content_hash="aa")) == first
        assert [record.active for record in baselines.listed(connection)] == [True, False]


def test_activate_leaves_exactly_one_in_force(database: Database) -> None:
    with database.transaction() as connection:
        for content_hash in "abc":
            baselines.add(connection, baseline(content_hash=content_hash))
        assert baselines.activate(connection, "garments", 2).active
        assert [record.active for record in baselines.listed(connection)] == [False, True, False]
        with pytest.raises(StorageError, match="no baseline version 9"):
            baselines.activate(connection, "garments", 9)
        assert [record.active for record in baselines.listed(connection)] == [False, True, False]


def test_the_database_itself_refuses_two_in_force(database: Database) -> None:
    with database.transaction() as connection:
        baselines.add(connection, baseline())
        row = connection.execute(select(schema.baselines)).one()._asdict()
    second = {**row, "id": 2, "version": 2, "content_hash": "bb"}
    with pytest.raises(StorageError, match="contradicts"), database.transaction() as connection:
        connection.execute(insert(schema.baselines), second)
