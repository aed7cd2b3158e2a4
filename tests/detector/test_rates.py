"""Benign rates: does the bound cover the clients that it speaks of, and who does not belong with them?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import beta, binom, gamma

from detector.rates import CONFIDENCE, DEFAULT_RATES, MINIMUM_CLIENTS, SHARE, fit_rate, outliers
from detector.signals import CHANNELS, Channel, Signal

AT_FIVE, AT_ONE, DEEP, COVERAGE, PERTURBATION, BOUNDARY = CHANNELS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def hits_of(rates: Floats, trials: Floats, seed: int) -> Ints:
    return np.random.default_rng(seed).binomial(trials.astype(np.int64), rates)


def same(trials: float, clients: int) -> Floats:
    return np.full(clients, float(trials))


@pytest.mark.parametrize(("mean", "overdispersion"), [(0.05, 0.01), (0.03, 0.05)])
def test_the_bound_is_above_the_share_of_clients_with_the_stated_confidence(
    mean: float, overdispersion: float
) -> None:
    rng = np.random.default_rng(1)
    a, b = mean * (1 / overdispersion - 1), (1 - mean) * (1 / overdispersion - 1)
    runs, trials = 60, same(300, 60)
    bounds = [
        fit_rate(AT_FIVE, trials, hits_of(rng.beta(a, b, 60), trials, seed), 18_000).bound
        for seed in range(runs)
    ]
    covered = sum(bound >= beta.ppf(SHARE, a, b) for bound in bounds)
    assert covered >= binom.ppf(0.001, runs, CONFIDENCE)


def test_coverage_has_a_factor_on_the_unvisited_mass() -> None:
    rng = np.random.default_rng(5)
    runs, shape, mean = 40, 30.0, 1.1
    quantile = gamma.ppf(SHARE, shape, scale=mean / shape)
    fitted = []
    for _ in range(runs):
        trials = rng.uniform(5, 60, 80)
        hits = rng.poisson(trials * rng.gamma(shape, mean / shape, 80))
        fitted.append(fit_rate(COVERAGE, trials, hits, 1))
    assert sum(one.bound >= quantile for one in fitted) >= binom.ppf(0.001, runs, CONFIDENCE)
    assert np.median([one.bound for one in fitted]) == pytest.approx(quantile, rel=0.15)
    assert np.mean([one.mean for one in fitted]) == pytest.approx(mean, rel=0.05)


def test_more_history_makes_a_tighter_bound_that_stays_above_the_mean() -> None:
    rng = np.random.default_rng(2)
    bounds = []
    for clients, queries in ((12, 20), (12, 500), (200, 500)):
        trials = same(queries, clients)
        runs = [
            fit_rate(AT_FIVE, trials, hits_of(rng.beta(5, 95, clients), trials, seed), clients * queries)
            for seed in range(8)
        ]
        assert all(one.mean < one.allowance < one.bound < 1.0 for one in runs)
        assert (runs[0].clients, runs[0].queries) == (clients, clients * queries)
        bounds.append(np.mean([one.bound for one in runs]))
    assert bounds[0] > bounds[1] > bounds[2]
    assert bounds[2] == pytest.approx(beta.ppf(0.95, 5, 95), rel=0.15)


@pytest.mark.parametrize(
    ("channel", "least"),
    [(AT_FIVE, 0.05), (AT_ONE, 0.01), (DEEP, 0.002), (COVERAGE, 1.0), (PERTURBATION, 0.25), (BOUNDARY, 0.3)],
)
def test_the_bound_never_falls_below_its_floor(channel: Channel, least: float) -> None:
    fitted = fit_rate(channel, same(10_000, 50), np.zeros(50, np.int64), 500_000)
    assert fitted.bound == pytest.approx(least, rel=1e-12)
    assert fitted.source == "trusted history"


def test_a_history_without_bursts_allows_them_still() -> None:
    """Bursts are honest and may begin any day: neither bound nor allowance falls below the default."""
    fitted = fit_rate(PERTURBATION, same(1000, 50), np.zeros(50, np.int64), 50_000)
    assert fitted.allowance == pytest.approx(DEFAULT_RATES.channels[4].allowance)
    busy = fit_rate(PERTURBATION, same(1000, 50), np.full(50, 400), 50_000)
    assert 0.4 < busy.bound < 0.5


def test_repeated_counts_weigh_like_as_many_clients() -> None:
    """The likelihood is summed over distinct counts; that must not change it."""
    rng = np.random.default_rng(4)
    trials = rng.integers(5, 8, size=700).astype(np.float64)
    hits = hits_of(np.full(700, 0.1), trials, 4)
    order = rng.permutation(700)
    shuffled = fit_rate(AT_FIVE, trials[order], hits[order], 1)
    assert fit_rate(AT_FIVE, trials, hits, 1).bound == pytest.approx(shuffled.bound, rel=1e-12)
    assert shuffled.bound < fit_rate(AT_FIVE, trials[:40], hits[:40], 1).bound


@pytest.mark.parametrize("channel", CHANNELS, ids=str)
def test_too_few_clients_give_the_default_and_say_how_wide_their_own_bound_is(channel: Channel) -> None:
    few = MINIMUM_CLIENTS - 1
    default = DEFAULT_RATES.channels[CHANNELS.index(channel)]
    fitted = fit_rate(channel, same(100, few), np.full(few, 3), 900)
    assert (fitted.bound, fitted.mean, fitted.clients) == (default.bound, default.mean, few)
    assert f"{few} clients" in fitted.source
    own = float(fitted.source.rpartition("would be ")[2])
    assert 0.03 < own < 1.0
    assert "would be" not in fit_rate(channel, same(0, 20), np.zeros(20, np.int64), 0).source


def test_clients_that_a_channel_could_not_judge_do_not_count() -> None:
    trials, hits = same(100, 40), np.full(40, 5, np.int64)
    trials[20:] = hits[20:] = 0
    assert fit_rate(AT_FIVE, trials, hits, 1) == fit_rate(AT_FIVE, trials[:20], hits[:20], 1)
    assert not outliers(AT_FIVE, trials, hits).any()


def honest(channel: Channel, clients: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """Clients whose rates differ, with histories of very different lengths."""
    trials = rng.integers(5, 400, clients).astype(np.float64)
    if channel.signal is Signal.COVERAGE:
        trials /= 4
        return trials, rng.poisson(trials * rng.gamma(40, 1 / 40, clients))
    return trials, rng.binomial(trials.astype(np.int64), rng.beta(2, 48, clients))


@pytest.mark.parametrize("channel", [AT_FIVE, COVERAGE, PERTURBATION], ids=str)
def test_a_thief_among_the_trusted_is_found_and_the_bound_stays_where_it_was(channel: Channel) -> None:
    rng = np.random.default_rng(11)
    trials, hits = honest(channel, 29, rng)
    trials, hits = np.append(trials, 200.0), np.append(hits, 190 if channel is not COVERAGE else 600)
    found = outliers(channel, trials, hits)
    assert np.flatnonzero(found).tolist() == [29]
    clean = fit_rate(channel, trials[:29], hits[:29], 1).bound
    assert fit_rate(channel, trials[~found], hits[~found], 1).bound == clean
    assert fit_rate(channel, trials, hits, 1).bound > 1.3 * clean


@pytest.mark.parametrize("channel", [AT_FIVE, COVERAGE, PERTURBATION], ids=str)
def test_honest_clients_are_no_oftener_outliers_than_was_stated(channel: Channel) -> None:
    """The chance is of any false name in a history; at 5 % fifty histories can show it."""
    rng = np.random.default_rng(12)
    histories = [honest(channel, 60, rng) for _ in range(50)]
    assert sum(outliers(channel, *one).any() for one in histories) == 0
    named = sum(outliers(channel, *one, chance=0.05).any() for one in histories)
    assert named <= binom.ppf(1 - 1e-3, 50, 0.05)


def test_no_one_is_an_outlier_among_a_few() -> None:
    trials, hits = same(100, MINIMUM_CLIENTS - 1), np.zeros(MINIMUM_CLIENTS - 1, np.int64)
    hits[0] = 100
    assert not outliers(AT_FIVE, trials, hits).any()
    assert not outliers(AT_FIVE, np.zeros(0), np.zeros(0, np.int64)).any()


def test_one_hit_in_one_query_is_no_reason_to_be_set_aside() -> None:
    trials, hits = same(200, 40), np.full(40, 8)
    trials[:6], hits[:6] = 1, 1
    assert not outliers(AT_FIVE, trials, hits).any()
