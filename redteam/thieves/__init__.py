"""Thieves of models. Each kind is one small file that registers a class; `cast` makes all for a world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from redteam.errors import RedteamError
from redteam.thieves import (  # each module registers its thieves
    active,
    augmentations,
    data_free,
    detector_aware,
    in_domain,
    knockoff,
    synthetic,
)
from redteam.thieves.thief import KINDS, Rows, Thief, register
from redteam.world import World

__all__ = ["THIEVES", "Rows", "Thief", "cast", "register", "thief"]

_MODULES = (active, augmentations, data_free, detector_aware, in_domain, knockoff, synthetic)

THIEVES: Mapping[str, Callable[..., Thief]] = MappingProxyType(KINDS)
"""Kinds of thieves; a kind whose class has ``foreign`` is made with the name of a pool."""


def cast(world: World) -> dict[str, Thief]:
    """Every kind of thief against one world, those of foreign pools once for each pool, by name."""
    thieves: list[Thief] = []
    for maker in THIEVES.values():
        if getattr(maker, "foreign", False):
            thieves += [maker(pool) for pool in world.pools]
        else:
            thieves.append(maker())
    return {one.name: one for one in thieves}


def thief(name: str) -> Thief:
    """A thief by name: ``jbda``, or kind and pool as in ``knockoff-cifar100``.

    Raises:
        RedteamError: no such kind.
    """
    if name in THIEVES and not getattr(THIEVES[name], "foreign", False):
        return THIEVES[name]()
    for kind in sorted(THIEVES, key=len, reverse=True):
        if name.startswith(f"{kind}-") and getattr(THIEVES[kind], "foreign", False):
            return THIEVES[kind](name.removeprefix(f"{kind}-"))
    raise RedteamError(f"no thief {name!r}; the kinds are {', '.join(sorted(THIEVES))}, some with -POOL")
