"""Published detectors of model extraction, written from their papers, to compare with.

A new rival is one small file with a function that fits it, and a line here. docs/rivals.md says what each
does and which of its own published figures it reproduces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from redteam.pictures import Pictures
from redteam.rivals.add import fit_add
from redteam.rivals.hoda import fit_hoda
from redteam.rivals.mmd import fit_mmd
from redteam.rivals.prada import fit_prada
from redteam.rivals.rival import Rival
from redteam.rivals.seat import fit_seat
from redteam.rivals.window_means import fit_knn_mean, fit_pixel_mean
from redteam.world import World

__all__ = ["RIVALS", "Fit", "Rival"]

Fit = Callable[[World, Sequence[Pictures]], Rival]
"""Fits a rival's threshold, by its own paper's rule, to the streams of trusted clients, one a client."""

RIVALS: Mapping[str, Fit] = MappingProxyType(
    {
        "prada": fit_prada,
        "hoda-50": partial(fit_hoda, width=50),
        "hoda-100": partial(fit_hoda, width=100),
        "mmd-100": partial(fit_mmd, width=100),
        "mmd-500": partial(fit_mmd, width=500),
        "pixel-mean": fit_pixel_mean,
        "knn-mean": fit_knn_mean,
        "seat": fit_seat,
        "add": fit_add,
    }
)
