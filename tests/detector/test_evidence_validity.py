"""The promise of the evidence contract, run: whoever stays under π₀ is ever suspected with probability <= α.

Thousands of independent subjects follow adversarial streams at exactly π₀ and are watched after every
event (stopping at the highest E is the most optional of stoppings). The number ever suspected must not
refute "probability <= α" by an exact binomial test. α is 0.1 here so that the test has power, and the
mutants show that it has: each breaks one line of the contract, and the same check must refute it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from detector.evidence import GRID, EvidenceRule, evidence, ratios, run_bucket, start_weight, step, unspent

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

RULE = EvidenceRule(alpha=0.1, weights=(0.5, 0.5))
SUBJECTS = 4000
EVENTS = 250
WRONG_REFUSAL = 1e-4
"""Probability with which a valid recursion at exactly α fails a check."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of each subject: bounds announced before it, what the pictures were."""

    pi0: Floats  # (m, 2)
    foreign: Bools  # (m, 2): p-value at or below the level
    duplicate: Bools  # (m,): near one of the subject's own earlier queries


@dataclass(frozen=True, slots=True)
class Past:
    """What the adversary sees after each event: everything."""

    S: Floats  # (m, 2, Q)
    E: Floats  # (m,)


Stream = Generator[Event, Past, None]
Adversary = Callable[[np.random.Generator], Stream]


# --- streams under the null -------------------------------------------------------------------------


def event(pi0: Floats, uniforms: Floats, may_hit: Bools | bool = True) -> Event:
    """Hits with probability π₀ where ``may_hit`` (known before), else none; no duplicates."""
    foreign = (uniforms < pi0) & np.broadcast_to(may_hit, (SUBJECTS,))[:, None]
    return Event(pi0, foreign, np.zeros(SUBJECTS, dtype=bool))


def nested(rng: np.random.Generator) -> Floats:
    """One p-value for both levels: a hit at the stricter one is always a hit at the other."""
    return rng.random((SUBJECTS, 1))


def always(*bounds: float) -> Adversary:
    pi0 = np.full((SUBJECTS, 2), bounds)

    def stream(rng: np.random.Generator) -> Stream:
        while True:
            yield event(pi0, nested(rng))

    return stream


def unrelated(rng: np.random.Generator) -> Stream:
    """Levels that know nothing of each other: two chances for whoever takes the better one."""
    pi0 = np.full((SUBJECTS, 2), 0.5)
    while True:
        yield event(pi0, rng.random((SUBJECTS, 2)))


def opposed(rng: np.random.Generator) -> Stream:
    """Levels that never hit together."""
    pi0 = np.full((SUBJECTS, 2), 0.4)
    while True:
        u = rng.random(SUBJECTS)
        yield event(pi0, np.stack([u, 1.0 - u], axis=1))


def after_hits(rng: np.random.Generator) -> Stream:
    """Predictable switching: π₀ right after a hit and on every fifth event, nothing otherwise."""
    pi0, may_hit, t = np.full((SUBJECTS, 2), (0.4, 0.2)), np.ones(SUBJECTS, dtype=bool), 0
    while True:
        now = event(pi0, nested(rng), may_hit)
        yield now
        t += 1
        may_hit = now.foreign[:, 0] | (t % 5 == 0)


def while_hopeful(rng: np.random.Generator) -> Stream:
    """π₀ while E is worth defending or hopeless, honest silence in between."""
    pi0, E = np.full((SUBJECTS, 2), (0.5, 0.3)), np.ones(SUBJECTS)
    while True:
        E = (yield event(pi0, nested(rng), (E > 0.8) | (E < 0.3))).E


def bursts(rng: np.random.Generator) -> Stream:
    """Silent for thirty events, then thirty at the bound: the start-time mixture's home ground."""
    pi0, t = np.full((SUBJECTS, 2), (0.12, 0.03)), 0
    while True:
        yield event(pi0, nested(rng), (t // 30) % 2 == 1)
        t += 1


def wandering(rng: np.random.Generator) -> Stream:
    """A bound that changes with the past: timid just below the threshold, bold when evidence is thin."""
    E = np.ones(SUBJECTS)
    while True:
        pi0 = np.stack([np.clip(E / 12.0, 0.02, 0.9), np.where(E > 3.0, 0.8, 0.05)], axis=1)
        E = (yield event(pi0, rng.random((SUBJECTS, 2)))).E


def announced(rng: np.random.Generator) -> Stream:
    """A bound that is high and low by turns, as coverage's is when the domain fills up."""
    t = 0
    while True:
        t += 1
        yield event(np.full((SUBJECTS, 2), 0.5 if t % 2 else 0.05), nested(rng))


def bold(rule: EvidenceRule) -> Adversary:
    """Bold play: the bound is always the one at which a hit just reaches 1/α, so that nothing overshoots."""

    def stream(rng: np.random.Generator) -> Stream:
        past, t = Past(np.zeros((SUBJECTS, 2, GRID.size)), np.ones(SUBJECTS)), 0
        while True:
            t += 1
            left = past.E - past.S.mean(axis=(1, 2)) - start_weight(t)
            pi0 = _aim((past.S + start_weight(t)).mean(axis=1), left, rule)
            past = yield event(pi0[:, None].repeat(2, axis=1), nested(rng))

    return stream


def bold_by_level(rng: np.random.Generator) -> Stream:
    """Bold play on each level by itself, with levels that know nothing of each other."""
    S, t = np.zeros((SUBJECTS, 2, GRID.size)), 0
    while True:
        t += 1
        pi0 = _aim(S + start_weight(t), unspent(t), RULE)
        S = (yield event(pi0, rng.random((SUBJECTS, 2)))).S


def _aim(S: Floats, left: Floats, rule: EvidenceRule) -> Floats:
    """The π₀ at which ``mean_q S·(1 − g + g/π₀) + left`` is 1/α."""
    after_miss = (S * (1.0 - GRID)).mean(axis=-1) + left
    stake = (S * GRID).mean(axis=-1)
    aim: Floats = np.clip(stake / np.maximum(rule.threshold - after_miss, 1e-9), 1e-9, 1.0)
    return aim


def health_check(rng: np.random.Generator) -> Stream:
    """Posts its latest picture again half the time; novel pictures are foreign with probability π₀."""
    pi0 = np.full((SUBJECTS, 2), (0.12, 0.03))
    latest = np.zeros((SUBJECTS, 2), dtype=bool)
    first = True
    while True:
        duplicate = (rng.random(SUBJECTS) < 0.5) & (not first)
        novel = nested(rng) < pi0
        latest, first = np.where(duplicate[:, None], latest, novel), False
        yield Event(pi0, latest, duplicate)


# --- the recursion, and its mutants -----------------------------------------------------------------


class Judge:
    """The contract as the monitor drives it, one method a line of it."""

    def bound(self, now: Event, before: Event | None) -> Floats:
        return now.pi0

    def outcome(self, now: Event) -> Bools:
        return now.foreign & ~now.duplicate[:, None]

    def weight(self, t: int) -> float:
        return float(start_weight(t))

    def left(self, t: int) -> float:
        return float(unspent(t))

    def step(self, S: Floats, w: Floats, hits: Bools, pi0: Floats) -> Floats:
        return step(S, w, ratios(hits, pi0), RULE.ceiling)

    def combine(self, S: Floats, left: Floats) -> Floats:
        return evidence(S, left, RULE.weights)


class HalvedBound(Judge):
    def bound(self, now: Event, before: Event | None) -> Floats:
        return 0.5 * now.pi0


class LateBound(Judge):
    """π₀ of the event before: right on average, wrong when it matters."""

    def bound(self, now: Event, before: Event | None) -> Floats:
        return now.pi0 if before is None else before.pi0


class BoundByOutcome(Judge):
    """π₀ settled after the outcome is known (a baseline switched by the query it judges)."""

    def bound(self, now: Event, before: Event | None) -> Floats:
        return np.where(now.foreign, 0.9 * now.pi0, now.pi0)


class DuplicatesAreHits(Judge):
    def outcome(self, now: Event) -> Bools:
        return now.foreign


class WeightsSumToTwo(Judge):
    def weight(self, t: int) -> float:
        return 2.0 * super().weight(t)

    def left(self, t: int) -> float:
        return 2.0 * super().left(t)


class NeverSpent(Judge):
    """Start weights go into S and stay in the account, too."""

    def left(self, t: int) -> float:
        return 1.0


class FreshStarts(Judge):
    """CUSUM: a full start at every event. Quick, and suspects everyone in the end."""

    def weight(self, t: int) -> float:
        return 0.5


class MissesForgotten(Judge):
    def step(self, S: Floats, w: Floats, hits: Bools, pi0: Floats) -> Floats:
        return np.where(hits[..., None], super().step(S, w, hits, pi0), S + w[:, None, None])


class MissesFloored(Judge):
    """Evidence below 1 is lifted to 1 again (closing a finding that resets the account)."""

    def step(self, S: Floats, w: Floats, hits: Bools, pi0: Floats) -> Floats:
        return np.maximum(0.5, super().step(S, w, hits, pi0))


class BestLevel(Judge):
    def combine(self, S: Floats, left: Floats) -> Floats:
        best: Floats = S.mean(axis=-1).max(axis=-1) + left
        return best


class BestAlternative(Judge):
    def combine(self, S: Floats, left: Floats) -> Floats:
        best: Floats = S.mean(axis=1).max(axis=-1) + left
        return best


# --- the check --------------------------------------------------------------------------------------


def assert_seldom(suspected: Bools, rule: EvidenceRule = RULE) -> None:
    """Fails when the count refutes P(ever suspected) <= α (exact binomial, one-sided)."""
    count = int(suspected.sum())
    probability = binom.sf(count - 1, suspected.size, rule.alpha)
    assert probability >= WRONG_REFUSAL, f"{count} of {suspected.size} benign subjects suspected"


def ever_suspected(judge: Judge, stream: Stream, rule: EvidenceRule = RULE) -> Bools:
    S = np.zeros((SUBJECTS, 2, GRID.size))
    suspected = np.zeros(SUBJECTS, dtype=bool)
    now, before = next(stream), None
    for t in range(1, EVENTS + 1):
        S = judge.step(S, np.full(SUBJECTS, judge.weight(t)), judge.outcome(now), judge.bound(now, before))
        E = judge.combine(S, np.full(SUBJECTS, judge.left(t)))
        suspected |= np.greater_equal(E, rule.threshold)
        now, before = stream.send(Past(S, E)), now
    return suspected


realistic = always(0.12, 0.03)
finely = always(0.6, 0.5)
"""Small steps: evidence seldom jumps far past 1/α."""

EVEN = EvidenceRule(alpha=0.5, weights=(0.5, 0.5))
"""A mistake that adds a constant to E shows where 1/α is small."""

STREAMS: dict[str, Adversary] = {
    "realistic": realistic,
    "finely": finely,
    "rare": always(0.01, 0.002),
    "unrelated levels": unrelated,
    "opposed levels": opposed,
    "after hits": after_hits,
    "while hopeful": while_hopeful,
    "bursts": bursts,
    "wandering bound": wandering,
    "announced bound": announced,
    "bold": bold(RULE),
    "bold by level": bold_by_level,
    "health check": health_check,
}

MUTANTS: list[tuple[type[Judge], Adversary, EvidenceRule]] = [
    (HalvedBound, realistic, RULE),
    (LateBound, announced, RULE),
    (BoundByOutcome, finely, RULE),
    (DuplicatesAreHits, health_check, RULE),
    (WeightsSumToTwo, bold(RULE), RULE),
    (NeverSpent, bold(EVEN), EVEN),
    (FreshStarts, realistic, RULE),
    (MissesForgotten, realistic, RULE),
    (MissesFloored, realistic, RULE),
    (BestLevel, bold_by_level, RULE),
    (BestAlternative, finely, RULE),
]


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_benign_subjects_are_seldom_ever_suspected(stream: Adversary) -> None:
    assert_seldom(ever_suspected(Judge(), stream(np.random.default_rng(20261122))))


def test_benign_subjects_are_seldom_ever_suspected_at_another_alpha() -> None:
    assert_seldom(ever_suspected(Judge(), bold(EVEN)(np.random.default_rng(20261122)), EVEN), EVEN)


def test_bold_play_uses_most_of_alpha() -> None:
    """The bound is nearly sharp: a contract that wasted α would be slow against thieves."""
    suspected = ever_suspected(Judge(), bold(RULE)(np.random.default_rng(20261122)))
    assert suspected.mean() > 0.75 * RULE.alpha


@pytest.mark.parametrize(("mutant", "stream", "rule"), MUTANTS, ids=[m[0].__name__ for m in MUTANTS])
def test_mutants_of_the_recursion_are_caught(
    mutant: type[Judge], stream: Adversary, rule: EvidenceRule
) -> None:
    suspected = ever_suspected(mutant(), stream(np.random.default_rng(20261122)), rule)
    with pytest.raises(AssertionError, match="benign subjects suspected"):
        assert_seldom(suspected, rule)


# --- groups: buckets of counts, watched at every event, fed by members who are not suspects -----------

GROUPS = 2000
MEMBERS = 5
BUCKET = 16
HANDED_OVER = 10.0
"""A member's events feed its groups only while the member's own E is below this before the event."""


def groups_ever_suspected(rng: np.random.Generator, select_by_outcome: bool) -> Bools:
    """Members take turns at random, and hit with probability π₀ or, when their past says so, never."""
    pi0 = np.array([0.4, 0.25])
    own = np.zeros((GROUPS, MEMBERS, 2, GRID.size))
    own_t = np.zeros((GROUPS, MEMBERS), dtype=np.int64)
    S, bucket = np.zeros((GROUPS, 2, GRID.size)), np.ones(GROUPS, dtype=np.int64)
    hits, trials = np.zeros((GROUPS, 2), dtype=np.int64), np.zeros(GROUPS, dtype=np.int64)
    suspected, everyone = np.zeros(GROUPS, dtype=bool), np.arange(GROUPS)
    for t in range(1, EVENTS + 1):
        who = everyone, rng.integers(0, MEMBERS, GROUPS)
        eligible = evidence(own[who], unspent(own_t[who]), RULE.weights) < HANDED_OVER
        # At the bound, but in every third bucket clients that left the group's account are silent.
        outcome = (rng.random((GROUPS, 1)) < pi0) & ((bucket % 3 != 0) | eligible)[:, None]
        own_t[who] += 1
        own[who] = step(own[who], start_weight(own_t[who]), ratios(outcome, pi0), RULE.ceiling)
        if select_by_outcome:
            eligible = evidence(own[who], unspent(own_t[who]), RULE.weights) >= 1.0
        hits += outcome & eligible[:, None]
        trials += eligible
        now = run_bucket(S, start_weight(bucket), hits, trials, pi0, RULE.ceiling)
        E = evidence(now, unspent(bucket), RULE.weights)
        suspected |= np.greater_equal(E, RULE.threshold)
        if t % BUCKET == 0:
            S, bucket = now, bucket + 1
            hits[:], trials[:] = 0, 0
    return suspected


def test_groups_are_seldom_ever_suspected() -> None:
    assert_seldom(groups_ever_suspected(np.random.default_rng(7), select_by_outcome=False))


def test_feeding_groups_by_what_the_event_itself_did_is_caught() -> None:
    """The mutant asks the member's E after the event, which the outcome has already moved."""
    with pytest.raises(AssertionError, match="benign subjects suspected"):
        assert_seldom(groups_ever_suspected(np.random.default_rng(7), select_by_outcome=True))


def test_the_check_has_room_for_neither_luck_nor_sloth() -> None:
    """α itself passes; a quarter more does not."""
    rng: np.random.Generator = np.random.default_rng(1)
    exactly: Any = rng.random(SUBJECTS) < RULE.alpha
    assert_seldom(exactly)
    with pytest.raises(AssertionError):
        assert_seldom(rng.random(SUBJECTS) < 1.25 * RULE.alpha)
