"""A domain that is declared in words, for endpoints without reference images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from detector.base_domain import BaseDomain
from detector.domain import product

__all__ = ["PromptDomain"]

_BLOCK = 1024


@dataclass(frozen=True)
class PromptDomain(BaseDomain):
    """Prompts that describe the domain, beside everyday concepts that it does not hold.

    Attributes:
        centroids: embeddings of the prompts, float64, shape (k, d): each is a cell.
        concepts: embeddings of everyday concepts, L2-normalised float16, shape (v, d).
        temperature: what cosines are multiplied with.
        nothing: cosine of the concept "nothing that was named", in (-1, 1).
    """

    kind: ClassVar[str] = "prompts"

    centroids: npt.NDArray[np.float64]
    concepts: npt.NDArray[np.float16]
    temperature: float
    nothing: float

    @classmethod
    def declare(
        cls,
        prompts: npt.NDArray[np.float16],
        concepts: npt.NDArray[np.float16],
        *,
        temperature: float,
        nothing: float,
        apart: float,
    ) -> PromptDomain:
        """Set prompts against those concepts that mean something else.

        Args:
            prompts: L2-normalised text embeddings, shape (k, d).
            concepts: L2-normalised text embeddings, shape (v, d).
            temperature: what cosines are multiplied with.
            nothing: cosine of "nothing that was named".
            apart: a concept with this cosine to a prompt or more says the same and is left out.
        """
        centroids = prompts.astype(np.float64)
        other = (concepts.astype(np.float64) @ centroids.T).max(axis=1) < apart
        return cls(centroids, concepts[other], temperature, nothing)

    @property
    def size(self) -> int:
        """How many prompts declare the domain."""
        return len(self.centroids)

    def score(
        self, embeddings: npt.NDArray[np.float16]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The log-odds that a picture shows something else than the prompts name.

        With cosines to prompts p and concepts c, temperature t and the constant b of "nothing":
        s = log(exp(t·b) + Σ exp(t·c)) − log Σ exp(t·p). This is maximum concept matching (Ming et al. 2022,
        arXiv 2211.13445, section 3) with concepts outside the domain; the constant takes pictures that
        resemble no word at all. It is computed in double precision and rounded to single precision, so that
        a query has the same score in every batch.

        Args:
            embeddings: L2-normalised float16, shape (n, d).

        Returns:
            Scores, larger is more foreign, float64 that are exact in float32, shape (n,); and the most
            similar prompt of each, shape (n,).
        """
        scores = np.empty(len(embeddings))
        cells = np.empty(len(embeddings), np.int64)
        for start in range(0, len(embeddings), _BLOCK):
            block = slice(start, start + _BLOCK)
            cosines = product(embeddings[block].astype(np.float64), self._words)
            named, other = np.split(cosines, [self.size], axis=1)
            cells[block] = self.nearest_cells(named)[:, 0]
            # A cosine is at most 1, so that nothing overflows at any temperature below 700.
            inside = np.exp(self.temperature * named).sum(axis=1)
            outside = np.exp(self.temperature * other).sum(axis=1) + np.exp(self.temperature * self.nothing)
            scores[block] = np.log(outside) - np.log(inside)
        return scores.astype(np.float32).astype(np.float64), cells

    @cached_property
    def _words(self) -> npt.NDArray[np.float64]:
        """Prompts and concepts side by side, shape (d, k + v)."""
        return np.concatenate([self.centroids, self.concepts.astype(np.float64)]).T
