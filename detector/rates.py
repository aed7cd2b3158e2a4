"""Benign rates: how often honest clients' queries hit, as a bound over clients and as a mean, by channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, gammaln
from scipy.stats import beta, betabinom, gamma, nbinom

from detector.signals import CHANNELS, FIRST_CHANNEL, Channel, Signal

__all__ = [
    "DEFAULT_MARGIN",
    "DEFAULT_RATES",
    "MINIMUM_CLIENTS",
    "BenignRate",
    "BenignRates",
    "fit_rate",
    "outliers",
]

MINIMUM_CLIENTS = 10
"""With fewer trusted clients than this the documented defaults are used."""

SHARE = 0.95
CONFIDENCE = 0.95

DEFAULT_MARGIN = 0.05
"""Margin between the two highest scores below which an answer counts as near the boundary."""

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BenignRate:
    """The null of one channel, and where it comes from.

    Attributes:
        bound: π₀: with ``CONFIDENCE``, a share ``SHARE`` of honest clients hits less often. Of coverage: the
            factor c on the unvisited mass.
        mean: the mean rate (or factor) over honest clients.
        clients: trusted clients behind the figures; 0 for the defaults.
        queries: their queries.
        source: where the rate comes from, in words.
    """

    bound: float
    mean: float
    clients: int
    queries: int
    source: str

    @property
    def allowance(self) -> float:
        """The rate m₀ above which hits are exposure: the mean and a quarter of the way to the bound.

        At exactly the mean an honest client's exposure is a driftless reflected walk, and 77 % of clients
        would pass 25 within 20,000 queries; with the slack none of 2,000 does (docs/evidence.md).
        """
        return self.mean + 0.25 * (self.bound - self.mean)


_DEFAULT = "cautious default: no trusted history was given"


@dataclass(frozen=True, slots=True)
class BenignRates:
    """The nulls of all channels.

    Attributes:
        channels: in the order of `detector.signals.CHANNELS`.
        margin: margin between the two highest scores below which a query hits the boundary channel.
        share: share of honest clients that live below the fitted bounds; 0 where all are defaults.
        confidence: posterior probability that a bound holds for that share.
        outliers: trusted clients that were left out, being unlike the others, most unlike first.
    """

    channels: tuple[BenignRate, ...]
    margin: float = DEFAULT_MARGIN
    share: float = 0.0
    confidence: float = 0.0
    outliers: tuple[str, ...] = ()

    @property
    def bound(self) -> tuple[float, ...]:
        """π₀ by channel."""
        return tuple(rate.bound for rate in self.channels)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean rates by channel."""
        return tuple(rate.mean for rate in self.channels)

    @property
    def allowance(self) -> tuple[float, ...]:
        """m₀ by signal, on the channel that its exposure is counted on."""
        return tuple(self.channels[place].allowance for place in FIRST_CHANNEL)


_DEFAULTS = {
    # (π₀, mean). About 2.4 to 3 times the nominal levels for photographs that nobody vetted.
    Channel(Signal.OUT_OF_DOMAIN, 0.05): (0.12, 0.05),
    Channel(Signal.OUT_OF_DOMAIN, 0.01): (0.03, 0.01),
    Channel(Signal.OUT_OF_DOMAIN, 0.002): (0.01, 0.002),
    # A client who draws from the whole domain has a factor of 1.
    Channel(Signal.COVERAGE): (1.5, 1.0),
    # Retakes and bursts: every fifth picture may be a new shot of an earlier one.
    Channel(Signal.PERTURBATION): (0.25, 0.1),
    # What share of its answers a model is unsure of is not known before it has been watched.
    Channel(Signal.BOUNDARY): (0.3, 0.1),
}

DEFAULT_RATES = BenignRates(
    tuple(
        BenignRate(bound, mean, 0, 0, _DEFAULT)
        for bound, mean in (_DEFAULTS[channel] for channel in CHANNELS)
    )
)
"""Used without a trusted history."""

_FLOOR = {Signal.OUT_OF_DOMAIN: 1.0, Signal.COVERAGE: 1.0, Signal.PERTURBATION: 0.25, Signal.BOUNDARY: 0.3}
"""Least bound of a fitted rate. Out of domain: in units of τ. Perturbation and boundary: bursts are honest
and may begin any day, and so may a client who asks for nothing but the class that the model finds hardest; a
history without any does not lower the defaults."""

_MOST = {Signal.OUT_OF_DOMAIN: 0.9, Signal.COVERAGE: 3.0, Signal.PERTURBATION: 0.9, Signal.BOUNDARY: 0.9}


def fit_rate(channel: Channel, trials: _Floats, hits: _Ints, queries: int) -> BenignRate:
    """Fit one channel's benign rate on the clients of a trusted history.

    Each client's hits are binomial with a rate of its own, and the rates are Beta-distributed over clients
    with mean μ and overdispersion ρ; of coverage, where a trial is a share of unvisited mass, they are
    Poisson and Gamma. The posterior of (μ, ρ) is computed on a grid under log-uniform priors, so few clients
    or short histories make a wide, cautious bound rather than a wrong one. π₀ is the ``CONFIDENCE`` quantile,
    over that posterior, of the ``SHARE`` quantile over clients: a Bayesian tolerance bound (Krishnamoorthy
    and Mathew 2009, chapter 11). The clients were scored with the same calibration images as every later
    query, so calibration uncertainty is inside their rates. π₀ is never put below the channel's floor.

    Args:
        channel: whose.
        trials: of each client: queries that the channel could judge, duplicates included; of coverage the
            sum of unvisited masses; shape (clients,), float64.
        hits: of each client, shape (clients,).
        queries: queries of these clients, for the record.

    Returns:
        The rate; the default, with the reason and what the bound would have been as source, for fewer than
        :data:`MINIMUM_CLIENTS` clients.
    """
    judged = trials > 0
    trials, hits, clients = trials[judged], hits[judged], int(judged.sum())
    bound, mean = _tolerance(channel, trials, hits) if clients else (float("nan"), float("nan"))
    least = _FLOOR[channel.signal] * (channel.level or 1.0)
    if clients < MINIMUM_CLIENTS:
        wide = f"; their own bound would be {bound:.3f}" if clients else ""
        why = (
            f"cautious default: the trusted history has {clients} clients that this signal can judge, "
            f"{MINIMUM_CLIENTS} are needed{wide}"
        )
        return BenignRate(*_DEFAULTS[channel], clients, queries, why)
    if channel.signal in {Signal.PERTURBATION, Signal.BOUNDARY}:
        mean = max(mean, _DEFAULTS[channel][1])
    return BenignRate(
        min(max(least, bound), _MOST[channel.signal]), mean, clients, queries, "trusted history"
    )


def outliers(
    channel: Channel, trials: _Floats, hits: _Ints, *, chance: float = 1e-4
) -> npt.NDArray[np.bool_]:
    """Clients that do not belong with the others: a thief in a history that was thought to be honest.

    A tenth of the clients, those with the highest rates, are left out, and the rest is fitted. Then those
    left out are tested, the lowest first: one returns to the rest, and is fitted with it from then on, unless
    hits like its own, or more, would come from a client of the rest with a probability below ``chance`` over
    the number of clients. Tested all at once against a rest that has lost its highest tenth, honest clients
    would seem strange far oftener than that.

    Args:
        channel: whose.
        trials: as :func:`fit_rate` takes them.
        hits: likewise.
        chance: with which any honest client of the history is called an outlier.

    Returns:
        Shape (clients,); all False for fewer than :data:`MINIMUM_CLIENTS` clients.
    """
    found = np.zeros(len(trials), np.bool_)
    judged = np.flatnonzero(trials > 0)
    if len(judged) < MINIMUM_CLIENTS:
        return found
    # The rate that a client has proved: one hit in one query is no reason to be set aside.
    proved = (hits[judged] - 2.0 * np.sqrt(hits[judged])) / trials[judged]
    ranked = judged[np.argsort(proved, kind="stable")]
    most = max(1, len(judged) // 10)
    _, a, b = _grid(channel)
    likelihood = _log_likelihood(channel, trials[ranked[:-most]], hits[ranked[:-most]], a, b)
    for client in ranked[-most:]:
        best = int(np.argmax(likelihood))
        if _tail(channel, trials[client], hits[client], a[best], b[best]) < chance / len(judged):
            found[client] = True
        else:
            likelihood += _log_likelihood(channel, trials[client, None], hits[client, None], a, b)
    return found


def _tail(channel: Channel, trials: float, hits: int, a: float, b: float) -> float:
    """Probability of so many hits or more, of a client whose rate has the parameters a and b."""
    if channel.signal is Signal.COVERAGE:
        return float(nbinom.sf(hits - 1, a, b / (b + trials)))
    return float(betabinom.sf(hits - 1, round(trials), a, b))


def _grid(channel: Channel) -> tuple[_Floats, _Floats, _Floats]:
    """Means over clients and the two parameters of the rates' distribution, each of shape (grid,)."""
    if channel.signal is Signal.COVERAGE:
        mu, shape = np.meshgrid(np.geomspace(0.2, 3.0, 80), np.geomspace(2.0, 1e4, 40), indexing="ij")
        return mu.ravel(), shape.ravel(), (shape / mu).ravel()
    mu, rho = np.meshgrid(
        np.geomspace((channel.level or 0.01) / 10, 0.5, 80), np.geomspace(1e-4, 0.3, 40), indexing="ij"
    )
    return mu.ravel(), (mu * (1 / rho - 1)).ravel(), ((1 - mu) * (1 / rho - 1)).ravel()


def _log_likelihood(channel: Channel, trials: _Floats, hits: _Ints, a: _Floats, b: _Floats) -> _Floats:
    """Log-likelihood of the grid's points up to a constant, shape (grid,)."""

    def of_coverage(hit: _Floats, trial: _Floats) -> _Floats:
        return np.asarray(
            gammaln(hit + a) - gammaln(a) + a * np.log(b / (b + trial)) - hit * np.log(b + trial)
        )

    def of_rate(hit: _Floats, trial: _Floats) -> _Floats:
        return np.asarray(betaln(hit + a, trial - hit + b) - betaln(a, b))

    term: Callable[[_Floats, _Floats], _Floats]
    term = of_coverage if channel.signal is Signal.COVERAGE else of_rate
    # Many clients have the same few queries, and a long history has many clients: memory stays bounded.
    pairs, times = np.unique(np.stack([hits.astype(np.float64), trials], axis=1), axis=0, return_counts=True)
    likelihood = np.zeros(len(a))
    for start in range(0, len(pairs), 512):
        hit, trial = pairs[start : start + 512, :, None].swapaxes(0, 1)
        likelihood += times[start : start + 512] @ term(hit, trial)
    return likelihood


def _tolerance(channel: Channel, trials: _Floats, hits: _Ints) -> tuple[float, float]:
    """Upper tolerance bound and posterior mean of the rate over clients."""
    mu, a, b = _grid(channel)
    likelihood = _log_likelihood(channel, trials, hits, a, b)
    posterior = np.exp(likelihood - likelihood.max())
    posterior /= posterior.sum()
    quantile = (
        gamma.ppf(SHARE, a, scale=1 / b) if channel.signal is Signal.COVERAGE else beta.ppf(SHARE, a, b)
    )
    order = np.argsort(quantile, kind="stable")
    at = int(np.searchsorted(np.cumsum(posterior[order]), CONFIDENCE))
    return float(quantile[order[min(at, len(order) - 1)]]), float(posterior @ mu)
