"""The vectorised recursion against plain loops that follow the formulas, event by event."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from detector.evidence import GRID, EvidenceRule
from detector.rates import DEFAULT_RATES
from detector.recursion import Null, advance_clients, advance_groups
from detector.subjects import LEVELS, SubjectKey, SubjectTable

NULL = Null.of(EvidenceRule(), DEFAULT_RATES)
Change = tuple[int, int, int, int]


def unspent(t: int) -> float:
    return 0.5 / (1.0 + math.log(t)) if t else 1.0


def stage_after(stage: int, evidence: float, exposure: float) -> int:
    if evidence < 1.0:
        return 0
    if evidence < 1000.0:
        return stage
    severity = 1
    for least, step in ((25.0, 3), (100.0, 4), (400.0, 5)):
        if exposure >= least:
            severity = step
    return max(stage, severity)


@dataclass
class Reference:
    """One subject, straight from DESIGN §4 items 3 to 5."""

    S: list[list[float]] = field(default_factory=lambda: [[0.0] * len(GRID) for _ in LEVELS])
    G: float = 0.0
    t: int = 0
    queries: int = 0
    stage: int = 0
    evidence: float = 1.0
    exposure: float = 0.0
    bucket: int = -1
    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0])

    def after(self, hits: tuple[int, int], trials: int) -> list[list[float]]:
        """S after ``trials`` events of which ``hits`` hit, sharing one start weight."""
        w = unspent(self.t - 1) - unspent(self.t)
        out = []
        for level, row in enumerate(self.S):
            pi0 = DEFAULT_RATES.bound[level]
            new = []
            for g, value in zip(GRID.tolist(), row, strict=True):
                q = pi0 + (1 - pi0) * g
                ratio = (q / pi0) ** hits[level] * ((1 - q) / (1 - pi0)) ** (trials - hits[level])
                new.append(min(1e5, (value + w) * ratio))
            out.append(new)
        return out

    def mixed(self, S: list[list[float]]) -> float:
        return sum(0.5 * sum(row) / len(row) for row in S) + unspent(self.t)

    def judge(self, S: list[list[float]], exposure: float) -> int | None:
        self.queries += 1
        self.evidence, self.exposure = self.mixed(S), exposure
        stage = stage_after(self.stage, self.evidence, exposure)
        moved = stage != self.stage
        self.stage = stage
        return stage if moved else None

    def client_event(self, hit: tuple[int, int]) -> int | None:
        self.t += 1
        self.S = self.after(hit, 1)
        self.G = max(0.0, self.G + hit[0] - NULL.allowance)
        return self.judge(self.S, self.G)

    def group_event(self, hit: tuple[int, int], counted: bool, bucket: int) -> int | None:
        hits0, hits1, trials, foreign, queries = self.counts
        if bucket > self.bucket:
            if self.bucket >= 0:
                self.S = self.after((hits0, hits1), trials)
                self.G = max(0.0, self.G + foreign - NULL.allowance * queries)
            self.t += 1
            self.bucket = bucket
            hits0 = hits1 = trials = foreign = queries = 0
        if counted:
            hits0, hits1, trials = hits0 + hit[0], hits1 + hit[1], trials + 1
        foreign, queries = foreign + hit[0], queries + 1
        self.counts = [hits0, hits1, trials, foreign, queries]
        exposure = max(0.0, self.G + foreign - NULL.allowance * queries)
        return self.judge(self.after((hits0, hits1), trials), exposure)


def events(seed: int, n: int, subjects: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Who asked and what hit: one subject in three steals now and then, and its findings close in between."""
    rng = np.random.default_rng(seed)
    who = rng.integers(subjects, size=n) * (rng.random(n) < 0.7)  # subject 0 asks the most
    rate = np.where((who % 3 == 0) & (np.arange(n) % 3000 < 150), 0.9, 0.02)
    at_five = rng.random(n) < rate
    return who, np.stack([at_five, at_five & (rng.random(n) < 0.8)], axis=1)


def cut(n: int, seed: int) -> list[slice]:
    edges = [0, *sorted(set(np.random.default_rng(seed).integers(1, n, size=9).tolist())), n]
    return [slice(a, b) for a, b in pairwise(edges)]


def table_of(subjects: int) -> tuple[SubjectTable, np.ndarray[Any, Any]]:
    table = SubjectTable()
    return table, table.slots([SubjectKey("client", str(i)) for i in range(subjects)])


def check(table: SubjectTable, slots: np.ndarray[Any, Any], expected: list[Reference]) -> None:
    for slot, one in zip(slots.tolist(), expected, strict=True):
        row = table.rows[slot]
        np.testing.assert_allclose(row["S"], one.S, rtol=1e-9)
        for name in ("evidence", "exposure", "G"):
            assert row[name] == pytest.approx(getattr(one, name), rel=1e-9, abs=1e-9)
        assert (row["queries"], row["stage"], row["starts"]) == (one.queries, one.stage, one.t)


@pytest.mark.parametrize("seed", range(3))
def test_clients_agree_with_the_plain_loop(seed: int) -> None:
    n, subjects = 6000, 5
    who, hits = events(seed, n, subjects)
    reference = [Reference() for _ in range(subjects)]
    expected: list[Change] = []
    evidence_before = []
    for i, (one, hit) in enumerate(zip(who.tolist(), hits.tolist(), strict=True)):
        evidence_before.append(reference[one].evidence)
        stage = reference[one].client_event((int(hit[0]), int(hit[1])))
        if stage is not None:
            expected.append((i, one, reference[one].queries, stage))

    table, slots = table_of(subjects)
    found: list[Change] = []
    before = []
    for part in cut(n, seed):

        def note(at: int, slot: int, queries: int, stage: int, *_: float, first: int = part.start) -> None:
            found.append((first + at, int(np.flatnonzero(slots == slot)[0]), queries, stage))

        before.append(advance_clients(NULL, table.rows, slots[who[part]], hits[part], note))
    check(table, slots, reference)
    np.testing.assert_allclose(np.concatenate(before), evidence_before, rtol=1e-9)
    assert sorted(found) == expected
    assert {stage for *_, stage in found} >= {0, 1, 3}
    assert table.rows["hits"][slots].sum() == hits.sum()
    opened = [sum(1 for at, one, _, stage in found if one == i and stage) > 0 for i in range(subjects)]
    assert ((table.rows["episodes"][slots] > 0) == opened).all()


@pytest.mark.parametrize("seed", range(3))
def test_groups_agree_with_the_plain_loop(seed: int) -> None:
    n, subjects = 6000, 5
    rng = np.random.default_rng(seed)
    who, hits = events(seed, n, subjects)
    counted = rng.random(n) < 0.9
    buckets = np.arange(n) // 60 + rng.integers(-2, 2, size=n)  # some events are late, some early
    buckets[:5] = -7  # and some from before the epoch
    reference = [Reference() for _ in range(subjects)]
    expected: list[Change] = []
    for i, one in enumerate(who.tolist()):
        hit = (int(hits[i, 0]), int(hits[i, 1]))
        stage = reference[one].group_event(hit, bool(counted[i]), max(0, int(buckets[i])))
        if stage is not None:
            expected.append((i, one, reference[one].queries, stage))

    table, slots = table_of(subjects)
    found: list[Change] = []
    for part in cut(n, seed):

        def note(at: int, slot: int, queries: int, stage: int, *_: float, first: int = part.start) -> None:
            found.append((first + at, int(np.flatnonzero(slots == slot)[0]), queries, stage))

        advance_groups(NULL, table.rows, slots[who[part]], hits[part], counted[part], buckets[part], note)
    check(table, slots, reference)
    assert sorted(found) == expected
    assert {stage for *_, stage in found} >= {0, 1, 3}


def test_a_bucket_has_no_order() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random((300, 2)) < 0.3
    rows = []
    for _ in range(3):
        table, slots = table_of(1)
        nobody = lambda *_: None  # noqa: E731 - these findings are of no interest
        order = rng.permutation(300)
        advance_groups(
            NULL, table.rows, slots.repeat(300), hits[order], np.ones(300, bool), np.full(300, 4), nobody
        )
        table.rows["stage"] = table.rows["episodes"] = 0  # when it was crossed does depend on order
        rows.append(table.rows[slots].tobytes())
    assert rows[0] == rows[1] == rows[2]
