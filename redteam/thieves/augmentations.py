"""The thief that owns a handful of pictures and asks thousands of views of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from redteam.pictures import Pictures
from redteam.thieves.thief import Rows, held, register
from redteam.world import World

__all__ = ["Augmentations"]


@register("augmentations")
@dataclass(frozen=True, slots=True)
class Augmentations:
    """Asks twenty pictures of the domain, then turned, cropped, mirrored and recoloured views of them.

    What is learnt from augmentations of few natural seeds: Asano and Saeed 2023 (arXiv 2112.00725) distil a
    model from one picture this way; here the victim is the teacher.
    """

    foreign: ClassVar[bool] = False
    in_domain: ClassVar[bool] = False
    seeds: ClassVar[int] = 20
    makes: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """``augmentations``."""
        return "augmentations"

    def ask(
        self, world: World, budget: int, rng: np.random.Generator, *, slice_: Rows = slice(None)
    ) -> Pictures:
        """The seeds, then views of seeds drawn at random."""
        seeds = held(world.thief, slice_, rng)[: min(self.seeds, budget)]
        if len(seeds) == budget:
            return seeds
        parents = seeds[rng.integers(0, len(seeds), budget - len(seeds))]
        views = np.stack([_view(pixels, rng) for pixels in parents.pixels])
        return Pictures.join([seeds, world.send(views, parents.labels)])


def _view(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Turn by up to 20°, crop to 60-100 % of the side, mirror, and change colours by up to 30 %."""
    side = len(pixels)
    picture = Image.fromarray(pixels).rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR)
    kept = int(side * rng.uniform(0.6, 1.0))
    left, top = rng.integers(0, side - kept + 1, 2).tolist()
    picture = picture.crop((left, top, left + kept, top + kept)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    view = np.asarray(picture, np.float32)
    if rng.random() < 0.5:
        view = view[:, ::-1]
    return np.clip(view * rng.uniform(0.7, 1.3, 3), 0, 255).astype(np.uint8)
