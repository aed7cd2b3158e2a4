"""The table of subjects: bytes in, bytes out, and bounded."""

from __future__ import annotations

import numpy as np
import pytest

from detector.errors import DetectorError
from detector.evidence import GRID
from detector.signals import CHANNELS
from detector.subjects import CLIENT, STATE, SubjectKey, SubjectRow, SubjectTable


def keys(*numbers: int) -> list[SubjectKey]:
    return [SubjectKey(CLIENT, f"c{number}") for number in numbers]


def test_a_state_is_a_kilobyte_and_a_half_whatever_the_machine() -> None:
    assert STATE.itemsize <= 1600
    assert STATE.isbuiltin == 0
    assert all(STATE[name].base.str in {"<i8", "<u8", "<u2", "<f8"} for name in STATE.names or ())
    assert STATE["S"].shape == (len(CHANNELS), len(GRID))


def test_a_subject_keeps_its_slot_and_a_new_one_starts_empty() -> None:
    table = SubjectTable()
    first = table.slots(keys(1, 2, 1))
    assert first[0] == first[2] != first[1]
    table.rows["queries"][first[0]] = 7
    assert table.slots(keys(2, 1)).tolist() == first[[1, 0]].tolist()
    assert len(table) == 2
    row = table.row(keys(2)[0])
    assert row is not None
    assert (row.queries, row.evidence, row.stage) == (0, 1.0, 0)
    assert table.rows["bucket"][first[1]] == -1


def test_rows_come_back_from_bytes_as_they_left() -> None:
    table = SubjectTable()
    slots = table.slots(keys(*range(3000)))  # past the first growth
    rng = np.random.default_rng(0)
    table.rows["S"][slots] = rng.random((3000, len(CHANNELS), len(GRID)))
    table.rows["queries"][slots] = np.arange(3000)
    table.rows["evidence"][slots] = rng.random(3000)
    table.rows["linking"][slots] = rng.random(3000)
    table.rows["visited"][slots] = rng.integers(0, 2**63, (3000, 4))
    rows = table.changed()
    assert [row.key for row in rows] == keys(*range(3000))
    assert all(len(row.state) == STATE.itemsize for row in rows)
    assert [row.linking for row in rows] == table.rows["linking"][slots].tolist()
    other = SubjectTable()
    other.insert(rows)
    assert other.changed() == []
    assert [other.row(row.key) for row in rows] == rows


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(DetectorError, match="another version"):
        SubjectTable().insert([SubjectRow(keys(1)[0], 0, 1.0, 0.0, 0.0, 0, 0, 0, b"short")])


def test_inserting_a_subject_again_replaces_it() -> None:
    table = SubjectTable()
    table.slots(keys(1, 2))
    row = table.changed()[0]
    table.saved()
    table.rows["queries"][table.slots(keys(1))] = 9
    table.insert([row])
    assert table.row(row.key) == row
    assert len(table) == 2


def test_only_what_was_touched_since_the_last_save_is_changed() -> None:
    table = SubjectTable()
    table.slots(keys(1, 2, 3))
    table.saved()
    assert table.changed() == []
    table.slots(keys(3, 3))
    table.slots(keys(2, 3))
    assert {row.key for row in table.changed()} == set(keys(2, 3))


def test_missing_are_those_not_in_memory() -> None:
    table = SubjectTable()
    table.slots(keys(1, 2))
    assert table.missing(keys(1, 5, 5, 2, 6)) == set(keys(5, 6))
    assert len(table) == 2


def test_the_least_recently_seen_leave_and_unsaved_ones_stay() -> None:
    table = SubjectTable(capacity=8)
    for number in range(10):
        table.slots(keys(number))
    assert table.evict() == []  # none of them is stored yet
    table.saved()
    table.slots(keys(0))
    table.saved()
    assert set(table.evict()) == set(keys(1, 2, 3, 4))
    assert table.row(keys(1)[0]) is None
    assert len(table) == 6
    slots = table.slots(keys(11, 12, 13))
    assert (table.rows["queries"][slots] == 0).all()
    assert len(set(slots.tolist())) == 3
    assert set(table.evict()) == set(keys(5, 6, 7))
    assert {row.key for row in table.changed()} == set(keys(11, 12, 13))


def test_what_was_just_loaded_outlives_what_was_not_asked_for() -> None:
    table = SubjectTable(capacity=4)
    table.slots(keys(1, 2, 3, 4))
    table.saved()
    other = SubjectTable()
    other.slots(keys(9))
    table.insert(other.changed())
    assert keys(9)[0] not in table.evict()
