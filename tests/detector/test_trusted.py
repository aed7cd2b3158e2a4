"""Benign rates from a trusted history."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detector.rates import DEFAULT_MARGIN, DEFAULT_RATES
from detector.signals import CHANNELS
from detector.trusted import rates_of
from tests.detector.world import Query, baseline, batch, foreign, native, queries

AT_FIVE, AT_ONE, DEEP, COVERAGE, PERTURBATION, BOUNDARY = range(len(CHANNELS))


def history(clients: int, each: int, seed: int = 200) -> list[Query]:
    log = [query for k in range(clients) for query in queries(f"c{k}", native(each, seed=seed + k), seed=k)]
    return [log[i] for i in np.random.default_rng(0).permutation(len(log)).tolist()]


def test_rates_are_those_of_the_clients_however_the_history_is_cut() -> None:
    log = history(20, 100)
    whole = rates_of(baseline(), [batch(log)])
    cut = rates_of(baseline(), (batch(log[i : i + 37], i) for i in range(0, len(log), 37)))
    assert whole == cut
    first = whole.channels[0]
    assert (first.clients, first.queries, first.source) == (20, 2000, "trusted history")
    verdict = baseline().judge(np.array([query.embedding for query in log]))
    assert abs(whole.mean[0] - verdict.foreign[:, 0].mean()) < 0.02
    assert 0.05 <= whole.bound[0] < 0.15


def test_repeats_are_queries_but_not_hits() -> None:
    odd = foreign(20, seed=1)
    once = history(20, 50) + [Query(f"c{k}", odd[k], k + 1 << 20) for k in range(20)]
    often = once + once[-20:] * 10
    rates = rates_of(baseline(), [batch(often)])
    assert rates.channels[0].queries == 20 * 50 + 20 * 11
    assert rates.mean[0] <= rates_of(baseline(), [batch(once)]).mean[0]


def test_too_short_a_history_gives_the_defaults() -> None:
    few, none = rates_of(baseline(), [batch(history(3, 20))]), rates_of(baseline(), [])
    assert all("3 clients" in rate.source for rate in few.channels[:-1])
    assert "would be" in few.channels[0].source
    assert all("0 clients" in rate.source for rate in none.channels)
    assert few.bound == none.bound == DEFAULT_RATES.bound


def test_clients_who_draw_from_the_domain_have_a_coverage_factor_of_about_one() -> None:
    rates = rates_of(baseline(), [batch(history(40, 100))])
    assert rates.mean[COVERAGE] == pytest.approx(1.0, abs=0.15)
    assert 1.0 <= rates.bound[COVERAGE] < 1.5
    assert rates.bound[PERTURBATION] == DEFAULT_RATES.bound[PERTURBATION]
    assert rates.bound[DEEP] >= 0.002
    assert rates.outliers == ()


def test_the_boundary_is_set_by_some_clients_and_counted_on_the_others() -> None:
    rng = np.random.default_rng(3)
    log = [replace(query, margin=float(rng.beta(4, 1))) for query in history(40, 100)]
    rates = rates_of(baseline(), [batch(log)])
    assert rates.margin == pytest.approx(0.05**0.25, abs=0.02)  # the 5 % quantile of Beta(4, 1)
    assert (rates.channels[BOUNDARY].clients, rates.channels[BOUNDARY].source) == (20, "trusted history")
    # Five in a hundred were unsure, which does not lower the cautious defaults.
    assert rates.mean[BOUNDARY] == DEFAULT_RATES.mean[BOUNDARY]
    assert rates.bound[BOUNDARY] == DEFAULT_RATES.bound[BOUNDARY]


def test_clients_of_a_hard_class_raise_the_boundary() -> None:
    rng = np.random.default_rng(3)
    hard = {f"c{k}" for k in (1, 3, 5, 7)}  # whose answers set no threshold
    log = [
        replace(query, margin=float(rng.random() if query.client in hard else rng.beta(4, 1)))
        for query in history(40, 100)
    ]
    rates = rates_of(baseline(), [batch(log)])
    assert rates.bound[BOUNDARY] > 1.5 * DEFAULT_RATES.bound[BOUNDARY]


def test_repeats_of_an_unsure_answer_do_not_set_the_boundary() -> None:
    rng = np.random.default_rng(3)
    log = [replace(query, margin=float(rng.beta(4, 1))) for query in history(40, 100)]
    once = [replace(log[0], client=f"c{k}", margin=0.0) for k in range(40)]
    rates, often = (rates_of(baseline(), [batch(log + once * times)]) for times in (1, 60))
    assert often.margin == rates.margin
    assert often.mean[BOUNDARY] <= rates.mean[BOUNDARY]


def test_a_log_without_scores_leaves_the_boundary_at_its_default() -> None:
    rates = rates_of(baseline(), [batch(history(40, 20))])
    assert rates.margin == DEFAULT_MARGIN
    assert rates.channels[BOUNDARY].bound == DEFAULT_RATES.bound[BOUNDARY]
    assert "0 clients that this signal can judge" in rates.channels[BOUNDARY].source


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_thief_in_the_trusted_history_is_left_out_and_named(share: float) -> None:
    clean = history(29, 100)
    theirs = np.random.default_rng(4).random(150) < share
    vectors = np.where(theirs[:, None], foreign(150, seed=5), native(150, seed=5))
    log = clean + queries("the thief", vectors, seed=5)
    log = [log[i] for i in np.random.default_rng(6).permutation(len(log)).tolist()]
    rates, expected = rates_of(baseline(), [batch(log)]), rates_of(baseline(), [batch(clean)])
    assert rates.outliers == ("the thief",)
    assert expected.outliers == ()
    assert rates.bound == pytest.approx(expected.bound, rel=0.05)
    assert rates.channels[0].clients == 29


def test_honest_clients_of_fifty_histories_are_not_named() -> None:
    """Each channel may name somebody in one history of ten thousand."""
    named = [rates_of(baseline(), [batch(history(20, 40, seed=1000 + 20 * i))]).outliers for i in range(50)]
    assert named == [()] * 50
