"""The classifier behind the garments endpoint: a small CNN that answers every query of the demo."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from redteam.garments_images import LABELS

__all__ = ["answer", "train_classifier"]


def train_classifier(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], *, seed: int, epochs: int = 3
) -> nn.Module:
    """Train the endpoint's classifier from scratch; equal inputs give equal weights on one machine.

    Sets PyTorch's thread count to 2 and asks it for deterministic algorithms.

    Args:
        images: grey values, uint8, shape (n, 28, 28).
        labels: index into ``LABELS``, int64, shape (n,).
        seed: of weights and batch order.
        epochs: passes over the images.
    """
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, len(LABELS)),
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    inputs, targets = _as_input(images), torch.from_numpy(labels)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(inputs)), 128):
            optimiser.zero_grad()
            F.cross_entropy(model(inputs[batch]), targets[batch]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return model.eval()


def answer(model: nn.Module, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Class probabilities, float32, shape (n, 10), for grey pictures of shape (n, 28, 28)."""
    with torch.inference_mode():
        batches = [model(batch).softmax(dim=1) for batch in torch.split(_as_input(images), 512)]
    return np.asarray(torch.cat(batches).numpy(), np.float32)


def _as_input(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images.astype(np.float32) / 255 - 0.5).unsqueeze(1)
