"""The two out-of-domain scores by which embeddings are compared, and how well they tell domains apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

__all__ = ["COMPONENTS", "NEIGHBOUR", "Detection", "detect", "fit_domain", "separation"]

COMPONENTS = 32
NEIGHBOUR = 5


@dataclass(frozen=True, slots=True)
class Domain:
    """What is kept of a reference for scoring.

    Attributes:
        reference: L2-normalised embeddings, float32, shape (n, d).
        mean: Their mean, shape (d,).
        basis: Their leading principal components, orthonormal rows, shape (components, d).
        location: Mean of residual and neighbour distance over calibration images, shape (2,).
        spread: Their standard deviation, shape (2,).
    """

    reference: np.ndarray
    mean: np.ndarray
    basis: np.ndarray
    location: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True, slots=True)
class Detection:
    """AUROC of each score: foreign images against images of the domain."""

    residual: float
    neighbour: float
    both: float


def fit_domain(reference: np.ndarray, calibration: np.ndarray, components: int = COMPONENTS) -> Domain:
    """Fit the scores to a reference; standardise them on images that fitted nothing.

    The residual is ViM's (Wang et al. 2022): the norm of what of x − mean lies outside the `components`
    leading principal directions of the reference. The neighbour distance is deep kNN's (Sun et al. 2022): one
    minus the cosine with the 5th nearest reference embedding.

    Args:
        reference: L2-normalised embeddings, float32, shape (n, d).
        calibration: L2-normalised embeddings, float32, shape (m, d).
        components: The size of the principal subspace.
    """
    mean = reference.mean(0)
    _, vectors = np.linalg.eigh(np.cov(reference, rowvar=False))
    basis = np.ascontiguousarray(vectors[:, ::-1][:, :components].T).astype(np.float32)
    bare = Domain(reference, mean, basis, np.zeros(2), np.ones(2))
    scores = detect(bare, calibration)
    return Domain(reference, mean, basis, scores.mean(0), scores.std(0))


def detect(domain: Domain, embeddings: np.ndarray) -> np.ndarray:
    """Standardised residual and neighbour distance, shape (n, 2); larger is more foreign."""
    centred = embeddings - domain.mean
    residual = np.linalg.norm(centred - (centred @ domain.basis.T) @ domain.basis, axis=1)
    cosines = embeddings @ domain.reference.T
    neighbour = 1 - np.partition(cosines, -NEIGHBOUR, axis=1)[:, -NEIGHBOUR]
    scores: np.ndarray = (np.stack([residual, neighbour], axis=1) - domain.location) / domain.spread
    return scores


def separation(domain: Domain, own: np.ndarray, foreign: np.ndarray) -> Detection:
    """AUROC of both scores and of their sum."""
    scores = np.concatenate([detect(domain, own), detect(domain, foreign)])
    truth = np.repeat([0, 1], [len(own), len(foreign)])
    return Detection(
        roc_auc_score(truth, scores[:, 0]),
        roc_auc_score(truth, scores[:, 1]),
        roc_auc_score(truth, scores.sum(1)),
    )
