"""Habits that differ in what is asked how often: plain pictures of the domain, and nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from redteam.honest.family import family
from redteam.pictures import Pictures
from redteam.world import World

__all__ = ["by_class", "drifting", "evenly", "of_classes", "skewed"]

_CONCENTRATION = 0.3


def evenly(world: World, part: Pictures, queries: int, rng: np.random.Generator) -> Pictures:
    """Every picture alike; none twice before all were asked."""
    return part[_epochs(len(part), queries, rng)]


def skewed(
    world: World,
    part: Pictures,
    queries: int,
    rng: np.random.Generator,
    *,
    concentration: float = _CONCENTRATION,
) -> Pictures:
    """Classes in proportions of the client's own, drawn from a Dirichlet distribution."""
    names = np.unique(part.labels)
    mix = rng.dirichlet(np.full(len(names), concentration))
    return by_class(part, rng.choice(names, queries, p=mix), rng)


def drifting(
    world: World,
    part: Pictures,
    queries: int,
    rng: np.random.Generator,
    *,
    concentration: float = _CONCENTRATION,
) -> Pictures:
    """Proportions that move evenly, over the client's life, from one Dirichlet draw to another."""
    names = np.unique(part.labels)
    begins, ends = rng.dirichlet(np.full(len(names), concentration), 2)
    moved = np.linspace(0, 1, queries)[:, None]
    bounds = np.cumsum((1 - moved) * begins + moved * ends, axis=1)
    drawn = (rng.random((queries, 1)) > bounds[:, :-1]).sum(axis=1)
    return by_class(part, names[drawn], rng)


def of_classes(part: Pictures, queries: int, rng: np.random.Generator, *, classes: int) -> Pictures:
    """A few classes only, alike."""
    names = np.unique(part.labels)
    chosen = rng.choice(names, min(classes, len(names)), replace=False)
    return by_class(part, rng.choice(chosen, queries), rng)


def _one_class(world: World, part: Pictures, queries: int, rng: np.random.Generator) -> Pictures:
    return of_classes(part, queries, rng, classes=1)


def by_class(part: Pictures, wanted: npt.NDArray[np.str_], rng: np.random.Generator) -> Pictures:
    """A picture for each class name; none of a class twice before all of it were asked."""
    rows = np.empty(len(wanted), np.int64)
    for name in np.unique(wanted):
        places = np.flatnonzero(wanted == name)
        own = np.flatnonzero(part.labels == name)
        rows[places] = own[_epochs(len(own), len(places), rng)]
    return part[rows]


def _epochs(pictures: int, queries: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Row numbers: one random order of all pictures after the other."""
    count = -(-queries // pictures)
    return np.concatenate([rng.permutation(pictures) for _ in range(count)] or [np.arange(0)])[:queries]


family("i.i.d.", evenly, represented=True)
family("class skew", skewed, represented=True)
family("single class", _one_class, represented=True)
family("drift", drifting, represented=True)
