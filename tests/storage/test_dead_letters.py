from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from storage import dead_letters, schema
from storage.database import Database
from storage.records import DeadLetterRecord
from tests.storage.examples import letter

OTHERWISE: dict[str, Any] = {"reason": "broken", "raw": b"\xff\x01", "event_id": "q-2", "endpoint": "cars"}


def test_a_column_for_every_field() -> None:
    assert [column.name for column in schema.dead_letters.c] == [
        "id",
        *(field.name for field in fields(DeadLetterRecord)),
        "digest",
    ]


def test_a_replay_adds_nothing(database: Database) -> None:
    letters = [letter(1), letter(2, endpoint=None), letter(2, stage="parse")]
    with database.transaction() as connection:
        dead_letters.add(connection, letters)
        dead_letters.add(connection, [*letters, letter(3)])
        dead_letters.add(connection, [])
        assert [stored.letter for stored in dead_letters.page(connection)] == [*letters, letter(3)]


def test_another_letter_at_the_same_place_is_kept(database: Database) -> None:
    """A file was replaced: what stands there now is not what stood there."""
    first = letter(1)
    letters = [first, *(replace(first, **{name: value}) for name, value in OTHERWISE.items())]
    for _ in range(2):
        with database.transaction() as connection:
            dead_letters.add(connection, letters)
            assert [stored.letter for stored in dead_letters.page(connection)] == letters


def test_lists_counts_and_removes(database: Database) -> None:
    with database.transaction() as connection:
        dead_letters.add(connection, [letter(offset) for offset in range(5)])
        dead_letters.add(connection, [letter(9, stage="parse", endpoint=None)])
        first = dead_letters.page(connection, limit=4)
        rest = dead_letters.page(connection, limit=4, after=first[-1].id)
        assert [stored.letter.offset for stored in first + rest] == [0, 1, 2, 3, 4, 9]
        assert [stored.letter.offset for stored in dead_letters.page(connection, stage="parse")] == [9]
        assert dead_letters.count(connection) == 6
        assert dead_letters.count(connection, endpoint="garments") == 5
        assert dead_letters.count(connection, endpoint="garments", stage="parse") == 0
        assert dead_letters.remove(connection, [first[0].id, first[1].id, 10**9]) == 2
        assert dead_letters.count(connection) == 4


def test_text_that_no_database_holds(database: Database) -> None:
    with database.transaction() as connection:
        bad = replace(letter(1), event_id="a\x00b", endpoint="\udc80", reason="lone \ud800")
        dead_letters.add(connection, [bad])
        (stored,) = dead_letters.page(connection)
    assert stored.letter == replace(bad, event_id="a\\x00b", endpoint="\\udc80", reason="lone \\ud800")
