"""Which pictures of a pool a replicate may use."""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

__all__ = ["Slicing", "bootstrap", "disjoint", "rng_of"]


class Slicing(StrEnum):
    """What sets the replicates of a stream apart; printed beside every interval.

    - disjoint: no two replicates asked the same picture of the thief's before they were decided.
    - overlapping: they did, having gone beyond their own part of the pool.
    - bootstrap: each replicate has a pool of its own, drawn from the whole pool with replacement. Of a
      picture that was drawn twice one copy is kept: a second would be an exact repeat, and repeats are a
      matter of their own.
    - made: each replicate makes its own pictures.
    """

    DISJOINT = "disjoint"
    OVERLAPPING = "overlapping"
    BOOTSTRAP = "bootstrap"
    MADE = "made anew"


def rng_of(*name: object) -> np.random.Generator:
    """The generator of a run, by its name alone: no run depends on which ran before it, or where."""
    digest = blake2b(repr(name).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def disjoint(pool: int, replicate: int, replicates: int, *, name: str) -> npt.NDArray[np.int64]:
    """All rows of a pool, beginning with those that are this replicate's alone.

    One permutation serves all replicates. Each begins at its own place and goes round, so that the first
    ``pool // replicates`` rows belong to nobody else and a long attack still has the whole pool to ask.

    Args:
        pool: how many pictures there are.
        replicate: number, in [0, replicates).
        replicates: how many share the pool.
        name: of the pool; decides the permutation.

    Returns:
        Rows, int64, shape (pool,).
    """
    order = rng_of("disjoint", name, pool).permutation(pool)
    return np.roll(order, -(pool // replicates) * replicate)


def bootstrap(pool: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Distinct rows of a bootstrap sample of a pool, in random order: about 63 % of them, int64."""
    return rng.permutation(np.unique(rng.integers(0, pool, pool)))
