"""The surrogate: what a thief would train on the answers he got, as multinomial logistic regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Space", "label_exam"]

Floats = npt.NDArray[np.float64]

RANK = 128
"""Directions that a surrogate sees; the domain varies little in the others."""

RIDGE = 0.5
"""Penalty on the squared weights, in units of one answer."""

STEPS = 50


@dataclass(frozen=True, slots=True)
class Space:
    """Embeddings as a thief's features see them: directions in which the domain varies much count more.

    An encoder for detection may whiten its embeddings, so that each direction counts alike. Features that
    were trained to tell things apart do not: what varies most among a domain's pictures is mostly what they
    show. The coordinates along the exam's principal axes are multiplied by their standard deviation.

    Attributes:
        centre: mean of the exam, float64, shape (d,).
        axes: principal axes times their scale, float64, shape (d, r), r ≤ :data:`RANK`.
    """

    centre: Floats
    axes: Floats

    @classmethod
    def of(cls, exam: npt.NDArray[np.float16]) -> Space:
        """Fit to the exam's embeddings; in it they have a mean squared length of 1.

        Args:
            exam: float16, shape (m, d), m ≥ 1.
        """
        centre = exam.mean(axis=0, dtype=np.float64)
        varied = exam - centre
        variances, axes = np.linalg.eigh(varied.T @ varied / len(exam))
        variances = np.maximum(variances[::-1][:RANK], 0.0)
        length = np.sqrt(np.square(variances).sum())
        scale = np.sqrt(variances) / length if length > 0.0 else np.zeros_like(variances)
        return cls(centre, axes[:, ::-1][:, :RANK] * scale)

    def __call__(self, embeddings: npt.NDArray[np.float16]) -> Floats:
        """Features, float64, shape (n, r)."""
        placed: Floats = (embeddings - self.centre) @ self.axes
        return placed


def label_exam(asked: Floats, answers: Floats, exam: Floats) -> npt.NDArray[np.int64]:
    """Fit on what was asked and say what the fitted model answers in the exam.

    Minimises  −Σᵢ Σₖ yᵢₖ log softmax(Wxᵢ)ₖ + ½·RIDGE·‖W‖²  over W, an intercept included. The Hessian is at
    most ½XᵀX ⊗ I + RIDGE·I (Böhning 1992), so steps with the inverse of that bound, which is diagonal in the
    principal axes of X, never overshoot; they are sped up by Nesterov's (1983) momentum. A fixed number of
    steps, no randomness: the same pairs give the same weights.

    Args:
        asked: features, shape (n, r).
        answers: what the endpoint answered, rows that sum to 1, shape (n, classes).
        exam: features, shape (m, r).

    Returns:
        Classes, int64, shape (m,).

    References:
        Böhning (1992), Multinomial logistic regression algorithm, Ann. Inst. Statist. Math. 44(1), section 3.
        Nesterov (1983), A method of solving a convex programming problem with convergence rate O(1/k²).
    """
    mean = asked.mean(axis=0)
    inputs = _with_intercept(asked - mean)
    values, axes = _principal(inputs)
    inputs, step = inputs @ axes, 1.0 / (0.5 * values + RIDGE)[:, None]
    weights = ahead = np.zeros((inputs.shape[1], answers.shape[1]))
    speed = 1.0
    for _ in range(STEPS):
        said = inputs @ ahead
        said = np.exp(said - said.max(axis=1, keepdims=True))
        said /= said.sum(axis=1, keepdims=True)
        moved = ahead + step * (inputs.T @ (answers - said) - RIDGE * ahead)
        faster = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * speed * speed))
        ahead = moved + (speed - 1.0) / faster * (moved - weights)
        weights, speed = moved, faster
    labels: npt.NDArray[np.int64] = (_with_intercept(exam - mean) @ (axes @ weights)).argmax(axis=1)
    return labels


def _principal(inputs: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues of XᵀX and their axes, those that X spans; from the smaller of its two Gram matrices."""
    n, r = inputs.shape
    if n < r:
        _, lengths, axes = np.linalg.svd(inputs, full_matrices=False)
        return np.square(lengths), axes.T
    values, axes = np.linalg.eigh(inputs.T @ inputs)
    return np.maximum(values, 0.0), axes


def _with_intercept(features: Floats) -> Floats:
    """A constant beside the features, small: a prior over classes is learned from many answers only."""
    return np.hstack([features, np.full((len(features), 1), 0.1)])
