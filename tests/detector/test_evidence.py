"""The evidence contract, exactly: expectations by enumeration, forms that must agree, and the edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.errors import DetectorError
from detector.evidence import (
    GRID,
    EvidenceRule,
    evidence,
    exposure,
    log_ratios,
    ratios,
    run_bucket,
    start_weight,
    step,
    unspent,
)

RULE = EvidenceRule(weights=(0.5, 0.5))
BOUNDS = np.array([0.12, 0.03])
DEPTH = 8


def fresh(m: int, levels: int = 2) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.zeros((m, levels, GRID.size))


class Tree:
    """Every sequence of two outcomes, with its probability: all of a subject's possible futures.

    Each prefix draws its own bounds, its own rates (``slack`` times the bounds) and its own dependence
    between the two levels, so the stream is as adversarial as a predictable one can be. A prefix whose
    evidence has crossed 3 stops there if ``stopping``.
    """

    def __init__(self, seed: int, slack: float, cap: float, stopping: bool = False) -> None:
        rng = np.random.default_rng(seed)
        S, probability, stopped, E = fresh(1), np.ones(1), np.zeros(1, dtype=bool), np.ones(1)
        for t in range(1, DEPTH + 1):
            pi0 = rng.uniform(0.01, 0.99, (probability.size, 2))
            p, q = (slack * pi0).T
            both = rng.uniform(np.maximum(0.0, p + q - 1.0), np.minimum(p, q))
            children = np.stack([1.0 - p - q + both, q - both, p - both, both], axis=1)
            hits = np.tile(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=bool), (probability.size, 1))
            w = np.full(hits.shape[0], start_weight(t))
            S = step(S.repeat(4, axis=0), w, ratios(hits, pi0.repeat(4, axis=0)), cap)
            probability = (probability[:, None] * children).ravel()
            now = evidence(S, np.full(w.size, unspent(t)), (0.3, 0.7))
            stopped = stopped.repeat(4)
            E = np.where(stopped, E.repeat(4), now)
            if stopping:
                stopped |= E >= 3.0
        self.probability, self.evidence = probability, E

    @property
    def expectation(self) -> float:
        return float(self.probability @ self.evidence)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("stopping", [False, True])
def test_evidence_is_a_martingale_at_the_bound(seed: int, stopping: bool) -> None:
    tree = Tree(seed, slack=1.0, cap=np.inf, stopping=stopping)
    assert tree.probability.sum() == pytest.approx(1.0, abs=1e-12)
    assert tree.expectation == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("slack", "cap"), [(1.0, 2.0), (0.9, np.inf), (0.5, 2.0)])
def test_evidence_expects_less_below_the_bound_or_capped(slack: float, cap: float) -> None:
    assert Tree(0, slack=slack, cap=cap).expectation < 1.0


def test_a_rate_above_the_bound_expects_more() -> None:
    assert Tree(0, slack=1.01, cap=np.inf).expectation > 1.0


def test_ratios_are_those_of_alternatives_between_the_bound_and_one() -> None:
    q = BOUNDS[:, None] + (1.0 - BOUNDS[:, None]) * GRID
    hit, miss = log_ratios(BOUNDS)
    np.testing.assert_allclose(hit, np.log(q / BOUNDS[:, None]), rtol=1e-12)
    np.testing.assert_allclose(miss, np.log((1.0 - q) / (1.0 - BOUNDS[:, None])), rtol=1e-12)
    for outcome, ratio in ((True, hit), (False, miss)):
        S = step(fresh(1), np.ones(1), ratios(np.full((1, 2), outcome), BOUNDS), np.inf)
        np.testing.assert_allclose(S[0], np.exp(ratio), rtol=1e-12)


def test_the_grid_holds_twelve_rising_fractions_that_nobody_changes() -> None:
    assert GRID.shape == (12,)
    assert np.all(np.diff(GRID) > 0.0)
    assert GRID[0] > 0.0
    assert GRID[-1] < 1.0
    with pytest.raises(ValueError, match="read-only"):
        GRID[0] = 0.5


def test_start_weights_spend_half_at_once_and_never_more_than_one() -> None:
    t = np.arange(1, 100_001)
    weights = start_weight(t)
    assert weights[0] == 0.5
    assert np.all(weights > 0.0)
    assert np.all(np.diff(weights) < 0.0)
    assert weights.sum() + unspent(t[-1]) == pytest.approx(1.0, abs=1e-12)
    assert unspent(0) == 1.0
    np.testing.assert_allclose(weights[1000:] * t[1000:] * (1.0 + np.log(t[1000:])) ** 2, 0.5, rtol=1e-3)


@given(
    hits=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60),
    bounds=st.tuples(st.floats(1e-4, 1.0), st.floats(1e-4, 1.0)),
    start=st.floats(0.0, 1e5),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_a_bucket_is_its_events_in_any_order(
    hits: list[tuple[bool, bool]], bounds: tuple[float, float], start: float, order: Any
) -> None:
    pi0 = np.array(bounds)
    S = before = np.full((1, 2, GRID.size), start)
    order.shuffle(hits)
    for position, outcome in enumerate(hits):
        S = step(S, np.array([0.25 if position == 0 else 0.0]), ratios(np.array([outcome]), pi0), np.inf)
    counts, trials = np.array([hits]).sum(axis=1), np.array([len(hits)])
    bucket = run_bucket(before, np.array([0.25]), counts, trials, pi0, 1e300)
    np.testing.assert_allclose(bucket, np.minimum(S, 1e300), rtol=1e-9)


def test_a_bucket_of_a_billion_events_stays_in_range() -> None:
    trials = np.array([10**9, 10**9, 0])
    hits = np.array([[10**9, 10**9], [0, 0], [0, 0]])
    S = run_bucket(fresh(3), np.array([0.5, 0.5, 0.0]), hits, trials, BOUNDS, RULE.ceiling)
    np.testing.assert_allclose(S[0], RULE.ceiling, rtol=1e-12)
    assert np.all(S[1:] == 0.0)


def test_a_subject_has_the_same_bits_in_every_batch() -> None:
    rng = np.random.default_rng(5)
    m = 67
    S, w = rng.exponential(1.0, (m, 2, GRID.size)), start_weight(rng.integers(1, 5000, m))
    pi0, hits = rng.uniform(0.01, 0.3, (m, 2)), rng.random((m, 2)) < 0.3
    trials = rng.integers(1, 500, m)
    counts = rng.integers(0, trials[:, None] + 1, (m, 2))

    def run(rows: slice) -> list[bytes]:
        after = step(S[rows], w[rows], ratios(hits[rows], pi0[rows]), RULE.ceiling)
        bucket = run_bucket(S[rows], w[rows], counts[rows], trials[rows], pi0[rows], RULE.ceiling)
        E = evidence(after, unspent(trials[rows]), RULE.weights)
        return [
            b"".join(row) for row in zip(map(bytes, after), map(bytes, bucket), map(bytes, E), strict=True)
        ]

    alone = [run(slice(i, i + 1))[0] for i in range(m)]
    assert run(slice(0, m)) == alone
    assert run(slice(0, 31)) + run(slice(31, m)) == alone
    assert run(slice(m, m)) == []


def test_state_is_as_large_and_as_quick_after_a_long_honest_life() -> None:
    """A client that turns after 20,000 honest queries is suspected within a dozen more."""
    S = fresh(1)
    missed = np.zeros((1, 2), dtype=bool)
    for t in range(1, 20_001):
        S = step(S, start_weight([t]), ratios(missed, BOUNDS), RULE.ceiling)
    assert S.shape == (1, 2, GRID.size)
    assert evidence(S, unspent([20_000]), RULE.weights)[0] < 0.1
    for t in range(20_001, 20_013):
        S = step(S, start_weight([t]), ratios(~missed, BOUNDS), RULE.ceiling)
    assert evidence(S, unspent([20_012]), RULE.weights)[0] >= RULE.threshold


def test_suspicion_is_able_to_lapse() -> None:
    S = np.full((1, 2, GRID.size), RULE.ceiling)
    S = step(S, np.zeros(1), ratios(np.ones((1, 2), dtype=bool), BOUNDS), RULE.ceiling)
    np.testing.assert_array_equal(S, RULE.ceiling)
    for t in range(10_000, 11_000):
        S = step(S, start_weight([t]), ratios(np.zeros((1, 2), dtype=bool), BOUNDS), RULE.ceiling)
    assert evidence(S, unspent([11_000]), RULE.weights)[0] < 1.0


def test_levels_are_weighted() -> None:
    S = fresh(1)
    S[0, 0] = 8.0
    assert evidence(S, np.array([0.5]), (0.25, 0.75))[0] == pytest.approx(2.5)
    assert evidence(fresh(1), unspent([0]), RULE.weights)[0] == 1.0


def test_exposure_is_the_excess_over_an_honest_client() -> None:
    G = np.array([0.0, 3.0, 10.0])
    grown = exposure(G, np.array([True, False, False]), np.ones(3, dtype=int), 0.05)
    np.testing.assert_allclose(grown, [0.95, 2.95, 9.95])
    np.testing.assert_allclose(
        exposure(G, np.array([5, 0, 2]), np.array([20, 100, 20]), 0.1), [3.0, 0.0, 10.0]
    )
    np.testing.assert_allclose(
        exposure(G, np.zeros(3, dtype=int), np.full(3, 10), np.array([0.0, 0.1, 0.2])), [0, 2, 8]
    )


@pytest.mark.parametrize("bound", [0.0, -0.1, 1.1, np.nan])
def test_a_bound_that_is_no_probability_is_refused(bound: float) -> None:
    pi0 = np.array([0.1, bound])
    one = np.ones(1)
    with pytest.raises(DetectorError, match="π₀ is outside"):
        log_ratios(pi0)
    with pytest.raises(DetectorError, match="π₀ is outside"):
        step(fresh(1), one, ratios(np.zeros((1, 2), dtype=bool), pi0), RULE.ceiling)
    with pytest.raises(DetectorError, match="π₀ is outside"):
        run_bucket(fresh(1), one, np.zeros((1, 2), dtype=int), np.ones(1, dtype=int), pi0, RULE.ceiling)


def test_a_bucket_with_more_hits_than_events_is_refused() -> None:
    with pytest.raises(DetectorError, match="more hits than events"):
        run_bucket(fresh(1), np.ones(1), np.array([[1, 2]]), np.array([1]), BOUNDS, RULE.ceiling)


def test_the_rule_has_the_documented_defaults() -> None:
    assert (RULE.alpha, RULE.threshold, RULE.ceiling, RULE.alert_exposure) == (0.001, 1000.0, 100_000.0, 25.0)
    assert RULE.weights == (0.5, 0.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", 0.0),
        ("alpha", 1.0),
        ("alpha", float("nan")),
        ("cap", 0.5),
        ("cap", float("inf")),
        ("weights", (0.5, 0.6)),
        ("weights", (1.5, -0.5)),
        ("weights", ()),
        ("alert_exposure", 0.0),
    ],
)
def test_a_rule_that_would_break_the_promise_is_refused(field: str, value: Any) -> None:
    with pytest.raises(DetectorError, match=field):
        EvidenceRule(**{field: value})
