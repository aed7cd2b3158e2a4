"""Habits that make fresh pictures: faults on the way, bursts of one scene, retakes, a broken camera."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from redteam.honest.family import family
from redteam.honest.frames import FAULTS, garbage, retaken
from redteam.honest.mixes import evenly
from redteam.pictures import Pictures
from redteam.world import World

__all__ = ["bursts", "retakes"]

_Rows = npt.NDArray[np.int64]
_SCENES = 300
_RETAKEN, _SPOILT = 1_500, 2_000
"""Pictures of a part that bursts, retakes and faults are made of: each frame has to be encoded once."""
_GARBAGE = 400


def bursts(
    world: World,
    part: Pictures,
    queries: int,
    rng: np.random.Generator,
    *,
    shortest: int = 5,
    longest: int = 30,
) -> Pictures:
    """A camera that sends a burst of frames of each scene, 5 to 30 by default."""
    scenes = evenly(world, part[:_SCENES], queries, rng)
    lengths = rng.integers(shortest, longest + 1, queries)
    rows = np.repeat(np.arange(queries), lengths)[:queries]
    numbers = np.concatenate([np.arange(length) for length in lengths] or [np.arange(0)])[:queries]
    return _frames(world, scenes, rows, numbers)


def retakes(
    world: World, part: Pictures, queries: int, rng: np.random.Generator, *, again: float = 0.3
) -> Pictures:
    """Somebody who takes a picture again, once or twice, where the first did not please."""
    scenes = evenly(world, part[:_RETAKEN], queries, rng)
    lengths = np.where(rng.random(queries) < again, rng.integers(2, 4, queries), 1)
    rows = np.repeat(np.arange(queries), lengths)[:queries]
    numbers = np.concatenate([np.arange(length) for length in lengths] or [np.arange(0)])[:queries]
    return _frames(world, scenes, rows, numbers)


def _corrupted(
    world: World, part: Pictures, queries: int, rng: np.random.Generator, *, fault: str
) -> Pictures:
    """Every picture suffers the same fault."""
    asked = evenly(world, part[:_SPOILT], queries, rng)
    pixels = np.stack([FAULTS[fault](picture) for picture in asked.pixels])
    return world.send(pixels, asked.labels)


def _broken_camera(world: World, part: Pictures, queries: int, rng: np.random.Generator) -> Pictures:
    """Even draws, with stretches of 10 to 40 garbage frames: about one frame in twenty."""
    asked = evenly(world, part, queries, rng)
    broken = np.zeros(queries, np.bool_)
    for start in np.flatnonzero(rng.random(queries) < 0.002):
        broken[start : start + rng.integers(10, 41)] = True
    if not broken.any():  # a short life has its burst too
        start = rng.integers(0, max(1, queries // 2))
        broken[start : start + rng.integers(10, 41)] = True
    places = np.flatnonzero(broken)
    frames = np.stack([garbage(world.side, number) for number in rng.integers(0, _GARBAGE, len(places))])
    both = Pictures.join([asked, world.send(frames)])
    rows = np.arange(queries)
    rows[places] = queries + np.arange(len(places))
    return both[rows]


def _frames(world: World, scenes: Pictures, rows: _Rows, numbers: _Rows) -> Pictures:
    pixels = np.stack(
        [retaken(scenes.pixels[row], number) for row, number in zip(rows, numbers, strict=True)]
    )
    return world.send(pixels, scenes.labels[rows])


family("retakes", retakes, represented=True)
family("near-duplicate bursts", bursts)
family("broken camera", _broken_camera)
for _fault in FAULTS:
    family(f"corrupted: {_fault}", partial(_corrupted, fault=_fault))
