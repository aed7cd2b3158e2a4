from __future__ import annotations

import threading

import pytest

from storage import offsets
from storage.database import Database
from storage.errors import FencedError
from storage.records import SourceOffset

SOURCE = "file:///var/log/queries.jsonl"


def _at(next_offset: int, partition: str = "0", cursor: str | None = None) -> SourceOffset:
    return SourceOffset(SOURCE, partition, next_offset, cursor)


def test_offsets_move_on(database: Database) -> None:
    with database.transaction() as connection:
        assert offsets.load(connection, "banken", SOURCE) == []
        offsets.advance(connection, "banken", _at(10, cursor='{"inode":1}'), expected=None)
        offsets.advance(connection, "banken", _at(5, partition="1"), expected=None)
        offsets.advance(connection, "audit", _at(3), expected=None)
        offsets.advance(connection, "banken", _at(20, cursor='{"inode":2}'), expected=10)
        assert offsets.load(connection, "banken", SOURCE) == [
            _at(20, cursor='{"inode":2}'),
            _at(5, partition="1"),
        ]
        assert offsets.load(connection, "audit", SOURCE) == [_at(3)]


@pytest.mark.parametrize("expected", [None, 9, 11, 0])
def test_a_worker_that_is_behind_is_fenced(database: Database, expected: int | None) -> None:
    with database.transaction() as connection:
        offsets.advance(connection, "banken", _at(10), expected=None)
    with pytest.raises(FencedError, match="another worker"), database.transaction() as connection:
        offsets.advance(connection, "banken", _at(99), expected=expected)
    with database.snapshot() as connection:
        assert offsets.load(connection, "banken", SOURCE) == [_at(10)]


def test_a_worker_that_expects_what_nobody_committed_is_fenced(database: Database) -> None:
    with database.transaction() as connection, pytest.raises(FencedError):
        offsets.advance(connection, "banken", _at(10), expected=0)


@pytest.mark.parametrize("start", [None, 10])
def test_of_workers_that_race_one_wins(database: Database, start: int | None) -> None:
    if start is not None:
        with database.transaction() as connection:
            offsets.advance(connection, "banken", _at(start), expected=None)
    barrier = threading.Barrier(4)
    outcomes: list[str] = []

    def work() -> None:
        barrier.wait()
        try:
            with database.transaction() as connection:
                offsets.advance(connection, "banken", _at(50), expected=start)
        except FencedError:
            outcomes.append("fenced")
        else:
            outcomes.append("won")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["fenced", "fenced", "fenced", "won"]
