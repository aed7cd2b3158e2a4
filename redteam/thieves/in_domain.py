"""The thief that holds pictures of the domain and asks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from redteam.pictures import Pictures
from redteam.thieves.thief import Rows, held, register
from redteam.world import World

__all__ = ["InDomain"]


@register("in-domain")
@dataclass(frozen=True, slots=True)
class InDomain:
    """Asks natural pictures of the domain (the stronger adversary of Atli et al. 2019, arXiv 1910.05429).

    Query by query nothing sets it apart from an honest client.
    """

    foreign: ClassVar[bool] = False
    in_domain: ClassVar[bool] = True
    seeds: ClassVar[int] = 0
    makes: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """``in-domain``."""
        return "in-domain"

    def ask(
        self, world: World, budget: int, rng: np.random.Generator, *, slice_: Rows = slice(None)
    ) -> Pictures:
        """The first pictures of its share of the thieves' pictures of the domain."""
        return held(world.thief, slice_, rng)[:budget]
