"""What an encoder wants of a picture before it becomes a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Preprocess"]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """open_clip's evaluation preprocessing, as values.

    Attributes:
        size: side of the square input, in pixels.
        mean: per channel, subtracted from values in [0, 1].
        std: per channel, what the difference is divided by.
        interpolation: filter of the resize.
        resize_mode: ``shortest`` resizes the shorter side to `size` and crops the centre, ``longest`` fits
            the longer side and pads, ``squash`` ignores the aspect ratio.
        fill_color: grey value of the padding, 0 to 255.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0

    def fit(self, picture: Image.Image) -> npt.NDArray[np.uint8]:
        """Resize and crop a picture.

        Args:
            picture: mode RGB, any size.

        Returns:
            Pixels, shape (size, size, 3).
        """
        for step in _geometry(self):
            picture = step(picture)
        return np.array(picture, dtype=np.uint8)


@lru_cache(maxsize=16)
def _geometry(preprocess: Preprocess) -> tuple[Any, ...]:
    """open_clip's own transform without its last three steps (mode conversion, tensor, normalisation)."""
    from open_clip.transform import PreprocessCfg, image_transform_v2  # noqa: PLC0415 (it imports torch)

    config = PreprocessCfg(
        size=preprocess.size,
        mean=preprocess.mean,
        std=preprocess.std,
        interpolation=preprocess.interpolation,
        resize_mode=preprocess.resize_mode,
        fill_color=preprocess.fill_color,
    )
    return tuple(image_transform_v2(config, is_train=False).transforms[:-3])
