"""Habits with a few foreign pictures in them, and the same classes as another camera sees them."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from redteam.errors import RedteamError
from redteam.honest.family import family
from redteam.honest.mixes import evenly
from redteam.pictures import Pictures
from redteam.world import World

__all__ = ["other_camera"]

_JUNK = 18
_EVERY = 10
_JUNK_POOLS = ("openclipart", "tiny-imagenet")
"""What people upload to try a service, where the world has it."""

_ALSO: dict[str, tuple[str, ...]] = {
    "automobile": ("sports car", "convertible", "limousine", "beach wagon"),
    "truck": ("moving van", "police van", "pickup truck"),
    "bird": ("goose", "albatross", "king penguin", "black stork"),
    "cat": ("tabby", "Egyptian cat", "Persian cat"),
    "dog": (
        "Chihuahua",
        "Yorkshire terrier",
        "golden retriever",
        "Labrador retriever",
        "German shepherd",
        "standard poodle",
    ),
    "deer": ("gazelle",),
    "frog": ("bullfrog", "tailed frog"),
    "ship": ("lifeboat", "gondola"),
    "sandal": ("sandal",),
    "coat": ("fur coat",),
}
"""First names of other collections' classes that show a class of the domain, by the domain's name for it."""


def _health_check(world: World, part: Pictures, queries: int, rng: np.random.Generator) -> Pictures:
    """Even draws; every tenth query is a monitor's, always with the same odd picture."""
    probe = _strays(world, 1, rng)
    both = Pictures.join([evenly(world, part, queries, rng), probe])
    rows = np.arange(queries)
    rows[rng.integers(_EVERY) :: _EVERY] = queries
    return both[rows]


def _junk_on_day_one(world: World, part: Pictures, queries: int, rng: np.random.Generator) -> Pictures:
    """Eighteen foreign pictures from somebody who tries the service, then even draws."""
    junk = _strays(world, min(_JUNK, queries), rng)
    return Pictures.join([junk, evenly(world, part, queries - len(junk), rng)])


def other_camera(world: World, part: Pictures, queries: int, rng: np.random.Generator) -> Pictures:
    """Classes of the domain as another collection shows them.

    Raises:
        RedteamError: no foreign pool has a class of the domain; skip the family for this world.
    """
    found = {
        name: pool[np.flatnonzero(_shown(pool.labels, world.classes))] for name, pool in world.pools.items()
    }
    best = max(found.values(), key=len, default=None)
    if best is None or not len(best):
        raise RedteamError(
            f"no foreign pool of {world.name} shows a class of the domain; skip 'other camera'"
        )
    return evenly(world, best, queries, rng)


def _shown(labels: npt.NDArray[np.str_], classes: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """Which labels mean a class of the domain; of a label with synonyms the first name counts."""
    wanted = {name.lower() for known in classes for name in (known, *_ALSO.get(known, ()))}
    return np.array([re.split(",", label)[0].strip().lower() in wanted for label in labels], np.bool_)


def _strays(world: World, count: int, rng: np.random.Generator) -> Pictures:
    name = next((pool for pool in _JUNK_POOLS if pool in world.pools), next(iter(world.pools), None))
    if name is None:
        raise RedteamError(f"{world.name} has no foreign pool to draw junk from; put one beside its file")
    pool = world.pools[name]
    return pool[rng.choice(len(pool), min(count, len(pool)), replace=False)]


family("health check", _health_check)
family("junk on day one", _junk_on_day_one)
family("other camera", other_camera)
