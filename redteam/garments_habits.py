"""What clients of the demo ask, one after another: honest habits and thieves' query sets.

A habit returns groups of pictures. A group is asked within a minute or two; the time between groups is
the client's own (see ``garments_clients``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.ndimage import shift

from redteam.errors import SourceDataError
from redteam.garments_images import LABELS, SIDE

__all__ = [
    "SUMMER",
    "WINTER",
    "Group",
    "Picture",
    "Stock",
    "camouflaged",
    "drawings_only",
    "drifting",
    "health_check",
    "junk",
    "near_duplicates",
    "weighted",
]

SUMMER = ("t-shirt", "dress", "sandal", "shirt")
WINTER = ("pullover", "coat", "ankle boot", "trousers")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to ask.

    Attributes:
        image: grey values, uint8, shape (28, 28).
        foreign: whether it shows no garment.
    """

    image: npt.NDArray[np.uint8]
    foreign: bool


Group = list[Picture]


class Stock:
    """Garments by label and drawings, each handed out once.

    Args:
        images: garments, uint8, shape (n, 28, 28).
        labels: index into ``LABELS``, shape (n,).
        drawings: dressed drawings, uint8, shape (k, 28, 28).
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        drawings: npt.NDArray[np.uint8],
    ) -> None:
        self._garments = {
            name: [Picture(image, foreign=False) for image in images[labels == label]]
            for label, name in enumerate(LABELS)
        }
        self._drawings = [Picture(image, foreign=True) for image in drawings]

    def garment(self, label: str) -> Picture:
        """Hand out a garment of one label."""
        return self._take(self._garments[label], label)

    def drawing(self) -> Picture:
        """Hand out a drawing."""
        return self._take(self._drawings, "drawing")

    @staticmethod
    def _take(shelf: list[Picture], name: str) -> Picture:
        if not shelf:
            raise SourceDataError(f"no {name} is left in stock; ask for fewer or keep more of them apart")
        return shelf.pop()


def weighted(
    stock: Stock, rng: np.random.Generator, queries: int, weights: npt.NDArray[np.float64] | None = None
) -> list[Group]:
    """Independent garments; labels drawn with the weights given, evenly without."""
    names = rng.choice(LABELS, queries, p=weights)
    return [[stock.garment(str(name))] for name in names]


def drifting(stock: Stock, rng: np.random.Generator, queries: int) -> list[Group]:
    """Garments whose season turns: the chance of a winter label rises from 0 to 1 over the queries."""
    winter = rng.random(queries) < np.linspace(0, 1, queries)
    return [[stock.garment(str(rng.choice(WINTER if cold else SUMMER)))] for cold in winter]


def near_duplicates(
    stock: Stock, rng: np.random.Generator, queries: int, labels: Sequence[str] = LABELS
) -> list[Group]:
    """Bursts of 3 to 8 takes of one garment: moved by up to a pixel, brighter or darker, a little noise."""
    groups: list[Group] = []
    while (left := queries - sum(map(len, groups))) > 0:
        original = stock.garment(str(rng.choice(labels)))
        takes = min(left, int(rng.integers(3, 9)))
        groups.append([original, *(_retake(original, rng) for _ in range(takes - 1))])
    return groups


def health_check(stock: Stock, probes: int) -> list[Group]:
    """One odd picture, a drawing that a tester once chose, repeated to the bit."""
    return [[stock.drawing()]] * probes


def junk(stock: Stock, rng: np.random.Generator, queries: int) -> list[Group]:
    """What a new integrator tries first: test cards, screenshots and drawings in turn."""
    kinds = (_test_card, _screenshot, lambda _: stock.drawing())
    return [[kinds[turn % len(kinds)](rng)] for turn in range(queries)]


def drawings_only(stock: Stock, queries: int) -> list[Group]:
    """A Knockoff thief's set: natural pictures of anything but the endpoint's domain."""
    return [[stock.drawing()] for _ in range(queries)]


def camouflaged(stock: Stock, rng: np.random.Generator, queries: int) -> list[Group]:
    """Garments and drawings, half and half, in random order."""
    foreign = rng.permutation(np.arange(queries) % 2 == 0)
    return [[stock.drawing() if odd else stock.garment(str(rng.choice(LABELS)))] for odd in foreign]


def _retake(original: Picture, rng: np.random.Generator) -> Picture:
    moved = shift(original.image.astype(np.float64), rng.uniform(-1, 1, 2), order=1)
    noisy = moved * rng.uniform(0.88, 1.08) + rng.normal(0, 3, moved.shape) * (moved > 0)
    return Picture(noisy.clip(0, 255).round().astype(np.uint8), original.foreign)


def _test_card(rng: np.random.Generator) -> Picture:
    ramp = np.add.outer(rng.integers(0, 5) * np.arange(SIDE), rng.integers(3, 9) * np.arange(SIDE))
    checks = np.indices((SIDE, SIDE)).sum(axis=0) // int(rng.integers(2, 6)) % 2
    return Picture((ramp % 256 * 0.6 + checks * rng.integers(40, 100)).astype(np.uint8), foreign=True)


def _screenshot(rng: np.random.Generator) -> Picture:
    canvas = Image.new("L", (SIDE, SIDE), int(rng.integers(200, 256)))
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((0, 0, SIDE, int(rng.integers(2, 6))), fill=int(rng.integers(40, 140)))
    for line in range(8, SIDE, 3):
        pen.line((2, line, int(rng.integers(6, SIDE)), line), fill=int(rng.integers(0, 120)))
    return Picture(np.asarray(canvas, np.uint8), foreign=True)
