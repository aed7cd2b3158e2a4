"""Coverage for people: how much of the domain a set of queries has mapped, in three figures. No evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detector.domain import product

__all__ = ["CoverageFigures", "Neighbourhoods", "coverage_of", "unseen_mass", "visited_mass"]

NEIGHBOURS = 5
"""k of PRDC, as in the paper."""

MOST_REFERENCE = 1000


@dataclass(frozen=True, slots=True)
class CoverageFigures:
    """How much of the domain a subject's queries have mapped.

    Attributes:
        visited: share of the domain's mass in cells that the queries visited, in [0, 1]; None without cells.
        unseen: Good–Turing estimate of the mass that queries like these have still not visited, in [0, 1].
        prdc: share of reference pictures that have a query in their neighbourhood, in [0, 1]; None without
            reference pictures.
    """

    visited: float | None
    unseen: float
    prdc: float | None


@dataclass(frozen=True, slots=True)
class Neighbourhoods:
    """Reference pictures, each with the similarity that its neighbourhood reaches down to.

    A picture's neighbourhood reaches to its :data:`NEIGHBOURS`-th nearest other one. On unit vectors the
    nearer is the more similar, so similarities stand for distances.

    Attributes:
        pictures: L2-normalised float32, shape (m, d).
        reach: float32, shape (m,).

    References:
        Naeem et al. (2020), Reliable Fidelity and Diversity Metrics for Generative Models, section 3.
    """

    pictures: npt.NDArray[np.float32]
    reach: npt.NDArray[np.float32]

    @classmethod
    def of(cls, reference: npt.NDArray[np.float16]) -> Neighbourhoods | None:
        """Of at most 1,000 reference pictures, evenly thinned; None where there are too few.

        Args:
            reference: L2-normalised float16, shape (n, d).
        """
        if len(reference) <= NEIGHBOURS:
            return None
        pictures = reference[:: -(-len(reference) // MOST_REFERENCE)].astype(np.float32)
        similar = product(pictures, np.ascontiguousarray(pictures.T))
        np.fill_diagonal(similar, -np.inf)
        return cls(pictures, np.partition(similar, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS])

    def covered(self, queries: npt.NDArray[np.float16]) -> float:
        """PRDC coverage, equation 5: the share of neighbourhoods that hold a query.

        Args:
            queries: L2-normalised float16, shape (n, d).
        """
        if len(queries) == 0:
            return 0.0
        nearest = product(self.pictures, np.ascontiguousarray(queries.astype(np.float32).T)).max(axis=1)
        return float((nearest >= self.reach).mean())


def coverage_of(
    mass: npt.NDArray[np.int64],
    reference: Neighbourhoods | None,
    cells: npt.NDArray[np.int64],
    queries: npt.NDArray[np.float16],
) -> CoverageFigures:
    """The figures of one set of queries.

    Args:
        mass: reference images by cell, shape (cells,); empty where the domain has none.
        reference: the reference, where there is one.
        cells: cells of those queries that lie inside the domain, shape (i,).
        queries: embeddings of all queries, L2-normalised float16, shape (n, d).
    """
    return CoverageFigures(
        visited=visited_mass(mass, cells) if len(mass) else None,
        unseen=unseen_mass(cells),
        prdc=None if reference is None else reference.covered(queries),
    )


def visited_mass(mass: npt.NDArray[np.int64], cells: npt.NDArray[np.int64]) -> float:
    """Share of the mass in the visited cells.

    Args:
        mass: by cell, ≥ 0 and not all 0, shape (cells,).
        cells: visited, any number of times, shape (n,).

    Examples:
        >>> visited_mass(np.array([6, 3, 1]), np.array([1, 1, 2]))
        0.4
    """
    return int(mass[np.unique(cells)].sum()) / int(mass.sum())


def unseen_mass(cells: npt.NDArray[np.int64]) -> float:
    """Chance that the next query like these enters a cell that none of them did: the share seen just once.

    Args:
        cells: of the queries, shape (n,); with none the answer is 1.

    References:
        Good (1953), The population frequencies of species, Biometrika 40, equation 9.

    Examples:
        >>> unseen_mass(np.array([1, 1, 2, 5]))
        0.5
    """
    if len(cells) == 0:
        return 1.0
    return int((np.bincount(cells) == 1).sum()) / len(cells)
