"""Mondrian conformal p-values: how foreign a score is among calibration images of the same region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

__all__ = ["Calibration"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration scores by group of cells.

    A query is compared only with calibration images of its own region of the domain, so that a
    client who asks about one class alone meets the same benign rate as one who asks about all
    (Mondrian conformal prediction: Vovk, Gammerman and Shafer 2005, section 4.5). Cells with too few
    calibration images are merged with their nearest neighbours, by average linkage: by distance between
    centres one large group, whose centre is near everything, would swallow all the others.

    Attributes:
        group_of_cell: shape (cells,), int64: the group that each cell belongs to.
        scores: all calibration scores, ascending within each group, float64.
        bounds: shape (groups + 1,), int64: group g is ``scores[bounds[g]:bounds[g + 1]]``.
    """

    group_of_cell: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    bounds: npt.NDArray[np.int64]

    @classmethod
    def fit(
        cls,
        scores: npt.NDArray[np.float64],
        cells: npt.NDArray[np.int64],
        centroids: npt.NDArray[np.float64],
        minimum: int,
    ) -> Calibration:
        """Group the cells and sort the scores.

        Args:
            scores: of calibration images that fitted nothing else, shape (n,).
            cells: the cell of each, shape (n,).
            centroids: of the cells, shape (cells, d).
            minimum: calibration images that a group needs; fewer than that in all make one group.
        """
        distances = cdist(centroids, centroids)
        group = np.arange(len(centroids))
        while True:
            counts = np.bincount(group[cells], minlength=group.max() + 1)
            poorest = np.argmin(counts)
            if len(counts) == 1 or counts[poorest] >= minimum:
                break
            linkage = np.bincount(group, distances[group == poorest].mean(axis=0)) / np.bincount(group)
            linkage[poorest] = np.inf
            group[group == poorest] = np.argmin(linkage)
            _, group = np.unique(group, return_inverse=True)
        order = np.lexsort((scores, group[cells]))
        bounds = np.concatenate([[0], np.cumsum(counts)])
        return cls(group.astype(np.int64), scores[order], bounds.astype(np.int64))

    def p_values(
        self, scores: npt.NDArray[np.float64], cells: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Conformal p-values (1 + #{calibration scores ≥ s}) / (n_group + 1).

        Args:
            scores: shape (n,), larger is more foreign.
            cells: nearest cell of each, shape (n,).

        Returns:
            Shape (n,), in (0, 1].
        """
        groups = self.group_of_cell[cells]
        sizes = np.diff(self.bounds)
        # Complex numbers sort by their real part first: one search ranks every score in its own group.
        ranked = _paired(np.repeat(np.arange(len(sizes)), sizes), self.scores)
        above = self.bounds[groups + 1] - np.searchsorted(ranked, _paired(groups, scores), side="left")
        p: npt.NDArray[np.float64] = (1 + above) / (sizes[groups] + 1)
        return p


def _paired(groups: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    pairs = np.empty(len(scores), np.complex128)
    pairs.real, pairs.imag = groups, scores
    return pairs
