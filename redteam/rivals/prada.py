"""PRADA: are the distances between a client's queries normally distributed?

Juuti, Szyller, Marchal and Asokan, "PRADA: Protecting Against DNN Model Stealing Attacks", EuroS&P 2019,
arXiv 1805.02628, section V, algorithm 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from redteam.pictures import Pictures
from redteam.rivals.rival import Watch, exceeded_by, peaks
from redteam.world import World

__all__ = ["LEAST", "GrowingSet", "PradaScores", "fit_prada", "shapiro_weights"]

LEAST = 100
"""The test begins once there are more distances than this (algorithm 3)."""


@dataclass(slots=True)
class GrowingSet:
    """G_c of one predicted class: its members and the threshold T_c above which a query joins them."""

    members: npt.NDArray[np.float32]
    squares: npt.NDArray[np.float32]
    size: int = 0
    distances: int = 0
    total: float = 0.0
    total_squares: float = 0.0
    threshold: float = 0.0

    def join(self, rows: npt.NDArray[np.float32], squares: npt.NDArray[np.float32]) -> None:
        """Add members; the room doubles when it is full."""
        needed = self.size + len(rows)
        if needed > len(self.members):
            room = max(64, 2 * needed)
            self.members, self.squares = (
                np.concatenate([old[: self.size], np.empty((room - self.size, *old.shape[1:]), np.float32)])
                for old in (self.members, self.squares)
            )
        self.members[self.size : needed], self.squares[self.size : needed] = rows, squares
        self.size = needed

    def note(self, distance: float) -> None:
        """D_Gc gains the distance of a query that joined; T_c ← max(T_c, mean(D_Gc) − std(D_Gc))."""
        self.distances += 1
        self.total += distance
        self.total_squares += distance * distance
        mean = self.total / self.distances
        std = max(0.0, self.total_squares / self.distances - mean * mean) ** 0.5
        self.threshold = max(self.threshold, mean - std)


@dataclass(slots=True)
class PradaScores:
    """One client's growing sets and distances.

    The score is 1 − W, with W the Shapiro–Wilk statistic of the distances within three standard deviations
    of their mean. Exact at every query, and incremental: distances to the growing sets come from matrix
    products over the pushed queries, and the sorted distances and their moments are kept, not recomputed.

    Attributes:
        sets: the growing sets, by predicted class.
    """

    sets: dict[int, GrowingSet] = field(default_factory=dict)
    _sorted: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(1_024))
    _count: int = 0
    _total: float = 0.0
    _total_squares: float = 0.0

    @property
    def distances(self) -> npt.NDArray[np.float64]:
        """D: distances of all queries but each class's first, ascending."""
        return self._sorted[: self._count]

    def push(self, asked: Pictures) -> npt.NDArray[np.float64]:
        """1 − W after each query, in [0, 1]; NaN up to ``LEAST`` distances."""
        width = math.prod(asked.pixels.shape[1:])
        rows = asked.pixels.reshape(-1, width).astype(np.float32) / np.float32(255) - np.float32(0.5)
        squares = np.einsum("ij,ij->i", rows, rows)
        predicted = asked.answers.argmax(axis=1)
        nearest = np.full(len(asked), np.nan)
        for label in np.unique(predicted).tolist():
            own = np.flatnonzero(predicted == label)
            nearest[own] = self._grow(label, rows[own], squares[own])
        return np.array([self._test(distance) for distance in nearest.tolist()], np.float64)

    def _grow(
        self, label: int, rows: npt.NDArray[np.float32], squares: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """Distance of each query to its class's growing set, NaN for the first, shape (n,)."""
        grown = self.sets.get(label)
        if grown is None:
            grown = GrowingSet(np.empty((0, rows.shape[1]), np.float32), np.empty(0, np.float32))
            self.sets[label] = grown
        before = _distances(rows, squares, grown.members[: grown.size], grown.squares[: grown.size])
        best = before.min(axis=1, initial=np.inf)
        among = _distances(rows, squares, rows, squares)
        joined: list[int] = []
        nearest = np.full(len(rows), np.nan)
        for i in range(len(rows)):
            if not grown.size and not joined:
                grown.note(0.0)
                joined.append(i)
                continue
            distance = min(float(best[i]), float(among[i, joined].min(initial=np.inf)))
            nearest[i] = distance
            if distance > grown.threshold:
                grown.note(distance)
                joined.append(i)
        grown.join(rows[joined], squares[joined])
        return nearest

    def _test(self, distance: float) -> float:
        """1 − W with one more distance, which is NaN for the first query of a class."""
        if not np.isnan(distance):
            self._insert(distance)
        n = self._count
        if n <= LEAST:
            return float("nan")
        mean = self._total / n
        reach = 3 * max(0.0, self._total_squares / n - mean * mean) ** 0.5
        low, high = np.searchsorted(self._sorted[:n], [mean - reach, mean + reach])
        kept = self._sorted[low : max(high, low + 1)]
        centred = kept - kept.mean()
        spread = float(centred @ centred)
        if spread <= 1e-9 * n:
            return 0.0  # one picture again and again: nothing to test
        weights = shapiro_weights(len(kept))
        half = len(weights)
        contrast = float(weights @ (centred[: -half - 1 : -1] - centred[:half]))
        return 1.0 - contrast * contrast / spread

    def _insert(self, distance: float) -> None:
        n = self._count
        if n == len(self._sorted):
            self._sorted = np.concatenate([self._sorted, np.empty(n)])
        place = int(np.searchsorted(self._sorted[:n], distance))
        self._sorted[place + 1 : n + 1] = self._sorted[place:n]
        self._sorted[place] = distance
        self._count, self._total = n + 1, self._total + distance
        self._total_squares += distance * distance


def _distances(
    rows: npt.NDArray[np.float32],
    squares: npt.NDArray[np.float32],
    others: npt.NDArray[np.float32],
    other_squares: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Euclidean distances, shape (rows, others)."""
    gram = rows @ others.T
    return np.asarray(np.sqrt(np.maximum(squares[:, None] + other_squares - 2 * gram, 0)), np.float32)


@lru_cache(maxsize=4_096)
def shapiro_weights(n: int) -> npt.NDArray[np.float64]:
    """Upper half of the Shapiro–Wilk weights for ``n`` values, greatest first, shape (n // 2,).

    Royston 1995, algorithm AS R94, which ``scipy.stats.shapiro`` runs too; but there they are computed anew
    at each query. ``n`` is at least 12.
    """
    m = -ndtri((np.arange(1, n // 2 + 1) - 0.375) / (n + 0.25))
    squares = 2 * float(m @ m)
    root, u = squares**0.5, n**-0.5
    first = np.polynomial.polynomial.polyval(
        u, [m[0] / root, 0.221157, -0.147981, -2.071190, 4.434685, -2.706056]
    )
    second = np.polynomial.polynomial.polyval(
        u, [m[1] / root, 0.042981, -0.293762, -1.752461, 5.682633, -3.582633]
    )
    rest = (squares - 2 * (m[0] ** 2 + m[1] ** 2)) / (1 - 2 * (first**2 + second**2))
    weights = m / rest**0.5
    weights[:2] = first, second
    weights.flags.writeable = False
    return np.asarray(weights, np.float64)


def fit_prada(world: World, trusted: Sequence[Pictures], *, false_positives: float = 0.0) -> Watch:
    """PRADA with δ as high as the trusted clients allow (section V-C: no, or few, false positives).

    Args:
        world: not used; the method needs no reference.
        trusted: streams of trusted clients, one a client.
        false_positives: share of them that may alarm.

    Raises:
        RedteamError: no trusted client asked enough.
    """
    del world
    highest = peaks("prada", PradaScores, trusted)
    return Watch("prada", exceeded_by(highest, false_positives), PradaScores)
