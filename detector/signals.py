"""The signals: yes/no questions asked of every query, each with its null and its channels of evidence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

__all__ = ["CHANNELS", "FIRST_CHANNEL", "LEVELS", "SIGNALS", "Channel", "Outcomes", "Signal"]

LEVELS = (0.05, 0.01, 0.002)
"""Significance levels τ at which a conformal p-value counts as out of domain.

The deep one is for a thief who hides one foreign query among twenty: at its low benign rate few hits weigh
much. It takes 499 calibration images in a group; with fewer it never hits."""


class Signal(StrEnum):
    """What is asked of a query.

    The nulls, for a benign client and given everything seen before:

    - out of domain: P(conformal p-value ≤ τ and no near duplicate of its own) ≤ π₀ at each level τ.
    - coverage: P(a query enters a cell of the domain that the client had not visited) ≤ c·U, with U the share
      of the reference's mass in cells that it had not visited and c a bound over clients.
    - perturbation: P(a query is near, but not equal, to an earlier one of the client's that nothing was near
      before, and that is not one of its latest) ≤ π₀. A burst of frames of one scene is no hit.
    - boundary: P(the margin between the two highest scores is below a threshold and no near duplicate of its
      own) ≤ π₀.
    """

    OUT_OF_DOMAIN = "out of domain"
    COVERAGE = "coverage"
    PERTURBATION = "perturbation"
    BOUNDARY = "boundary"


SIGNALS: tuple[Signal, ...] = tuple(Signal)


@dataclass(frozen=True, slots=True)
class Channel:
    """One sequence of outcomes with evidence of its own.

    Attributes:
        signal: what is asked.
        level: τ of an out-of-domain channel, else None.
    """

    signal: Signal
    level: float | None = None

    def __str__(self) -> str:
        return self.signal.value if self.level is None else f"{self.signal.value} at {self.level:g}"


CHANNELS: tuple[Channel, ...] = (
    *(Channel(Signal.OUT_OF_DOMAIN, level) for level in LEVELS),
    Channel(Signal.COVERAGE),
    Channel(Signal.PERTURBATION),
    Channel(Signal.BOUNDARY),
)
"""In the order of the evidence's second axis; the out-of-domain levels come first."""

FIRST_CHANNEL: tuple[int, ...] = tuple(
    next(place for place, channel in enumerate(CHANNELS) if channel.signal is signal) for signal in SIGNALS
)
"""The channel on whose hits each signal's exposure is counted; of the levels, τ = 0.05."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a batch of events answered.

    An event that a channel cannot judge has hit = True and bound 1: a hit that was certain multiplies
    evidence by exactly 1.

    Attributes:
        hits: outcomes X, shape (n, channels).
        bounds: π₀,t of each event, in (0, 1], shape (n, channels).
        allowances: benign rate m₀,t that exposure allows, in [0, 1], shape (n, signals).
    """

    hits: npt.NDArray[np.bool_]
    bounds: npt.NDArray[np.float64]
    allowances: npt.NDArray[np.float64]

    @property
    def observed(self) -> npt.NDArray[np.bool_]:
        """Hits that mean something, shape (n, channels)."""
        return self.hits & (self.bounds < 1.0)
