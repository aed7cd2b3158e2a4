"""The two simplest detectors that one could put beside an API: is the mean of a client's latest queries odd?

They have no paper; they are here because a method that does not beat them is not worth its cost. One looks at
brightness, the other at how far the queries' embeddings lie from the reference (Sun et al., "Out-of-
Distribution Detection with Deep Nearest Neighbors", ICML 2022, equation 3), averaged over the client's
window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import faiss
import numpy as np
import numpy.typing as npt

from redteam.pictures import Pictures
from redteam.rivals.rival import Watch, peaks
from redteam.world import World

__all__ = ["NEIGHBOUR", "WIDTH", "WindowMean", "fit_knn_mean", "fit_pixel_mean"]

WIDTH = 50
"""Queries in the window: as many as the quickest published detectors wait for."""

NEIGHBOUR = 10
"""Which neighbour in the reference gives the distance."""


@dataclass(slots=True)
class WindowMean:
    """Mean of a figure of the client's latest ``WIDTH`` queries.

    Attributes:
        of: the figure of each query, float64, shape (n,).
        centre: where it lies for honest pictures, if a mean below is as odd as one above; else None.
    """

    of: Callable[[Pictures], npt.NDArray[np.float64]]
    centre: float | None = None
    _latest: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def push(self, asked: Pictures) -> npt.NDArray[np.float64]:
        """The mean, or its distance from the centre, after each query; NaN until the window is full."""
        figures = np.concatenate([self._latest, self.of(asked)])
        means = np.convolve(figures, np.full(WIDTH, 1 / WIDTH))[len(self._latest) : len(figures)]
        means[: max(0, WIDTH - 1 - len(self._latest))] = np.nan
        self._latest = figures[max(0, len(figures) - WIDTH + 1) :]
        return means if self.centre is None else np.abs(means - self.centre)


def brightness(asked: Pictures) -> npt.NDArray[np.float64]:
    """Mean of all pixel values, in [0, 255], shape (n,)."""
    return np.asarray(asked.pixels.mean(axis=(1, 2, 3), dtype=np.float64))


@dataclass(frozen=True, slots=True)
class NeighbourDistance:
    """Squared distance to the ``NEIGHBOUR``-th nearest embedding of an index."""

    index: faiss.IndexFlatL2

    def __call__(self, asked: Pictures) -> npt.NDArray[np.float64]:
        """Squared distances, shape (n,)."""
        distances, _ = self.index.search(asked.embeddings.astype(np.float32), NEIGHBOUR)
        return np.asarray(distances[:, -1], np.float64)


def fit_pixel_mean(world: World, trusted: Sequence[Pictures]) -> Watch:
    """Alarms when the window's brightness is further from the reference's than any trusted window's.

    Raises:
        RedteamError: no trusted client filled a window.
    """
    start = partial(WindowMean, brightness, float(brightness(world.reference).mean()))
    return Watch("pixel-mean", float(peaks("pixel-mean", start, trusted).max()), start)


def fit_knn_mean(world: World, trusted: Sequence[Pictures]) -> Watch:
    """Alarms when the window's mean neighbour distance exceeds that of every trusted window.

    Raises:
        RedteamError: no trusted client filled a window.
    """
    index = faiss.IndexFlatL2(world.reference.embeddings.shape[1])
    index.add(world.reference.embeddings.astype(np.float32))
    start = partial(WindowMean, NeighbourDistance(index))
    return Watch("knn-mean", float(peaks("knn-mean", start, trusted).max()), start)
