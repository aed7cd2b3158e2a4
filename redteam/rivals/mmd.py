"""MMD: does the window of a client's latest queries come from the benign distribution?

The detector of arXiv 2606.05725 (there of embedded texts): maximum mean discrepancy between a window of
queries and benign ones, its threshold from benign windows only. The test is that of Gretton et al., "A Kernel
Two-Sample Test", JMLR 13 (2012), equation 3, with a Gaussian kernel and the median heuristic (section 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from redteam.pictures import Pictures
from redteam.rivals.rival import Watch, quantile_rule
from redteam.world import World

__all__ = ["FALSE_POSITIVES", "BenignSample", "MmdScores", "fit_mmd"]

FALSE_POSITIVES = 0.003
"""Share of benign windows over the threshold, as published."""

_SAMPLE = 2_000


@dataclass(frozen=True, slots=True)
class BenignSample:
    """What windows are compared with.

    Attributes:
        embeddings: float32, shape (m, d).
        gamma: 1 / (2 σ²) of the kernel, σ the median distance between benign embeddings.
        within: mean kernel between different members.
    """

    embeddings: npt.NDArray[np.float32]
    gamma: float
    within: float

    @staticmethod
    def of(embeddings: npt.NDArray[np.float16], seed: int = 0) -> BenignSample:
        """Draw up to 2,000 of the benign embeddings, shape (n, d), without replacement."""
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(embeddings))[:_SAMPLE]
        sample = embeddings[chosen].astype(np.float32)
        squares = _squared_distances(sample, sample)[np.triu_indices(len(sample), 1)]
        gamma = float(1 / (2 * np.median(squares)))
        return BenignSample(sample, gamma, float(np.exp(-gamma * squares).mean()))

    def kernel(self, one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Gaussian kernel, shape (one, other)."""
        return np.asarray(np.exp(-self.gamma * _squared_distances(one, other)), np.float32)


@dataclass(slots=True)
class MmdScores:
    """The unbiased MMD² of one client's latest ``width`` queries against the benign sample, sliding by one.

    Incremental: each query brings its kernels to the benign sample and to the ``width`` − 1 queries before
    it; the sum over the window's pairs loses those of the query that leaves.
    """

    sample: BenignSample
    width: int
    _latest: npt.NDArray[np.float32] = field(init=False)
    _across: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    _forward: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    _pairs: float = 0.0

    def __post_init__(self) -> None:
        self._latest = np.empty((0, self.sample.embeddings.shape[1]), np.float32)

    def push(self, asked: Pictures) -> npt.NDArray[np.float64]:
        """MMD² after each query; NaN until the window is full."""
        if not len(asked):
            return np.empty(0)
        fresh = asked.embeddings.astype(np.float32)
        old, n = len(self._latest), len(fresh)
        rows = np.concatenate([self._latest, fresh])
        # Kernels of each fresh query to the up to width - 1 queries before it, among all rows at hand.
        apart = np.arange(old, old + n)[:, None] - np.arange(old + n)
        near = self.sample.kernel(fresh, rows) * ((apart > 0) & (apart < self.width))
        backward = near.sum(axis=1, dtype=np.float64)
        forward = np.concatenate([self._forward, np.zeros(n)]) + near.sum(axis=0, dtype=np.float64)
        across = self.sample.kernel(fresh, self.sample.embeddings).mean(axis=1, dtype=np.float64)
        across = np.concatenate([self._across, across])

        # The query `width` before each fresh one leaves; its pairs with those after it are all known by then.
        leaving = np.arange(old, old + n) - self.width
        lost = np.where(leaving >= 0, forward[np.maximum(leaving, 0)], 0.0)
        pairs = self._pairs + np.cumsum(backward - lost)
        sums = np.concatenate([[0.0], np.cumsum(across)])
        ends = np.arange(old, old + n) + 1
        means = (sums[ends] - sums[np.maximum(ends - self.width, 0)]) / self.width
        scores = 2 * pairs / (self.width * (self.width - 1)) - 2 * means + self.sample.within
        scores[ends < self.width] = np.nan

        kept = slice(max(0, old + n - self.width), None)
        self._latest, self._across, self._forward = rows[kept], across[kept], forward[kept]
        self._pairs = float(pairs[-1])
        return np.asarray(scores, np.float64)


def _squared_distances(
    one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    squares = (
        np.einsum("ij,ij->i", one, one)[:, None] + np.einsum("ij,ij->i", other, other) - 2 * one @ other.T
    )
    return np.asarray(np.maximum(squares, 0), np.float32)


def fit_mmd(world: World, trusted: Sequence[Pictures], *, width: int) -> Watch:
    """MMD over a sliding window of ``width`` queries; 0.3 % of the trusted clients' windows exceed it.

    The benign sample comes from the reference, which no client asks, so that no window meets itself.

    Raises:
        RedteamError: no trusted client filled a window.
    """
    start = partial(MmdScores, BenignSample.of(world.reference.embeddings), width)
    name = f"mmd-{width}"
    return Watch(name, quantile_rule(name, start, trusted, FALSE_POSITIVES), start)
