"""ADD: do an account's latest queries lie where each class's training pictures lie?

Mei, Zhang, Chen, Zhang and Zhu, "Defense Against Model Stealing Based on Account-Aware Distribution
Discrepancy", AAAI 2025, arXiv 2503.12497: classes as normal distributions in the victim's feature space, and
the account's malicious score as the weighted sum of class-wise squared Fréchet distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from redteam.pictures import Pictures
from redteam.rivals.rival import Watch, peaks
from redteam.victims import Victim, as_input
from redteam.world import World

__all__ = ["WIDTH", "AddScores", "ClassNormals", "fit_add"]

WIDTH = 16
"""Queries of the account in the window, as the paper has it for CIFAR-10."""


@dataclass(frozen=True, slots=True)
class ClassNormals:
    """One normal distribution a class, in the features before the victim's last layer.

    Attributes:
        features: the victim without its last layer.
        means: shape (classes, d).
        covariances: shape (classes, d, d).
    """

    features: nn.Module
    means: npt.NDArray[np.float64]
    covariances: npt.NDArray[np.float64]

    @staticmethod
    def of(victim: Victim, training: Pictures) -> ClassNormals:
        """Fit them to training pictures, by the class that the victim gives them."""
        features = nn.Sequential(*list(victim.model.children())[:-1]).eval()
        found = _extract(features, training.pixels)
        predicted = training.answers.argmax(axis=1)
        classes, d = training.answers.shape[1], found.shape[1]
        means, covariances = np.zeros((classes, d)), np.zeros((classes, d, d))
        for label in np.unique(predicted):
            own = found[predicted == label]
            means[label] = own.mean(axis=0)
            covariances[label] = np.cov(own, rowvar=False, bias=True)
        return ClassNormals(features, means, covariances)

    def extract(self, asked: Pictures) -> npt.NDArray[np.float64]:
        """Features of queries, shape (n, d)."""
        return _extract(self.features, asked.pixels)


@dataclass(slots=True)
class AddScores:
    """Malicious score of one account's latest ``WIDTH`` queries.

    With n_c of them in class c, mean m̂_c and covariance Ŝ_c there, the score is
    Σ_c (n_c / WIDTH) · (‖μ_c − m̂_c‖² + tr S_c + tr Ŝ_c − 2 tr (S_c Ŝ_c)^½). Ŝ_c has rank below n_c, so the
    last trace is that of the square root of an n_c × n_c matrix; all classes of a window form the diagonal
    blocks of one WIDTH × WIDTH matrix, and the windows of a push are one batch.
    """

    normals: ClassNormals
    _features: npt.NDArray[np.float64] = field(init=False)
    _classes: npt.NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))

    def __post_init__(self) -> None:
        self._features = np.empty((0, self.normals.means.shape[1]))

    def push(self, asked: Pictures) -> npt.NDArray[np.float64]:
        """The score after each query; NaN until the window is full."""
        features = np.concatenate([self._features, self.normals.extract(asked)])
        classes = np.concatenate([self._classes, asked.answers.argmax(axis=1)])
        missing = max(0, min(len(asked), WIDTH - 1 - len(self._features)))
        scores = np.full(len(asked), np.nan)
        if missing < len(asked):
            scores[missing:] = self._score(features, classes)
        self._features, self._classes = features[-WIDTH + 1 :], classes[-WIDTH + 1 :]
        return scores

    def _score(
        self, features: npt.NDArray[np.float64], classes: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.float64]:
        mapped = np.empty_like(features)
        for label in np.unique(classes).tolist():
            own = classes == label
            mapped[own] = features[own] @ self.normals.covariances[label]
        rows = np.arange(WIDTH) + np.arange(len(features) - WIDTH + 1)[:, None]
        label = classes[rows]
        same = label[:, :, None] == label[:, None, :]
        average = same / same.sum(axis=2, keepdims=True)
        centre = average @ features[rows]
        spread = features[rows] - centre
        blocks = average * (spread @ (mapped[rows] - average @ mapped[rows]).transpose(0, 2, 1))
        weights = same.sum(axis=2) / WIDTH
        blocks *= weights[:, :, None] ** 2  # the root then carries each class's weight
        roots = np.sqrt(np.maximum(np.linalg.eigvalsh(blocks), 0)).sum(axis=1)
        traces = np.trace(self.normals.covariances, axis1=1, axis2=2)[label]
        apart = ((self.normals.means[label] - centre) ** 2).sum(axis=2)
        return np.asarray((apart + traces + (spread**2).sum(axis=2)).mean(axis=1) - 2 * roots)


def _extract(features: nn.Module, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    with torch.inference_mode():
        parts = [features(as_input(pixels[at : at + 500])) for at in range(0, len(pixels), 500)]
    return torch.cat(parts).numpy().astype(np.float64)


def fit_add(world: World, trusted: Sequence[Pictures]) -> Watch:
    """ADD; its threshold is the highest score of any trusted client's window.

    The paper turns the score into noise on the answers and names no threshold, so that is ours.

    Raises:
        RedteamError: no trusted client filled a window.
    """
    start = partial(AddScores, ClassNormals.of(world.victim, world.reference))
    return Watch("add", float(peaks("add", start, trusted).max()), start)
