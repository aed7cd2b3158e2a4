"""Who is judged: clients and the groups that their queries belong to, with a constant state each.

One row of :data:`STATE` is everything the detector remembers of one subject. It is a plain
little-endian record, so storing a subject is storing its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detector.errors import DetectorError
from detector.evidence import GRID
from detector.perturbation import REMEMBERED
from detector.signals import CHANNELS, LEVELS, SIGNALS

__all__ = ["CLIENT", "STATE", "SubjectKey", "SubjectRow", "SubjectTable"]

CLIENT = "client"
"""The kind of the subjects that are single clients; every other kind is a group of clients."""

STATE: np.dtype[np.void] = np.dtype(
    [
        ("starts", "<i8"),  # start weights spent: events of a client, buckets of a group
        ("queries", "<i8"),  # events seen
        ("hits", "<i8", (len(CHANNELS),)),  # outcomes X = 1 that a channel could judge
        ("linking_hits", "<i8", (len(LEVELS),)),  # of a client: those among its 1st, 3rd, 5th … query
        ("S", "<f8", (len(CHANNELS), len(GRID))),  # the recursion; of a group: up to its last closed bucket
        ("G", "<f8", (len(SIGNALS),)),  # exposure by signal; of a group: up to its last closed bucket
        ("bucket", "<i8"),  # number of the open event-time bucket of a group; -1 before the first
        ("trials", "<i8"),  # events of the open bucket that count as evidence
        ("bucket_hits", "<i8", (len(LEVELS),)),  # and how many of them hit, by level
        ("bucket_queries", "<i8"),  # all events of the open bucket
        ("bucket_foreign", "<i8"),  # and how many of them hit at the first level
        ("recent", "<u8", (8,)),  # hashes of its latest different foreign queries, the last one first
        ("visited", "<u8", (4,)),  # bits of the cells that a client has visited
        ("prints", "<u8", (REMEMBERED,)),  # perceptual hashes of a client's latest unlike pictures; 0: none
        ("marks", "<u2", (REMEMBERED,)),  # digests of their embeddings; the lowest bit: perturbed since
        ("kept", "<i8"),  # pictures ever remembered
        ("evidence", "<f8"),  # E after the latest event
        (
            "linking",
            "<f8",
        ),  # of a client: e-value of its 1st, 3rd, 5th … query, fixed in time; 0 without a hit
        ("exposure", "<f8"),  # the largest G after the latest event
        ("first_seen", "<i8"),  # event time of the first query, ms
        ("last_seen", "<i8"),  # latest event time, ms
        ("stage", "<i8"),  # 0: nothing open; else the OCSF severity of the open finding
        ("episodes", "<i8"),  # findings opened so far
    ]
)
"""A subject's state. Its size is constant: a dozen floats a channel, and what the signals remember."""

_EMPTY = np.zeros((), STATE)
_EMPTY["bucket"] = -1
_EMPTY["evidence"] = 1.0
_EMPTY["first_seen"], _EMPTY["last_seen"] = np.iinfo(np.int64).max, np.iinfo(np.int64).min


class SubjectKey(NamedTuple):
    """Who is judged within one endpoint: ``("client", "key-7f3a")``, ``("network", "203.0.113.0/24")``."""

    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


class SubjectRow(NamedTuple):
    """A subject as it is stored: figures to list it by, and its whole state as bytes.

    Attributes:
        key: who.
        queries: events seen.
        evidence: E after the latest event.
        exposure: the largest excess of a signal's hits after the latest event.
        linking: e-value of every other query of a client, 0 where none hit; campaigns are looked for by it.
        stage: 0 where no finding is open, else that finding's OCSF severity.
        first_seen: event time of the first query, ms.
        last_seen: latest event time, ms.
        state: one :data:`STATE` record.
    """

    key: SubjectKey
    queries: int
    evidence: float
    exposure: float
    linking: float
    stage: int
    first_seen: int
    last_seen: int
    state: bytes


class SubjectTable:
    """The subjects in memory: at most ``capacity`` of them between two calls of :meth:`evict`.

    Args:
        capacity: how many subjects to keep; the least recently seen leave first. Nothing is lost
            by leaving: whoever stores :meth:`changed` rows hands them back to :meth:`insert`.
    """

    def __init__(self, capacity: int = 200_000) -> None:
        self.capacity = capacity
        self.rows: npt.NDArray[np.void] = np.zeros(1024, STATE)
        self._slots: dict[tuple[str, str], int] = {}  # a pair equals its key, and is made in no time
        self._keys: list[SubjectKey | None] = []
        self._free: list[int] = []
        self._touched = np.zeros(1024, np.int64)
        self._clock = 0
        self._saved = 0  # the clock at the latest saved()
        self._since_saved: list[npt.NDArray[np.intp]] = []

    def __len__(self) -> int:
        return len(self._slots)

    def missing(self, keys: Iterable[tuple[str, str]]) -> set[SubjectKey]:
        """Those of ``keys`` that are not in memory; load them from storage before observing."""
        slots = self._slots
        return {SubjectKey(*key) for key in keys if key not in slots}

    def insert(self, rows: Iterable[SubjectRow]) -> None:
        """Put stored subjects back into memory.

        Raises:
            DetectorError: a row's state was written by another version of the detector.
        """
        stored = list(rows)
        for row in stored:
            if len(row.state) != STATE.itemsize:
                raise DetectorError(
                    f"state of {row.key}: {len(row.state)} bytes, expected {STATE.itemsize}; it was written "
                    "by another version of Banken: run that, or audit the history again with this one"
                )
        slots = np.array([self._slot_for(row.key) for row in stored], np.intp)
        self.rows[slots] = np.frombuffer(b"".join(row.state for row in stored), STATE)
        self._touched[slots] = self._saved

    def slots(self, keys: Sequence[tuple[str, str]]) -> npt.NDArray[np.intp]:
        """Slots of ``keys``, shape (n,); subjects never seen before start with an empty state."""
        self._clock += 1
        slots = np.fromiter(map(self._slots.get, keys, repeat(-1)), np.intp, len(keys))
        fresh = np.flatnonzero(slots < 0)
        slots[fresh] = [self._slot_for(SubjectKey(*keys[place])) for place in fresh.tolist()]
        self.rows[slots[fresh]] = _EMPTY
        self._touched[slots] = self._clock
        self._since_saved.append(slots)
        return slots

    def key(self, slot: int) -> SubjectKey:
        """Who lives in ``slot``."""
        key = self._keys[slot]
        assert key is not None
        return key

    def row(self, key: SubjectKey) -> SubjectRow | None:
        """The subject as it stands now, or None where it is not in memory."""
        slot = self._slots.get(key)
        return None if slot is None else self._export(np.array([slot]))[0]

    def changed(self) -> list[SubjectRow]:
        """Every subject touched since the last :meth:`saved`, in slot order."""
        return self._export(np.unique(np.concatenate([np.zeros(0, np.intp), *self._since_saved])))

    def saved(self) -> None:
        """Say that :meth:`changed` rows are stored."""
        self._saved = self._clock
        self._since_saved.clear()

    def evict(self) -> list[SubjectKey]:
        """Forget the least recently seen stored subjects until a quarter of the capacity is free.

        Returns:
            Who left; empty while the table is within its capacity.
        """
        surplus = len(self._slots) - self.capacity
        if surplus <= 0:
            return []
        used = np.fromiter(self._slots.values(), np.intp, len(self._slots))
        used = used[self._touched[used] <= self._saved]
        surplus = min(surplus + self.capacity // 4, len(used))
        leaving = used[np.argsort(self._touched[used], kind="stable")[:surplus]]
        gone = []
        for slot in leaving.tolist():
            key = self.key(slot)
            del self._slots[key]
            self._keys[slot] = None
            self._free.append(slot)
            gone.append(key)
        return gone

    def _slot_for(self, key: SubjectKey) -> int:
        """The subject's slot, a free one where it has none."""
        if key in self._slots:
            return self._slots[key]
        if self._free:
            slot = self._free.pop()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
            if slot == len(self.rows):
                self.rows = np.resize(self.rows, 2 * slot)
                self._touched = np.resize(self._touched, 2 * slot)
        self._slots[key] = slot
        return slot

    def _export(self, slots: npt.NDArray[np.intp]) -> list[SubjectRow]:
        rows: npt.NDArray[Any] = self.rows[slots]
        columns = ("queries", "evidence", "exposure", "linking", "stage", "first_seen", "last_seen")
        figures = (rows[name].tolist() for name in columns)
        blob, size = rows.tobytes(), STATE.itemsize  # tobytes() of single records is slow
        states = [blob[at : at + size] for at in range(0, len(blob), size)]
        keys = map(self._keys.__getitem__, slots.tolist())
        return list(map(SubjectRow._make, zip(keys, *figures, states, strict=True)))
