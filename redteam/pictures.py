"""Pictures with everything that is computed of each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Pictures"]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures as one endpoint met them; rows line up.

    Attributes:
        pixels: what the victim sees, uint8, shape (n, side, side, 3).
        embeddings: of the picture as it was sent, L2-normalised, float16, shape (n, d).
        fingerprints: perceptual hashes (`embeddings.decoding.fingerprint`), uint64, shape (n,).
        answers: the victim's scores, in [0, 1], rows sum to 1, float32, shape (n, classes).
        labels: what the picture truly shows, where that is known, else empty; text, shape (n,).

    Examples:
        >>> two = Pictures(
        ...     np.zeros((2, 4, 4, 3), np.uint8),
        ...     np.ones((2, 1), np.float16),
        ...     np.zeros(2, np.uint64),
        ...     np.array([[0.75, 0.25], [0.5, 0.5]], np.float32),
        ...     np.array(["cat", ""]),
        ... )
        >>> len(two[:1]), two.margins.tolist(), len(Pictures.join([two, two]))
        (1, [0.5, 0.0], 4)
    """

    pixels: npt.NDArray[np.uint8]
    embeddings: npt.NDArray[np.float16]
    fingerprints: npt.NDArray[np.uint64]
    answers: npt.NDArray[np.float32]
    labels: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.fingerprints)

    def __getitem__(self, rows: slice | npt.NDArray[Any]) -> Pictures:
        """Some of the pictures, in the order asked for: a slice, indices or a mask."""
        return Pictures(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def join(parts: Sequence[Pictures]) -> Pictures:
        """One after the other; at least one part, which may be empty."""
        names = [field.name for field in fields(Pictures)]
        return Pictures(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @property
    def margins(self) -> npt.NDArray[np.float32]:
        """Best score minus second best, float32, shape (n,): near 0 beside the victim's boundary."""
        best = np.partition(self.answers, -2, axis=1)
        return np.asarray(best[:, -1] - best[:, -2], np.float32)
