"""The thief that knows how Banken scores and asks its least suspicious pictures first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from detector.domain import Domain
from redteam.pictures import Pictures
from redteam.thieves.thief import Rows, held, pool_of, register
from redteam.world import World

__all__ = ["DetectorAware"]


@register("detector-aware")
@dataclass(frozen=True, slots=True)
class DetectorAware:
    """Sorts a foreign pool by the out-of-domain score and asks from the familiar end.

    The detector and its encoder are public; the owner's reference is not. So the thief fits a domain of its
    own on pictures of the domain that it holds, and takes that score for the owner's. No paper describes it:
    it is what an informed adversary would do to us first.

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
        """``detector-aware-POOL``."""
        return f"detector-aware-{self.pool}"

    def ask(
        self, world: World, budget: int, rng: np.random.Generator, *, slice_: Rows = slice(None)
    ) -> Pictures:
        """The least foreign of its share of the pool, least foreign first."""
        pool = held(pool_of(world, self.pool), slice_, rng)
        own = world.thief.embeddings[rng.permutation(len(world.thief))]
        scales = len(own) // 4
        scores, _ = Domain.fit(own[scales:], own[:scales]).score(pool.embeddings)
        return pool[np.argsort(scores, kind="stable")[:budget]]
