"""What an honest client is to the benchmark, and the registry of its habits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from redteam.pictures import Pictures
from redteam.world import World

__all__ = ["Draw", "Family", "family", "registered"]


class Draw(Protocol):
    """Makes the queries of one client with the habit."""

    def __call__(self, world: World, part: Pictures, queries: int, rng: np.random.Generator) -> Pictures:
        """Draw one client's queries; see `Family.ask`."""


@dataclass(frozen=True, slots=True)
class Family:
    """A habit of honest clients.

    Attributes:
        name: what the tables call it.
        represented: whether the trusted history holds clients with its like, drawn with other settings and
            from other pictures (`redteam.honest.trusted_history`). The promise is made to those.
        draw: makes the queries.
    """

    name: str
    represented: bool
    draw: Draw

    def ask(self, world: World, part: Pictures, queries: int, rng: np.random.Generator) -> Pictures:
        """One client's queries, in order.

        Args:
            world: encodes fresh pictures, and has the foreign pools that junk is drawn from.
            part: the pictures of the domain that the client draws from.
            queries: how many. A client that asks more than there are begins again: such queries are exact
                repeats.
            rng: decides everything.

        Raises:
            RedteamError: the habit needs pictures that the world has not.
        """
        return self.draw(world, part, queries, rng)


registered: dict[str, Family] = {}
"""Families by name."""


def family(name: str, draw: Draw, *, represented: bool = False) -> Family:
    """Enter a family in the registry."""
    registered[name] = Family(name, represented, draw)
    return registered[name]
