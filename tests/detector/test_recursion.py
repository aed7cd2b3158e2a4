"""The vectorised recursion against plain loops that follow the formulas, event by event."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from detector.evidence import GRID, EvidenceRule, ratios, step
from detector.rates import DEFAULT_RATES
from detector.recursion import Null, Turn, advance_clients, advance_groups
from detector.signals import CHANNELS, LEVELS, SIGNALS, Outcomes
from detector.subjects import SubjectKey, SubjectTable

NULL = Null.of(EvidenceRule(), DEFAULT_RATES)
WEIGHTS = (0.25, 0.25, 0.2, 0.1, 0.15, 0.05)
GROUP_WEIGHTS = (0.25 / 0.7, 0.25 / 0.7, 0.2 / 0.7)
EXPOSED = (0, 3, 4, 5)
"""The channel that each signal's exposure is counted on."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Change:
    """What a turn must say."""

    event: int
    subject: int
    queries: int
    stage: int
    evidence: float
    S: list[list[float]]
    unspent: float
    exposure: list[float]
    hits: list[int]


def unspent(t: int) -> float:
    return 0.5 / (1.0 + math.log(t)) if t else 1.0


def stage_after(stage: int, evidence: float, exposure: float) -> int:
    if evidence < 1.0:
        return 0
    if evidence < 1000.0:
        return stage
    severity = 1
    for least, reached in ((25.0, 3), (100.0, 4), (400.0, 5)):
        if exposure >= least:
            severity = reached
    return max(stage, severity)


def ratio(g: float, pi0: float, hits: int, trials: int) -> float:
    """Likelihood ratio of so many hits; an event that was certain under the null says nothing."""
    if pi0 == 1.0:
        return 1.0
    q = pi0 + (1 - pi0) * g
    return (q / pi0) ** hits * ((1 - q) / (1 - pi0)) ** (trials - hits)


def mixed(S: list[list[float]], weights: tuple[float, ...], left: float) -> float:
    return sum(weight * sum(row) / len(row) for weight, row in zip(weights, S, strict=True)) + left


@dataclass
class Client:
    """One client, straight from DESIGN §4 items 3 and 4."""

    S: list[list[float]] = field(default_factory=lambda: [[0.0] * len(GRID) for _ in CHANNELS])
    G: list[float] = field(default_factory=lambda: [0.0] * len(SIGNALS))
    hits: list[int] = field(default_factory=lambda: [0] * len(CHANNELS))
    odd_hits: list[int] = field(default_factory=lambda: [0] * len(LEVELS))
    queries: int = 0
    stage: int = 0
    evidence: float = 1.0

    def event(self, hit: list[bool], bound: list[float], allowance: list[float]) -> bool:
        """Take an event; whether it moves the finding."""
        self.queries += 1
        w = unspent(self.queries - 1) - unspent(self.queries)
        for channel, (X, pi0) in enumerate(zip(hit, bound, strict=True)):
            self.S[channel] = [
                min(1e5, (value + w) * ratio(g, pi0, int(X), 1))
                for g, value in zip(GRID.tolist(), self.S[channel], strict=True)
            ]
            self.hits[channel] += X and pi0 < 1.0
            if channel < len(LEVELS) and self.queries % 2:
                self.odd_hits[channel] += X
        for signal, m0 in enumerate(allowance):
            self.G[signal] = max(0.0, self.G[signal] + hit[EXPOSED[signal]] - m0)
        self.evidence = mixed(self.S, WEIGHTS, unspent(self.queries))
        before, self.stage = self.stage, stage_after(self.stage, self.evidence, max(self.G))
        return self.stage != before

    def change(self, event: int, subject: int) -> Change:
        return Change(
            event,
            subject,
            self.queries,
            self.stage,
            self.evidence,
            [*self.S],
            unspent(self.queries),
            [*self.G],
            [*self.hits],
        )

    @property
    def linking(self) -> float:
        """E-value of the 1st, 3rd, 5th … query, looked at once."""
        if not any(self.odd_hits):
            return 0.0
        trials = (self.queries + 1) // 2
        return mixed(
            [
                [min(1e5, ratio(g, DEFAULT_RATES.bound[level], hits, trials)) for g in GRID.tolist()]
                for level, hits in enumerate(self.odd_hits)
            ],
            GROUP_WEIGHTS,
            0.0,
        )


@dataclass
class Group:
    """One group, straight from DESIGN §4 item 5: counts in buckets, out of domain alone."""

    S: list[list[float]] = field(default_factory=lambda: [[0.0] * len(GRID) for _ in LEVELS])
    G: float = 0.0
    t: int = 0
    queries: int = 0
    stage: int = 0
    evidence: float = 1.0
    exposure: float = 0.0
    bucket: int = -1
    trials: int = 0
    bucket_hits: list[int] = field(default_factory=lambda: [0] * len(LEVELS))
    bucket_queries: int = 0
    foreign: int = 0
    hits: list[int] = field(default_factory=lambda: [0] * len(LEVELS))

    def after_bucket(self) -> tuple[list[list[float]], float]:
        """S and G as they would be if the bucket closed now; its events share one start weight."""
        w = unspent(self.t - 1) - unspent(self.t)
        S = [
            [
                min(1e5, (value + w) * ratio(g, pi0, hits, self.trials))
                for g, value in zip(GRID.tolist(), row, strict=True)
            ]
            for row, pi0, hits in zip(self.S, DEFAULT_RATES.bound, self.bucket_hits, strict=False)
        ]
        return S, max(0.0, self.G + self.foreign - DEFAULT_RATES.allowance[0] * self.bucket_queries)

    def event(self, hit: list[bool], counted: bool, bucket: int) -> bool:
        """Take an event; whether it moves the finding."""
        if bucket > self.bucket:
            if self.bucket >= 0:
                self.S, self.G = self.after_bucket()
            self.t += 1
            self.bucket = bucket
            self.trials = self.bucket_queries = self.foreign = 0
            self.bucket_hits = [0] * len(LEVELS)
        if counted:
            self.bucket_hits = [so_far + X for so_far, X in zip(self.bucket_hits, hit, strict=True)]
            self.trials += 1
        self.hits = [so_far + X for so_far, X in zip(self.hits, hit, strict=True)]
        self.foreign, self.bucket_queries = self.foreign + hit[0], self.bucket_queries + 1
        self.queries += 1
        S, self.exposure = self.after_bucket()
        self.evidence = mixed(S, GROUP_WEIGHTS, unspent(self.t))
        before, self.stage = self.stage, stage_after(self.stage, self.evidence, self.exposure)
        return self.stage != before

    def change(self, event: int, subject: int) -> Change:
        S, exposure = self.after_bucket()
        return Change(
            event,
            subject,
            self.queries,
            self.stage,
            self.evidence,
            S,
            unspent(self.t),
            [exposure],
            [*self.hits],
        )


def events(seed: int, n: int, subjects: int) -> tuple[Array, Outcomes]:
    """Who asked and what hit: one subject in three steals now and then, and its findings close in between.

    Coverage is announced by a bound that moves; perturbation and boundary cannot judge every event.
    """
    rng = np.random.default_rng(seed)
    who = rng.integers(subjects, size=n) * (rng.random(n) < 0.7)  # subject 0 asks the most
    stealing = (who % 3 == 0) & (np.arange(n) % 3000 < 150)
    rate = np.where(stealing, 0.9, 0.01)
    at_five = rng.random(n) < rate
    at_one = at_five & (rng.random(n) < 0.8)
    hits = np.ones((n, len(CHANNELS)), np.bool_)
    hits[:, :3] = np.stack([at_five, at_one, at_one & (rng.random(n) < 0.7)], axis=1)
    hits[:, 3:] = rng.random((n, 3)) < np.where(stealing, 0.5, 0.02)[:, None]
    bounds = np.tile(DEFAULT_RATES.bound, (n, 1))
    allowances = np.tile(DEFAULT_RATES.allowance, (n, 1))
    bounds[:, 3] = np.minimum(1.0, 1.5 * rng.uniform(1e-6, 1.0, n) ** 2)
    allowances[:, 1] = np.minimum(1.0, bounds[:, 3] / 1.3)
    unknown = rng.random((n, 3)) < [0.0, 0.3, 0.6]
    unknown[:, 0] = bounds[:, 3] == 1.0
    hits[:, 3:][unknown], bounds[:, 3:][unknown], allowances[:, 1:][unknown] = True, 1.0, 1.0
    return who, Outcomes(hits, bounds, allowances)


def part_of(outcomes: Outcomes, part: slice) -> Outcomes:
    return Outcomes(outcomes.hits[part], outcomes.bounds[part], outcomes.allowances[part])


def cut(n: int, seed: int) -> list[slice]:
    edges = [0, *sorted(set(np.random.default_rng(seed).integers(1, n, size=9).tolist())), n]
    return [slice(a, b) for a, b in pairwise(edges)]


def table_of(subjects: int) -> tuple[SubjectTable, Array]:
    table = SubjectTable()
    return table, table.slots([SubjectKey("client", str(i)) for i in range(subjects)])


def noting(found: list[Change], slots: Array, first: int) -> Callable[[Turn], None]:
    """Write down what each turn says, by the event's place in the whole log."""

    def note(turn: Turn) -> None:
        subject = int(np.flatnonzero(slots == turn.slot)[0])
        change = Change(
            first + turn.event,
            subject,
            turn.queries,
            turn.stage,
            turn.evidence,
            turn.S.tolist(),
            turn.unspent,
            turn.exposure.tolist(),
            turn.hits.tolist(),
        )
        found.append(change)

    return note


def compare(found: list[Change], expected: list[Change]) -> None:
    found = sorted(found, key=lambda change: change.event)
    for one, other in zip(found, expected, strict=True):
        assert (one.event, one.subject, one.queries, one.stage) == (
            other.event,
            other.subject,
            other.queries,
            other.stage,
        )
        assert one.hits == other.hits
        assert (one.evidence, one.unspent) == pytest.approx((other.evidence, other.unspent), rel=1e-9)
        np.testing.assert_allclose(one.S, other.S, rtol=1e-9)
        np.testing.assert_allclose(one.exposure, other.exposure, rtol=1e-9, atol=1e-9)
    assert {change.stage for change in found} >= {0, 1, 3}


@pytest.mark.parametrize("seed", range(3))
def test_clients_agree_with_the_plain_loop(seed: int) -> None:
    n, subjects = 6000, 5
    who, outcomes = events(seed, n, subjects)
    reference = [Client() for _ in range(subjects)]
    expected: list[Change] = []
    evidence_before = []
    for i, one in enumerate(who.tolist()):
        evidence_before.append(reference[one].evidence)
        row = (part[i].tolist() for part in (outcomes.hits, outcomes.bounds, outcomes.allowances))
        if reference[one].event(*row):
            expected.append(reference[one].change(i, one))

    table, slots = table_of(subjects)
    found: list[Change] = []
    before = []
    for part in cut(n, seed):
        note = noting(found, slots, part.start)
        before.append(advance_clients(NULL, table.rows, slots[who[part]], part_of(outcomes, part), note))
    compare(found, expected)
    np.testing.assert_allclose(np.concatenate(before), evidence_before, rtol=1e-9)
    for slot, one in zip(slots.tolist(), reference, strict=True):
        row = table.rows[slot]
        np.testing.assert_allclose(row["S"], one.S, rtol=1e-9)
        np.testing.assert_allclose(row["G"], one.G, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            [row["evidence"], row["exposure"], row["linking"]], [one.evidence, max(one.G), one.linking]
        )
        assert (row["queries"], row["stage"], row["starts"]) == (one.queries, one.stage, one.queries)
        assert (row["hits"].tolist(), row["linking_hits"].tolist()) == (one.hits, one.odd_hits)
    opened = [any(change.subject == i and change.stage for change in found) for i in range(subjects)]
    assert ((table.rows["episodes"][slots] > 0) == opened).all()


@pytest.mark.parametrize("seed", range(3))
def test_groups_agree_with_the_plain_loop(seed: int) -> None:
    n, subjects = 6000, 5
    rng = np.random.default_rng(seed)
    who, outcomes = events(seed, n, subjects)
    hits = outcomes.hits[:, : len(LEVELS)]
    counted = rng.random(n) < 0.9
    buckets = np.arange(n) // 60 + rng.integers(-2, 2, size=n)  # some events are late, some early
    buckets[:5] = -7  # and some from before the epoch
    reference = [Group() for _ in range(subjects)]
    expected: list[Change] = []
    for i, one in enumerate(who.tolist()):
        if reference[one].event(hits[i].tolist(), bool(counted[i]), max(0, int(buckets[i]))):
            expected.append(reference[one].change(i, one))

    table, slots = table_of(subjects)
    found: list[Change] = []
    for part in cut(n, seed):
        note = noting(found, slots, part.start)
        advance_groups(NULL, table.rows, slots[who[part]], hits[part], counted[part], buckets[part], note)
    compare(found, expected)
    for slot, one in zip(slots.tolist(), reference, strict=True):
        row = table.rows[slot]
        np.testing.assert_allclose(row["S"][: len(LEVELS)], one.S, rtol=1e-9)
        np.testing.assert_allclose(
            [row["G"][0], row["evidence"], row["exposure"]],
            [one.G, one.evidence, one.exposure],
            rtol=1e-9,
            atol=1e-9,
        )
        assert not row["S"][len(LEVELS) :].any()
        assert not row["G"][1:].any()
        assert (row["queries"], row["stage"], row["starts"]) == (one.queries, one.stage, one.t)
        assert row["hits"].tolist() == [*one.hits, 0, 0, 0]


def nobody(turn: Turn) -> None:
    """These findings are of no interest."""


def test_a_bucket_has_no_order() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random((300, len(LEVELS))) < 0.3
    rows = []
    for _ in range(3):
        table, slots = table_of(1)
        order = rng.permutation(300)
        advance_groups(
            NULL, table.rows, slots.repeat(300), hits[order], np.ones(300, bool), np.full(300, 4), nobody
        )
        table.rows["stage"] = table.rows["episodes"] = 0  # when it was crossed does depend on order
        rows.append(table.rows[slots].tobytes())
    assert rows[0] == rows[1] == rows[2]


def test_what_no_channel_can_judge_multiplies_evidence_by_exactly_one() -> None:
    S = np.random.default_rng(0).random((1, len(CHANNELS), len(GRID))) * 1e5
    certain = Outcomes(np.ones((40, 6), np.bool_), np.ones((40, 6)), np.ones((40, 4)))
    assert step(S, np.zeros(1), ratios(certain.hits[:1], certain.bounds[:1]), 1e5).tobytes() == S.tobytes()

    table, slots = table_of(1)
    before = advance_clients(NULL, table.rows, slots.repeat(40), certain, nobody)
    row = table.rows[slots[0]]
    # Start weights are spent, and stay where they are put.
    np.testing.assert_allclose(row["S"], 1.0 - unspent(40), rtol=1e-12)
    np.testing.assert_allclose([*before, row["evidence"]], 1.0, rtol=1e-12)
    assert not row["hits"].any()
    assert not row["G"].any()


def test_linking_knows_the_odd_numbered_queries_alone() -> None:
    bounds, allowances = np.full((20, 6), 0.03), np.full((20, 4), 0.01)
    for start, hit in ((0, True), (1, False)):
        table, slots = table_of(1)
        hits = np.zeros((20, 6), np.bool_)
        hits[start::2, : len(LEVELS)] = True
        for i in range(20):
            one = Outcomes(hits[i : i + 1], bounds[i : i + 1], allowances[i : i + 1])
            advance_clients(NULL, table.rows, slots, one, nobody)
        row = table.rows[slots[0]]
        assert row["linking_hits"].tolist() == [10 * hit] * 3
        assert (row["linking"] > 1e3) == hit
        assert (row["linking"] == 0.0) == (not hit)
