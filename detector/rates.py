"""Benign rates: how often honest clients' queries hit, as a bound over clients and as a mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaln
from scipy.stats import beta

from detector.subjects import LEVELS

__all__ = ["DEFAULT_RATES", "MINIMUM_CLIENTS", "BenignRates", "fit_rates"]

MINIMUM_CLIENTS = 10
"""With fewer trusted clients than this the documented defaults are used."""


@dataclass(frozen=True, slots=True)
class BenignRates:
    """The null of the out-of-domain signal, and where it comes from.

    Attributes:
        bound: π₀ by level: with ``confidence``, a share ``share`` of honest clients hits less often.
        mean: by level: the mean rate over honest clients.
        clients: trusted clients behind the figures; 0 for the defaults.
        queries: their queries.
        share: share of honest clients that live below the bound.
        confidence: posterior probability that the bound holds for that share.
        source: where the rates come from, in words.
    """

    bound: tuple[float, ...]
    mean: tuple[float, ...]
    clients: int
    queries: int
    share: float
    confidence: float
    source: str

    @property
    def allowance(self) -> tuple[float, ...]:
        """The rate m₀ above which hits are exposure: the mean and a quarter of the way to the bound.

        At exactly the mean an honest client's exposure is a driftless reflected walk, and 77 % of clients
        would pass 25 within 20,000 queries; with the slack none of 2,000 does (docs/evidence.md).
        """
        return tuple(mean + 0.25 * (bound - mean) for mean, bound in zip(self.mean, self.bound, strict=True))


DEFAULT_RATES = BenignRates(
    bound=(0.12, 0.03),
    mean=(0.05, 0.01),
    clients=0,
    queries=0,
    share=0.0,
    confidence=0.0,
    source="cautious defaults: no trusted history was given",
)
"""Used without a trusted history: about 2.4 and 3 times the nominal levels 0.05 and 0.01."""


def fit_rates(
    trials: npt.NDArray[np.int64],
    hits: npt.NDArray[np.int64],
    *,
    share: float = 0.95,
    confidence: float = 0.95,
    levels: Sequence[float] = LEVELS,
) -> BenignRates:
    """Fit the benign rates on the clients of a trusted history.

    Each client's hits are binomial with a rate of its own, and the rates are Beta-distributed over
    clients with mean μ and overdispersion ρ. The posterior of (μ, ρ) is computed on a grid under
    log-uniform priors, so few clients or short histories make a wide, cautious bound rather than a
    wrong one. π₀ is the ``confidence`` quantile, over that posterior, of the ``share`` quantile of
    Beta(μ, ρ): a Bayesian tolerance bound over clients (Krishnamoorthy and Mathew 2009, chapter 11).
    The clients were scored with the same calibration images as every later query, so calibration
    uncertainty is inside their rates. π₀ is never put below the nominal level.

    Args:
        trials: queries of each client, duplicates included, shape (clients,).
        hits: foreign and novel queries of each client by level, shape (clients, levels).
        share: share of clients that the bound is for.
        confidence: posterior probability that the bound holds.
        levels: nominal significance levels τ.

    Returns:
        The rates, or :data:`DEFAULT_RATES` (with the reason as source) for fewer than
        :data:`MINIMUM_CLIENTS` clients.
    """
    clients, queries = len(trials), int(trials.sum())
    if clients < MINIMUM_CLIENTS:
        return BenignRates(
            bound=DEFAULT_RATES.bound,
            mean=DEFAULT_RATES.mean,
            clients=clients,
            queries=queries,
            share=0.0,
            confidence=0.0,
            source=f"cautious defaults: the trusted history has {clients} clients, "
            f"{MINIMUM_CLIENTS} are needed",
        )
    fitted = [_tolerance(trials, hits[:, level], tau, share, confidence) for level, tau in enumerate(levels)]
    return BenignRates(
        bound=tuple(max(tau, bound) for tau, (bound, _) in zip(levels, fitted, strict=True)),
        mean=tuple(mean for _, mean in fitted),
        clients=clients,
        queries=queries,
        share=share,
        confidence=confidence,
        source="trusted history",
    )


def _tolerance(
    trials: npt.NDArray[np.int64], hits: npt.NDArray[np.int64], tau: float, share: float, confidence: float
) -> tuple[float, float]:
    """Upper tolerance bound and posterior mean of the rate over clients."""
    mu = np.geomspace(tau / 10, 0.5, 80)[:, None]
    rho = np.geomspace(1e-4, 0.3, 40)[None, :]
    a, b = (mu * (1 / rho - 1)).ravel(), ((1 - mu) * (1 / rho - 1)).ravel()
    # Many clients have the same few queries, and a long history has many clients: memory stays bounded.
    pairs, times = np.unique(np.stack([hits, trials - hits], axis=1), axis=0, return_counts=True)
    likelihood = -len(trials) * betaln(a, b)
    for start in range(0, len(pairs), 512):
        hit, miss = pairs[start : start + 512, :, None].swapaxes(0, 1)
        likelihood += times[start : start + 512] @ betaln(hit + a, miss + b)
    posterior = np.exp(likelihood - likelihood.max())
    posterior /= posterior.sum()
    quantile = beta.ppf(share, a, b)
    order = np.argsort(quantile, kind="stable")
    at = int(np.searchsorted(np.cumsum(posterior[order]), confidence))
    mean = float(posterior @ np.broadcast_to(mu, (80, 40)).ravel())
    return float(quantile[order[min(at, len(order) - 1)]]), mean
