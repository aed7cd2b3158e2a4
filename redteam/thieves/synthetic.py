"""Queries made by moving earlier queries along a substitute's gradients: JBDA and T-RND."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from redteam.pictures import Pictures
from redteam.thieves.substitute import Substitute
from redteam.thieves.thief import Rows, held, register
from redteam.world import World

__all__ = ["Jbda", "Trnd"]


class _Synthetic(ABC):
    """Seeds from the domain, then rounds that move every picture asked so far and ask the results."""

    foreign: ClassVar[bool] = False
    in_domain: ClassVar[bool] = False
    seeds: ClassVar[int] = 100
    makes: ClassVar[bool] = True

    @abstractmethod
    def _moved(
        self, substitute: Substitute, asked: Pictures, rng: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        """One new picture of each that was asked, uint8, shape (n, side, side, 3)."""

    def ask(
        self, world: World, budget: int, rng: np.random.Generator, *, slice_: Rows = slice(None)
    ) -> Pictures:
        """Seeds, and doublings of what was asked until the budget is spent."""
        asked = held(world.thief, slice_, rng)[: min(self.seeds, budget)]
        substitute = Substitute(len(world.classes), rng)
        while len(asked) < budget:
            substitute.fit(asked.pixels, asked.answers.argmax(axis=1))
            # Papernot et al. 2017 cap the growth by reservoir sampling; here a random part is moved.
            wanted = min(len(asked), budget - len(asked))
            parents = asked[rng.permutation(len(asked))[:wanted]]
            moved = self._moved(substitute, parents, rng)
            asked = Pictures.join([asked, world.send(moved, parents.labels)])
        return asked


@register("jbda")
@dataclass(frozen=True, slots=True)
class Jbda(_Synthetic):
    """Jacobian-based data set augmentation (Papernot et al. 2017, arXiv 1602.02697).

    x ← x + λ · sgn(∂F_c(x) / ∂x), with c the victim's label of x and λ = 0.1 of the pixels' range.
    """

    step: float = 0.1

    @property
    def name(self) -> str:
        """``jbda``."""
        return "jbda"

    def _moved(
        self, substitute: Substitute, asked: Pictures, rng: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        slope = substitute.gradients(asked.pixels, asked.answers.argmax(axis=1))
        return _shift(asked.pixels, 255 * self.step * np.sign(slope))


@register("t-rnd")
@dataclass(frozen=True, slots=True)
class Trnd(_Synthetic):
    """Targeted random (Juuti et al. 2019, arXiv 1805.02628, "T-RND").

    Each picture walks in ``steps`` steps towards a class drawn at random among those it is not:
    x ← x + (ε / steps) · sgn(∂ log F_target(x) / ∂x), with ε = 64 / 255 of the pixels' range.
    """

    reach: float = 64 / 255
    steps: int = 5

    @property
    def name(self) -> str:
        """``t-rnd``."""
        return "t-rnd"

    def _moved(
        self, substitute: Substitute, asked: Pictures, rng: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        classes = asked.answers.shape[1]
        targets = (asked.answers.argmax(axis=1) + rng.integers(1, classes, len(asked))) % classes
        pixels = asked.pixels
        for _ in range(self.steps):
            slope = substitute.gradients(pixels, targets)
            pixels = _shift(pixels, 255 * self.reach / self.steps * np.sign(slope))
        return pixels


def _shift(pixels: npt.NDArray[np.uint8], by: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Move pixels and keep them in [0, 255]."""
    return np.clip(np.rint(pixels + by), 0, 255).astype(np.uint8)
