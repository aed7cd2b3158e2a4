"""HODA: do a client's queries puzzle the victim's younger selves as often as honest ones do?

Sadeghzadeh, Sobhanian, Dehghan and Jalili, "HODA: Hardness-Oriented Detection of Model Extraction Attacks",
arXiv 2106.11424: the hardness degree of a query, histograms of ``num_s`` queries and their Pearson distance
to the histogram of honest ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from redteam.errors import RedteamError
from redteam.pictures import Pictures
from redteam.rivals.rival import Watch, peaks
from redteam.victims import Victim
from redteam.world import World

__all__ = ["CHECKPOINTS", "Hardness", "HodaScores", "fit_hoda", "pearson_distance"]

CHECKPOINTS = 5
"""Of the victim's training, the latest. HODA needs five at least; labels of the first epochs of a short
training are noise, and more of them make honest lots less alike (docs/rivals.md)."""


@dataclass(slots=True)
class Hardness:
    """The hardness degree of pictures, remembered by content.

    The degree is the number, from 0, of the first checkpoint from which on every one gives the label that the
    last gives: 0 for a picture that was easy from the start.
    """

    checkpoints: tuple[Victim, ...]
    _known: dict[bytes, int] = field(default_factory=dict)

    def degrees(self, asked: Pictures) -> npt.NDArray[np.int64]:
        """Hardness degrees, in [0, ``len(checkpoints)``), int64, shape (n,)."""
        digests = [blake2b(pixels.tobytes(), digest_size=12).digest() for pixels in asked.pixels]
        new = [i for i, digest in enumerate(digests) if digest not in self._known]
        if new:
            pixels = asked.pixels[new]
            answers = np.array([each.scores(pixels).argmax(axis=1) for each in self.checkpoints])
            settled = np.logical_and.accumulate((answers == answers[-1])[::-1], axis=0).sum(axis=0)
            degrees = (len(self.checkpoints) - settled).tolist()
            self._known.update(zip((digests[i] for i in new), degrees, strict=True))
        return np.array([self._known[digest] for digest in digests], np.int64)


@dataclass(slots=True)
class HodaScores:
    """One client's queries in lots of ``width``, each compared with the honest histogram when it is full."""

    hardness: Hardness
    honest: npt.NDArray[np.float64]
    width: int
    _lot: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def push(self, asked: Pictures) -> npt.NDArray[np.float64]:
        """Pearson distance, in [0, 2], at the query that fills a lot; NaN at all others."""
        degrees = np.concatenate([self._lot, self.hardness.degrees(asked)])
        lots = len(degrees) // self.width
        histograms = np.array(
            [
                np.bincount(lot, minlength=len(self.honest))
                for lot in degrees[: lots * self.width].reshape(lots, self.width)
            ],
            np.float64,
        ).reshape(lots, len(self.honest))
        scores = np.full(len(degrees), np.nan)
        scores[self.width - 1 : lots * self.width : self.width] = pearson_distance(histograms, self.honest)
        scores, self._lot = scores[len(self._lot) :], degrees[lots * self.width :]
        return scores


def pearson_distance(
    histograms: npt.NDArray[np.float64], honest: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """1 minus the correlation of each histogram with the honest one, shape (n,); 1 for a flat one."""
    centred = histograms - histograms.mean(axis=1, keepdims=True)
    target = honest - honest.mean()
    norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(target)
    flat = norms <= np.finfo(np.float64).tiny
    return np.asarray(1 - centred @ target * ~flat / np.where(flat, 1.0, norms), np.float64)


def fit_hoda(world: World, trusted: Sequence[Pictures], *, width: int) -> Watch:
    """HODA with ``num_s = width``; its threshold is the greatest distance among the trusted clients' lots.

    Raises:
        RedteamError: the victim has fewer than five checkpoints, or no trusted client filled a lot.
    """
    name = f"hoda-{width}"
    if len(world.victim.checkpoints) < CHECKPOINTS:
        raise RedteamError(
            f"{name}: the victim of {world.name!r} has {len(world.victim.checkpoints)} checkpoints of its "
            f"training, {CHECKPOINTS} are needed: keep more of them"
        )
    hardness = Hardness(world.victim.checkpoints[-CHECKPOINTS:])
    degrees = np.concatenate([np.empty(0, np.int64), *(hardness.degrees(asked) for asked in trusted)])
    honest = np.bincount(degrees, minlength=len(hardness.checkpoints)).astype(np.float64)
    start = partial(HodaScores, hardness, honest, width)
    return Watch(name, float(peaks(name, start, trusted).max()), start)
