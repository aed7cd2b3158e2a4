from __future__ import annotations

from dataclasses import fields, replace

from storage import dead_letters, schema
from storage.database import Database
from storage.records import DeadLetterRecord
from tests.storage.examples import letter


def test_columns_come_in_the_order_of_the_fields() -> None:
    assert [column.name for column in schema.dead_letters.c][1:] == [
        field.name for field in fields(DeadLetterRecord)
    ]


def test_a_replay_adds_nothing(database: Database) -> None:
    letters = [letter(1), letter(2, endpoint=None), letter(2, stage="parse")]
    with database.transaction() as connection:
        dead_letters.add(connection, letters)
        dead_letters.add(connection, [replace(letters[0], reason="said otherwise"), *letters, letter(3)])
        dead_letters.add(connection, [])
        assert [stored.letter for stored in dead_letters.page(connection)] == [*letters, letter(3)]


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
