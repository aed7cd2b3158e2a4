"""What a thief is to the benchmark, and the registry of the kinds there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from redteam.errors import RedteamError
from redteam.pictures import Pictures
from redteam.world import World

__all__ = ["KINDS", "Rows", "Thief", "held", "pool_of", "register"]

Rows = slice | npt.NDArray[np.int64]
"""Which pictures of its pool a replicate holds: a slice in random order, or exactly these rows, in order."""


class Thief(Protocol):
    """Somebody who asks for the sake of the answers.

    Attributes:
        foreign: whether the constructor takes the name of a foreign pool.
        in_domain: whether its queries are natural pictures of the domain: of those no detector can promise
            anything.
        makes: whether it makes its pictures, which then have to be encoded first.
        seeds: queries that come first and are plain pictures of the domain; delays count from after them.
    """

    foreign: ClassVar[bool]
    in_domain: ClassVar[bool]
    makes: ClassVar[bool]
    seeds: ClassVar[int]

    @property
    def name(self) -> str:
        """What the tables call it: the kind, and the pool where it has one."""

    def ask(
        self, world: World, budget: int, rng: np.random.Generator, *, slice_: Rows = slice(None)
    ) -> Pictures:
        """Make the queries.

        Args:
            world: what is attacked. A thief takes of it what a thief has: foreign pools, its own pictures of
                the domain, and the victim's answers.
            budget: queries at most, seeds included; fewer come where the pool is exhausted.
            rng: decides everything that is left to chance.
            slice_: which pictures of its pool this replicate holds; nothing to a thief that draws its own.

        Returns:
            The queries, in the order asked.
        """


Maker = TypeVar("Maker", bound=Callable[..., Thief])

KINDS: dict[str, Callable[..., Thief]] = {}
"""Thieves by kind."""


def register(kind: str) -> Callable[[Maker], Maker]:
    """Enter a class in `KINDS`."""

    def enter(maker: Maker) -> Maker:
        KINDS[kind] = maker
        return maker

    return enter


def held(pictures: Pictures, slice_: Rows, rng: np.random.Generator) -> Pictures:
    """The pictures that a replicate holds, in the order in which it would ask them blindly."""
    if isinstance(slice_, slice):
        slice_ = rng.permutation(np.arange(len(pictures))[slice_])
    return pictures[slice_]


def pool_of(world: World, name: str) -> Pictures:
    """A foreign pool.

    Raises:
        RedteamError: the world has none of that name.
    """
    if name not in world.pools:
        raise RedteamError(
            f"no foreign pool {name!r} beside {world.name}; there are {', '.join(world.pools)}"
        )
    return world.pools[name]
