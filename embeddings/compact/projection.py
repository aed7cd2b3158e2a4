"""The linear map from trunk features to the embedding that the detector scores.

A linear map on the image side is absorbed by the text side, so it is chosen for detection alone and the text
tower is trained into its space. Whitening makes a direction that carries little variance in images at large,
but on which the reference is narrow, count as much as any other; the residual of ViM (Wang et al. 2022) and
cosine distances of deep kNN (Sun et al. 2022) both gain from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Projection", "fit_projection"]


@dataclass(frozen=True, slots=True)
class Projection:
    """An affine map x ↦ Wx + b.

    Attributes:
        weight: float32, shape (d, 1280).
        bias: float32, shape (d,).
    """

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Map trunk features (n, 1280) to L2-normalised embeddings, float32, shape (n, d)."""
        mapped = features @ self.weight.T + self.bias
        embedded: np.ndarray = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
        return embedded


def fit_projection(every: np.ndarray, photographs: np.ndarray, dimensions: int, ridge: float) -> Projection:
    """Whiten by the covariance of all training images, keep what varies most among photographs.

    With Σ the covariance of `every`, λ its largest eigenvalue and Σₚ the covariance of `photographs`:
    A = (Σ + ridge·λ·I)^(−1/2), U the leading eigenvectors of AΣₚA, and the map is x ↦ UᵀA(x − μₚ).

    Args:
        every: Trunk features of all training images, shape (n, 1280).
        photographs: Trunk features of those that are photographs, shape (m, 1280).
        dimensions: The size d of the embedding.
        ridge: What is added to the spectrum, as a share of its largest eigenvalue.
    """
    values, vectors = np.linalg.eigh(np.cov(every, rowvar=False))
    whitening = (vectors / np.sqrt(values + ridge * values[-1])) @ vectors.T
    _, rotation = np.linalg.eigh(whitening @ np.cov(photographs, rowvar=False) @ whitening)
    weight = rotation[:, ::-1][:, :dimensions].T @ whitening
    bias = -weight @ photographs.mean(axis=0)
    return Projection(weight.astype(np.float32), bias.astype(np.float32))
