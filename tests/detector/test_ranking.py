"""e-BH: the definition, the false discovery rate it promises, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.errors import DetectorError
from detector.ranking import e_bh


def by_definition(values: list[float], level: float) -> int:
    ranked = sorted(values, reverse=True)
    passing = [k for k in range(1, len(ranked) + 1) if level * k * ranked[k - 1] >= len(ranked)]
    return max(passing, default=0)


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 5.0, 20.0, 40.0, 1e3, 1e5]), max_size=40),
    st.sampled_from([0.05, 0.5, 1.0]),
)
def test_lists_the_largest_k_that_passes(values: list[float], level: float) -> None:
    evidence = np.array(values)
    listed = e_bh(evidence, level)
    assert listed.shape == evidence.shape
    assert listed.sum() == by_definition(values, level)
    if 0 < listed.sum() < listed.size:
        assert evidence[listed].min() > evidence[~listed].max()


@given(st.lists(st.floats(0.0, 1e5), min_size=1, max_size=40), st.sampled_from([0.05, 0.25]))
def test_subjects_without_evidence_need_not_be_loaded(values: list[float], level: float) -> None:
    evidence = np.array(values)
    candidates = evidence >= 1.0 / level
    listed = np.zeros(evidence.shape, dtype=bool)
    listed[candidates] = e_bh(evidence[candidates], level, judged=evidence.size)
    np.testing.assert_array_equal(listed, e_bh(evidence, level))


@pytest.mark.parametrize("shared", [False, True])
def test_bounds_the_false_discovery_rate(shared: bool) -> None:
    """E-values of benign subjects with expectation exactly 1, independent or all the same."""
    rng = np.random.default_rng(0)
    level, lists, benign = 0.2, 4000, 40
    share = []
    for _ in range(lists):
        # Twenty with probability 1/20: the two-point e-value that a test has the least room with.
        draws = np.full(benign, rng.random()) if shared else rng.random(benign)
        nulls = np.where(draws < 1 / 20, 20.0, 0.0)
        listed = e_bh(np.concatenate([nulls, np.full(10, 100.0)]), level)
        share.append(listed[:benign].sum() / max(1, listed.sum()))
    assert np.mean(share) - 4.0 * np.std(share) / np.sqrt(lists) <= level


def test_lists_nobody_when_nobody_was_judged() -> None:
    assert e_bh(np.empty(0), 0.05).shape == (0,)


def test_refuses_what_is_no_evidence() -> None:
    with pytest.raises(DetectorError, match="level is 0"):
        e_bh(np.ones(3), 0.0)
    with pytest.raises(DetectorError, match="not a number"):
        e_bh(np.array([1.0, np.nan]), 0.05)
    with pytest.raises(DetectorError, match="negative"):
        e_bh(np.array([1.0, -2.0]), 0.05)
    with pytest.raises(DetectorError, match="2 subjects judged but 3"):
        e_bh(np.ones(3), 0.05, judged=2)
