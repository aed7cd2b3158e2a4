"""The trusted history: what an owner would calibrate on before any thief came."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from redteam.honest.cameras import retakes
from redteam.honest.mixes import drifting, evenly, of_classes, skewed
from redteam.pictures import Pictures
from redteam.traffic import Traffic, merge, one_client
from redteam.world import World

__all__ = ["trusted_history"]

_Draw = Callable[[World, int, np.random.Generator], Pictures]

_MIX: tuple[tuple[float, _Draw], ...] = (
    (0.3, lambda world, queries, rng: evenly(world, world.trusted, queries, rng)),
    (0.3, lambda world, queries, rng: skewed(world, world.trusted, queries, rng, concentration=1.0)),
    (
        0.2,
        lambda world, queries, rng: of_classes(world.trusted, queries, rng, classes=int(rng.integers(1, 4))),
    ),
    (0.1, lambda world, queries, rng: drifting(world, world.trusted, queries, rng, concentration=0.7)),
    (0.1, lambda world, queries, rng: retakes(world, world.trusted, queries, rng, again=0.2)),
)
"""Shares of the clients, and what they do. The evaluation draws the same habits with other settings: skew 0.3
instead of 1, one class instead of one to three, faster drift, more retakes, longer lives, other pictures.
Faults, bursts, junk, health checks and other cameras are kept out: of those the evaluation reports only."""


def trusted_history(
    world: World, rng: np.random.Generator, *, clients: int = 60, shortest: int = 50, longest: int = 200
) -> Traffic:
    """Traffic of honest clients who draw on ``world.trusted``.

    Args:
        world: the domain.
        rng: decides everything.
        clients: how many.
        shortest: queries of a client at least.
        longest: queries of a client at most.

    Returns:
        One log of all clients, ``trusted-000`` and on, each from a network of its own.
    """
    starts = np.cumsum([0, *(share for share, _ in _MIX)])
    streams = []
    for number in range(clients):
        habit = min(int(np.searchsorted(starts, (number + 0.5) / clients)) - 1, len(_MIX) - 1)
        queries = int(rng.integers(shortest, longest + 1))
        pictures = _MIX[habit][1](world, queries, rng)
        address = {"ip": f"10.{200 + number // 250}.{number % 250}.7"}
        streams.append(one_client(pictures, client=f"trusted-{number:03d}", attributes=address))
    return merge(streams, rng)
