"""A world out of thin air: pictures are pixels, and the encoder is a random projection of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from detector.baseline import EncoderKey
from redteam.pictures import Pictures
from redteam.victims import Victim
from redteam.world import World

SIDE, DIM = 8, 32
CLASSES = ("bright", "dark")
_PIXELS = SIDE * SIDE * 3
_PROJECTION = np.random.default_rng(1).normal(size=(_PIXELS, DIM))
_PATTERNS = np.random.default_rng(2).normal(size=(6, _PIXELS))


class Projection:
    """Encodes pixels without an encoder."""

    def pixels(self, pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint64]]:
        flat = pixels.reshape(len(pixels), _PIXELS).astype(np.float64) / 255
        vectors = flat @ _PROJECTION
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        # One bit a coarse cell, as perceptual hashes have.
        coarse = pixels.astype(np.float64).mean(axis=3).reshape(len(pixels), 64)
        bits = (coarse > coarse.mean(axis=1, keepdims=True)).astype(np.uint64)
        return vectors.astype(np.float16), (bits << np.arange(64, dtype=np.uint64)).sum(
            axis=1, dtype=np.uint64
        )


def domain(rng: np.random.Generator, count: int) -> npt.NDArray[np.uint8]:
    """Mixtures of six patterns around grey."""
    mixed = 128 + 18 * rng.normal(size=(count, len(_PATTERNS))) @ _PATTERNS
    return np.clip(mixed, 0, 255).astype(np.uint8).reshape(count, SIDE, SIDE, 3)


def noise(rng: np.random.Generator, count: int) -> npt.NDArray[np.uint8]:
    """Pixels that have nothing to do with one another."""
    return rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def make_world(home: Path) -> World:
    """A world of 2,000 pictures; its victim compares two halves of the picture."""
    rng = np.random.default_rng(3)
    layer = nn.Linear(_PIXELS, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.stack([_PATTERNS[0], -_PATTERNS[0]])) / 20)
        layer.bias.zero_()
    victim = Victim(nn.Sequential(nn.Flatten(), layer), CLASSES)
    sender = Projection()

    def pictures(pixels: npt.NDArray[np.uint8]) -> Pictures:
        answers = victim.scores(pixels)
        return Pictures(pixels, *sender.pixels(pixels), answers, np.array(CLASSES)[answers.argmax(axis=1)])

    sizes = {"reference": 900, "trusted": 300, "benign": 400, "thief": 200, "exam": 150}
    parts = {name: pictures(domain(rng, count)) for name, count in sizes.items()}
    return World(
        name="made-up",
        classes=CLASSES,
        encoder=EncoderKey("projection", "cd" * 32, DIM),
        **parts,
        pools={"noise": pictures(noise(rng, 600))},
        victim=victim,
        sender=sender,  # type: ignore[arg-type]
        home=home,
    )
