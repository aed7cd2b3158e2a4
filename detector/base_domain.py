"""What every domain has, however it was declared: cells, an index over them, a score, and parts to store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any, ClassVar, Self

import faiss
import numpy as np
import numpy.typing as npt

__all__ = ["PROBES", "BaseDomain"]

PROBES = 4
"""Cells that a nearest-neighbour search looks into."""

_HALF_PRECISION = faiss.ScalarQuantizer.QT_fp16


class BaseDomain(ABC):
    """A domain that is divided into cells. Its subclasses are frozen dataclasses of arrays and numbers.

    Attributes:
        kind: what declares the domain, in a word; baselines are stored under it.
        centroids: L2-normalised centres of the cells, float64, shape (cells, d).
    """

    kind: ClassVar[str]
    centroids: npt.NDArray[np.float64]

    @property
    @abstractmethod
    def size(self) -> int:
        """How many images or prompts declare the domain."""

    @abstractmethod
    def score(
        self, embeddings: npt.NDArray[np.float16]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """How far outside the domain each query lies, the same in every batch.

        Args:
            embeddings: L2-normalised float16, shape (n, d).

        Returns:
            Scores, larger is more foreign, float64 that are exact in float32, shape (n,); and the nearest
            cell of each, shape (n,).
        """

    def nearest_cells(self, similarity: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """The :data:`PROBES` most similar cells of each query, or all of them, best first.

        Args:
            similarity: to each cell, shape (n, cells).
        """
        probes = min(PROBES, similarity.shape[1])
        best = np.argpartition(-similarity, probes - 1, axis=1)[:, :probes]
        order = np.argsort(-np.take_along_axis(similarity, best, axis=1), axis=1, kind="stable")
        return np.take_along_axis(best, order, axis=1)

    def empty_index(self) -> Any:
        """A FAISS inverted file over the cells; half precision loses nothing of float16 embeddings."""
        cells, dim = self.centroids.shape
        index = faiss.IndexIVFScalarQuantizer(
            self._quantizer, dim, cells, _HALF_PRECISION, faiss.METRIC_INNER_PRODUCT, False
        )
        index.is_trained = True
        index.nprobe = min(PROBES, cells)
        return index

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays that the domain consists of, by name."""
        return {name: part for name, part in self._parts_by_name().items() if isinstance(part, np.ndarray)}

    def settings(self) -> dict[str, Any]:
        """The numbers that it consists of, by name."""
        parts = self._parts_by_name()
        return {name: part for name, part in parts.items() if not isinstance(part, np.ndarray)}

    @classmethod
    def from_parts(cls, settings: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Put :meth:`arrays` and :meth:`settings` together again.

        Raises:
            KeyError: one is missing.
        """
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # subclasses are dataclasses
        return cls(**{name: settings[name] if name in settings else arrays[name] for name in names})

    def _parts_by_name(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @cached_property
    def _quantizer(self) -> Any:
        quantizer = faiss.IndexFlatIP(self.centroids.shape[1])
        quantizer.add(self.centroids.astype(np.float32))
        return quantizer
