"""The domain that reference images span, and how far a query lies outside it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from threadpoolctl import ThreadpoolController, threadpool_limits

from detector.base_domain import BaseDomain

__all__ = ["Domain", "product"]

_BLOCK = 1024
_Floats = TypeVar("_Floats", npt.NDArray[np.float32], npt.NDArray[np.float64])


def product(a: _Floats, b: _Floats) -> _Floats:
    """The matrix product ``a @ b`` in one thread.

    After a product in several threads OpenBLAS keeps them spinning for milliseconds, which takes the cores
    from the FAISS search that follows: with two cores scoring a batch then costs twice the time.
    """
    with _openblas().limit(limits=1):
        return a @ b


@cache
def _openblas() -> ThreadpoolController:
    """OpenBLAS with threads of its own; with OpenMP's, or another BLAS, there is nothing to hold back."""
    return ThreadpoolController().select(internal_api="openblas", threading_layer="pthreads")


@dataclass(frozen=True)
class Domain(BaseDomain):
    """Reference embeddings with their principal subspace, cells and FAISS index.

    Attributes:
        reference: L2-normalised float16 embeddings that the rest was fitted on, shape (n, d).
        mean: their mean, float64, shape (d,).
        components: orthonormal basis of the principal subspace, float64, shape (d, r).
        centroids: L2-normalised centres of the cells, float64, shape (cells, d).
        neighbours: k of the k-th neighbour distance.
        location: means of (residual, distance) over held-out reference images, shape (2,).
        scale: their standard deviations, shape (2,).
    """

    kind: ClassVar[str] = "images"

    reference: npt.NDArray[np.float16]
    mean: npt.NDArray[np.float64]
    components: npt.NDArray[np.float64]
    centroids: npt.NDArray[np.float64]
    neighbours: int
    location: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        reference: npt.NDArray[np.float16],
        held_out: npt.NDArray[np.float16],
        *,
        explained: float = 0.5,
        neighbours: int | None = None,
        seed: int = 0,
    ) -> Domain:
        """Fit the subspace, the cells and the scales.

        Args:
            reference: L2-normalised, shape (n, d); n ≥ 10.
            held_out: other reference images, which set the scales of the two parts, shape (m, d).
            explained: share of variance inside the principal subspace. It and k were chosen with CIFAR-10
                `train` as the domain and the splits `encoder` as foreign (benchmarks/score_settings.py).
            neighbours: k; None for a fiftieth of the reference, between 10 and 80.
            seed: of k-means.
        """
        vectors = reference.astype(np.float64)
        if neighbours is None:
            neighbours = int(np.clip(len(vectors) // 50, 10, 80))
        # About fifty images a cell: with a hundred the search takes half as long again and finds the same.
        cells = int(np.clip(len(vectors) // 50, 1, 256))
        with threadpool_limits(1):  # sums of several threads have no order: the content hash would be chance
            pca = PCA(svd_solver="full").fit(vectors)
            centroids = KMeans(cells, n_init=1, random_state=seed).fit(vectors).cluster_centers_
        inside = int(np.searchsorted(np.cumsum(pca.explained_variance_ratio_), explained)) + 1
        components = pca.components_[: min(inside, len(pca.components_) - 1)].T
        centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
        raw = cls(reference, pca.mean_, components, centroids, neighbours, np.zeros(2), np.ones(2))
        parts, _ = raw._parts(held_out)
        scale = np.maximum(parts.std(axis=0), 1e-6)
        return cls(reference, pca.mean_, components, centroids, neighbours, parts.mean(axis=0), scale)

    @property
    def size(self) -> int:
        """How many reference images declare the domain."""
        return len(self.reference)

    def score(
        self, embeddings: npt.NDArray[np.float16]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """How far outside the domain each query lies: the sum of two standardised parts.

        The residual is the norm of what lies outside the reference's principal subspace (ViM: Wang et
        al. 2022, arXiv 2203.10807, equation 3); the distance is the cosine distance to the k-th nearest
        reference image (deep nearest neighbours: Sun et al. 2022, arXiv 2204.06507). Both are computed
        in double precision or query by query and rounded to single precision, so that a query has the
        same score in every batch.

        Args:
            embeddings: L2-normalised float16, shape (n, d).

        Returns:
            Scores, larger is more foreign, float64 that are exact in float32, shape (n,); and the nearest
            cell of each, shape (n,).
        """
        parts, cells = self._parts(embeddings)
        total = ((parts - self.location) / self.scale).sum(axis=1)
        return total.astype(np.float32).astype(np.float64), cells

    @cached_property
    def index(self) -> Any:
        """Inverted-file FAISS index over the reference, by inner product."""
        index = self.empty_index()
        index.add(self.reference.astype(np.float32))
        return index

    @cached_property
    def _projection(self) -> npt.NDArray[np.float64]:
        """Components, centroids and mean side by side, so that one product answers for all."""
        return np.concatenate([self.components, self.centroids.T, self.mean[:, None]], axis=1)

    @cached_property
    def _projected_mean(self) -> npt.NDArray[np.float64]:
        return self.mean @ self.components

    def _parts(
        self, embeddings: npt.NDArray[np.float16]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Residual and neighbour distance, shape (n, 2), and nearest cell, shape (n,)."""
        parts = np.empty((len(embeddings), 2))
        cells = np.empty(len(embeddings), np.int64)
        inside = self.components.shape[1]
        centre = self.mean @ self.mean
        for start in range(0, len(embeddings), _BLOCK):
            block = slice(start, start + _BLOCK)
            single = embeddings[block].astype(np.float32)
            vectors = single.astype(np.float64)
            projected = product(vectors, self._projection)
            principal = projected[:, :inside] - self._projected_mean
            squared = np.einsum("ij,ij->i", vectors, vectors) - 2.0 * projected[:, -1] + centre
            squared -= np.einsum("ij,ij->i", principal, principal)
            parts[block, 0] = np.sqrt(np.maximum(squared, 0.0))
            nearest = self.nearest_cells(projected[:, inside:-1])
            similar, _ = self.index.search_preassigned(
                single, self.neighbours, nearest, np.zeros(nearest.shape, np.float32)
            )
            # Fewer than k images in the probed cells leave −FLT_MAX: as far as two directions can be.
            parts[block, 1] = 1.0 - np.maximum(similar[:, -1].astype(np.float64), -1.0)
            cells[block] = nearest[:, 0]
        return parts, cells
