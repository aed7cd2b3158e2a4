"""Benign rates: does the bound cover the clients that it speaks of?"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binom

from detector.rates import DEFAULT_RATES, MINIMUM_CLIENTS, BenignRates, fit_rates


def fit(rates: np.ndarray, trials: np.ndarray, seed: int) -> BenignRates:
    rng = np.random.default_rng(seed)
    return fit_rates(trials, np.stack([rng.binomial(trials, rates), rng.binomial(trials, rates / 5)], axis=1))


@pytest.mark.parametrize(("mean", "overdispersion"), [(0.05, 0.01), (0.03, 0.05)])
def test_the_bound_is_above_the_share_of_clients_with_the_stated_confidence(
    mean: float, overdispersion: float
) -> None:
    rng = np.random.default_rng(1)
    a, b = mean * (1 / overdispersion - 1), (1 - mean) * (1 / overdispersion - 1)
    quantile = beta.ppf(0.95, a, b)
    runs = 60
    trials = np.full(60, 300)
    covered = sum(fit(rng.beta(a, b, 60), trials, seed).bound[0] >= quantile for seed in range(runs))
    assert covered >= binom.ppf(0.001, runs, 0.95)


def test_more_history_makes_a_tighter_bound_that_stays_above_the_mean() -> None:
    rng = np.random.default_rng(2)
    bounds = []
    for clients, queries in ((12, 20), (12, 500), (200, 500)):
        runs = [fit(rng.beta(5, 95, clients), np.full(clients, queries), seed) for seed in range(8)]
        assert all(one.mean[0] < one.allowance[0] < one.bound[0] < 1.0 for one in runs)
        assert (runs[0].clients, runs[0].queries) == (clients, clients * queries)
        bounds.append(np.mean([one.bound[0] for one in runs]))
    assert bounds[0] > bounds[1] > bounds[2]
    assert bounds[2] == pytest.approx(beta.ppf(0.95, 5, 95), rel=0.15)


def test_the_bound_never_falls_below_the_nominal_level() -> None:
    fitted = fit_rates(np.full(50, 10_000), np.zeros((50, 2), np.int64))
    assert fitted.bound == (0.05, 0.01)
    assert fitted.mean[0] < 0.01


def test_repeated_counts_weigh_like_as_many_clients() -> None:
    """The likelihood is summed over distinct counts; that must not change it."""
    rng = np.random.default_rng(4)
    trials = rng.integers(5, 8, size=700)
    hits = np.stack([rng.binomial(trials, 0.1), rng.binomial(trials, 0.02)], axis=1)
    order = rng.permutation(700)
    shuffled = fit_rates(trials[order], hits[order])
    assert fit_rates(trials, hits).bound == pytest.approx(shuffled.bound, rel=1e-12)
    assert shuffled.bound[0] < fit_rates(trials[:40], hits[:40]).bound[0]


def test_too_few_clients_give_the_defaults_and_say_why() -> None:
    few = MINIMUM_CLIENTS - 1
    fitted = fit_rates(np.full(few, 100), np.zeros((few, 2), np.int64))
    assert (fitted.bound, fitted.mean) == (DEFAULT_RATES.bound, DEFAULT_RATES.mean)
    assert f"{few} clients" in fitted.source
    assert fitted.clients == few
