"""The small differentiable network that a thief trains on the answers, to follow its gradients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from redteam.victims import as_input

__all__ = ["Substitute"]


class Substitute:
    """A convolutional classifier on pixels, much smaller than the victim.

    Args:
        classes: number of the victim's.
        rng: seeds weights and batch order.
    """

    def __init__(self, classes: int, rng: np.random.Generator) -> None:
        self._chance = torch.Generator().manual_seed(int(rng.integers(2**31)))
        layers: list[nn.Module] = []
        for inward, outward in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(inward, outward, 3, stride=2, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, classes))
        with torch.no_grad():
            for weights in self.model.parameters():
                # He et al. 2015; drawn here because PyTorch's own start takes its global generator.
                deviation = (2 / max(weights[0].numel(), 1)) ** 0.5 if weights.ndim > 1 else 0.0
                weights.copy_(torch.randn(weights.shape, generator=self._chance) * deviation)
        self._optimiser = torch.optim.Adam(self.model.parameters(), lr=2e-3)

    def fit(self, pixels: npt.NDArray[np.uint8], answers: npt.NDArray[np.int64], epochs: int = 10) -> None:
        """Go on training on everything answered so far.

        Args:
            pixels: uint8, shape (n, side, side, 3).
            answers: the victim's labels, shape (n,).
            epochs: passes over them.
        """
        images, targets = as_input(pixels).contiguous(), torch.from_numpy(answers)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(images), generator=self._chance), 64):
                self._optimiser.zero_grad()
                F.cross_entropy(self.model(images[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
                self._optimiser.step()

    def gradients(
        self, pixels: npt.NDArray[np.uint8], classes: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Derivative of each picture's log-score of one class with respect to its pixels.

        Args:
            pixels: uint8, shape (n, side, side, 3).
            classes: one for each picture, shape (n,).

        Returns:
            Shape (n, side, side, 3).
        """
        images = as_input(pixels).requires_grad_()
        scores = self.model(images).log_softmax(dim=1)
        scores[torch.arange(len(images)), torch.from_numpy(classes)].sum().backward()
        assert images.grad is not None
        return np.asarray(images.grad.permute(0, 2, 3, 1).numpy(), np.float32)
