"""Knockoff Nets with the random strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from redteam.pictures import Pictures
from redteam.thieves.thief import Rows, held, pool_of, register
from redteam.world import World

__all__ = ["Knockoff"]


@register("knockoff")
@dataclass(frozen=True, slots=True)
class Knockoff:
    """Asks a large foreign pool at random (Orekondy et al. 2019, arXiv 1812.02766, section 4.1).

    Attributes:
        pool: name of the foreign pool.
    """

    pool: str
    foreign: ClassVar[bool] = True
    in_domain: ClassVar[bool] = False
    seeds: ClassVar[int] = 0
    makes: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """``knockoff-POOL``."""
        return f"knockoff-{self.pool}"

    def ask(
        self, world: World, budget: int, rng: np.random.Generator, *, slice_: Rows = slice(None)
    ) -> Pictures:
        """The first pictures of its share of the pool."""
        return held(pool_of(world, self.pool), slice_, rng)[:budget]
