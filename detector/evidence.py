"""The evidence contract: how yes/no outcomes become evidence that a subject is not benign.

Each event of a subject gives, at each of L levels, an outcome X in {0, 1}. Under the null
P(X = 1 | joint past) <= π₀, with π₀ fixed before the event. Each alternative q = π₀ + (1 − π₀)·g, with g
in :data:`GRID`, multiplies its evidence by the likelihood ratio

    LR_q(X) = q/π₀ if X else (1 − q)/(1 − π₀)  =  1 + g·(X/π₀ − 1),

a bet of the fraction g of the wealth on a hit, at odds that are fair at π₀ and losing below it. So
E[LR] <= 1 under the null, whatever the past, and the mixture over q and over start times is a
nonnegative supermartingale that starts at 1. Ville's inequality does the rest; ``docs/evidence.md``
has the proof.

Everything here is a pure function of float64 arrays whose first axis is the subject, and gives a
subject the same bits whoever else is in the batch.

References:
    Ville (1939), Étude critique de la notion de collectif. Waudby-Smith and Ramdas (2024), Estimating
    means of bounded random variables by betting, JRSS-B 86(1). Shin, Ramdas and Rinaldo (2024),
    E-detectors: a nonparametric framework for sequential change detection, NEJSDS 2(2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detector.errors import DetectorError

__all__ = [
    "GRID",
    "EvidenceRule",
    "evidence",
    "exposure",
    "log_ratios",
    "ratios",
    "run_bucket",
    "start_weight",
    "step",
    "unspent",
]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.integer[Any]]
Outcomes = npt.NDArray[np.bool_]

# Geometric, because what a bet costs and wins near the null goes by its ratio to the best bet: 0.015 is for
# a thief who hides one foreign query among twenty, 0.97 for one who hides none. Written out, so that every
# machine has the same bits. benchmarks/evidence_delay.py shows the delays.
GRID: Floats = np.array([0.015, 0.022, 0.032, 0.047, 0.068, 0.1, 0.146, 0.213, 0.311, 0.455, 0.664, 0.97])
"""The alternatives, as fractions g of the way from π₀ to 1, so that they follow a time-varying π₀."""
GRID.flags.writeable = False

_MISS: Floats = 1.0 - GRID


@dataclass(frozen=True, slots=True)
class EvidenceRule:
    """When evidence suspects and when exposure alerts.

    Attributes:
        alpha: probability, in (0, 1), with which a subject under the null is ever suspected.
        cap: each alternative's evidence stops at ``cap/alpha``, so that suspicion is able to lapse; >= 1.
        weights: of the channels in the mean, in the order of `detector.signals.CHANNELS`; nonnegative,
            summing to 1. They were set by reasoning, not tuned: halving a weight costs 0.7 of the 7 nats that
            suspicion takes, and out of domain is what most thieves are.
        alert_exposure: foreign, novel, answered queries above the benign rate that turn a suspected
            subject into an alerted one; > 0.

    Raises:
        DetectorError: a value outside its range.
    """

    alpha: float = 0.001
    cap: float = 100.0
    weights: tuple[float, ...] = (0.25, 0.25, 0.2, 0.1, 0.15, 0.05)
    alert_exposure: float = 25.0

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise DetectorError(f"evidence rule: alpha is {self.alpha}; give a probability in (0, 1)")
        if not 1.0 <= self.cap < math.inf:
            raise DetectorError(f"evidence rule: cap is {self.cap}; give a finite number, at least 1")
        total = math.fsum(self.weights)
        if not (all(weight >= 0.0 for weight in self.weights) and abs(total - 1.0) <= 1e-9):
            raise DetectorError(
                f"evidence rule: weights {self.weights} sum to {total}; "
                "give nonnegative weights that sum to 1, or α is not kept"
            )
        if self.weights and self.weights[0] == 0.0:
            raise DetectorError(
                f"evidence rule: weights {self.weights} leave out the first channel; groups are judged by it"
            )
        if not 0.0 < self.alert_exposure < math.inf:
            raise DetectorError(
                f"evidence rule: alert_exposure is {self.alert_exposure}; give a positive number of queries"
            )

    @property
    def threshold(self) -> float:
        """Evidence at which a subject is suspected: 1/α."""
        return 1.0 / self.alpha

    @property
    def ceiling(self) -> float:
        """What ``step`` and ``run_bucket`` take as ``cap``: cap/α, on the scale of the evidence."""
        return self.cap / self.alpha


def unspent(t: npt.ArrayLike) -> Floats:
    """Start-time weight that is not spent after t events (or buckets): 1 at 0, then 0.5/(1 + ln t).

    Args:
        t: events so far, integers >= 0, any shape.

    Returns:
        Weights in (0, 1], same shape.
    """
    events = np.asarray(t, dtype=np.float64)
    return np.where(events < 1.0, 1.0, 0.5 / (1.0 + np.log(np.maximum(events, 1.0))))


def start_weight(t: npt.ArrayLike) -> Floats:
    """Weight w_t of the start time t: what event t spends, ``unspent(t − 1) − unspent(t)``.

    Half is spent on the first event, the rest as ~ 1/(t·log² t); all of them together sum to 1.

    Args:
        t: number of the event (or bucket), integers >= 1, any shape.

    Returns:
        Weights in (0, 0.5], same shape.
    """
    event = np.asarray(t, dtype=np.float64)
    return unspent(event - 1.0) - unspent(event)


def log_ratios(pi0: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Logarithms of the likelihood ratios of a hit and of a miss.

    Args:
        pi0: bounds on P(X = 1) under the null, in (0, 1], shape (..., L).

    Returns:
        ``log LR_q(1)`` and ``log LR_q(0)``, each of shape (..., L, Q).

    Raises:
        DetectorError: a bound outside (0, 1].
    """
    bound = _checked(np.asarray(pi0, dtype=np.float64))[..., None]
    hit = np.log1p(GRID * (1.0 / bound - 1.0))
    return hit, np.broadcast_to(np.log1p(-GRID), hit.shape)


def ratios(hits: Outcomes, pi0: Floats) -> Floats:
    """The likelihood ratios of events: ``LR_q(X) = 1 + g·(X/π₀ − 1)``.

    Args:
        hits: outcomes, shape (m, L).
        pi0: bounds on P(X = 1) under the null, known before the event, in (0, 1], shape (m, L) or (L,).

    Returns:
        Shape (m, L, Q).

    Raises:
        DetectorError: a bound outside (0, 1].
    """
    ratio = (hits / _checked(pi0))[..., None] * GRID
    ratio += _MISS
    return ratio


def step(S: Floats, w: Floats, ratio: Floats, cap: float) -> Floats:
    """Takes one event of each of m subjects: ``S_q ← min(cap, (S_q + w)·LR_q(X))``.

    Args:
        S: evidence by level and alternative, in [0, cap], shape (m, L, Q).
        w: the events' start weights, see :func:`start_weight`, shape (m,).
        ratio: :func:`ratios` of the events, shape (m, L, Q); the new evidence is written over them.
        cap: the rule's ``ceiling``, cap/α.

    Returns:
        The new evidence, shape (m, L, Q).
    """
    ratio *= S + w[:, None, None]
    return np.minimum(ratio, cap, out=ratio)


def run_bucket(  # noqa: PLR0917 - the arguments of step and the number of events, in step's order
    S: Floats, w: Floats, hits: Counts, trials: Counts, pi0: Floats, cap: float
) -> Floats:
    """Takes a bucket of events of each of m groups, from counts that have no order.

    ``S_q ← min(cap, (S_q + w)·LR_q(1)^h·LR_q(0)^(n − h))``. While a bucket is open, call it with the counts
    so far and the S from before the bucket; keep the result when the bucket closes.

    Args:
        S: evidence before the bucket, in [0, cap], shape (m, L, Q).
        w: the buckets' start weights, ``start_weight(number of the bucket)``, shape (m,).
        hits: events of the bucket with X = 1, integers, shape (m, L).
        trials: events of the bucket, integers, shape (m,).
        pi0: bounds on P(X = 1) under the null, fixed when the bucket opens, in (0, 1], shape (m, L) or (L,).
        cap: the rule's ``ceiling``, cap/α.

    Returns:
        The evidence after the bucket, shape (m, L, Q).

    Raises:
        DetectorError: a bound outside (0, 1], or more hits than events.
    """
    misses = trials[:, None] - hits
    if np.any(misses < 0):
        raise DetectorError("evidence bucket: more hits than events; count every event as a trial")
    log_hit, log_miss = log_ratios(pi0)
    exponent = hits[..., None] * log_hit + misses[..., None] * log_miss
    # In logarithms, because a bucket of a fleet holds more events than a float's exponent can hold.
    with np.errstate(divide="ignore"):
        exponent += np.log(S + w[:, None, None])
    return np.exp(np.minimum(exponent, math.log(cap)))


def evidence(S: Floats, unspent: Floats, weights: tuple[float, ...]) -> Floats:
    """The e-value against "this subject is benign": ``E = Σ_l λ_l·(mean_q S_q + unspent)``.

    Args:
        S: evidence by level and alternative, shape (m, L, Q).
        unspent: start-time weight that each subject has not spent, see :func:`unspent`, shape (m,).
        weights: the λ, L weights that sum to 1.

    Returns:
        E-values, >= 0, shape (m,).
    """
    # Sums of products, not a matrix product: BLAS may round a row differently in another batch.
    weighted = S.sum(axis=-1) * (np.array(weights) / GRID.size)
    total: Floats = weighted.sum(axis=-1) + unspent
    return total


def exposure(G: Floats, hits: Counts | Outcomes, trials: Counts, m0: npt.ArrayLike) -> Floats:
    """The hits that an honest client would not have had: ``G ← max(0, G + hits − m₀·trials)``.

    Args:
        G: exposure so far, in queries, >= 0, shape (m,).
        hits: events with X = 1 at the level that exposure is counted on (or one outcome each), shape (m,).
        trials: all events (or ones), shape (m,).
        m0: benign rate of hits, in [0, 1], a number or shape (m,). At exactly a client's own rate G has no
            drift and wanders up with the root of the queries; a little above the mean it stays down.

    Returns:
        The new exposure, shape (m,).
    """
    return np.maximum(0.0, G + hits - np.multiply(m0, trials))


def _checked(pi0: Floats) -> Floats:
    """Returns the bounds if each is in (0, 1]; a NaN is not."""
    if not (pi0.min(initial=1.0) > 0.0 and pi0.max(initial=1.0) <= 1.0):
        raise DetectorError("evidence: a null bound π₀ is outside (0, 1]; check the baseline's rates")
    return pi0
