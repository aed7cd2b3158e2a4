"""Views of one picture that a camera makes, and what becomes of pictures on their way.

Chance is drawn from the picture's own content. So two clients who ask the same picture with the same fault
ask the same pixels, and the encoder sees each only once in a whole benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from io import BytesIO
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

__all__ = ["FAULTS", "garbage", "retaken"]

_Pixels = npt.NDArray[np.uint8]


def retaken(pixels: _Pixels, number: int) -> _Pixels:
    """The same scene again: shifted by up to a sixteenth of the side and a little brighter or darker.

    Args:
        pixels: uint8, shape (side, side, 3).
        number: of the frame; 0 is the picture itself.
    """
    if number == 0:
        return pixels
    rng = _chance(pixels, int(number))
    side = len(pixels)
    reach = max(1, side // 16)
    down, right = rng.integers(-reach, reach + 1, 2)
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    moved = padded[reach + down : reach + down + side, reach + right : reach + right + side]
    return _clipped(moved * rng.uniform(0.95, 1.05) + rng.normal(0, 1.5, moved.shape))


def garbage(side: int, number: int) -> _Pixels:
    """What a broken camera sends: black, white, static, stripes or a flat colour, by the frame's number."""
    rng = np.random.default_rng(number)
    kind = number % 5
    frame = np.zeros((side, side, 3))
    if kind == 0:
        frame += rng.uniform(0, 4, frame.shape)
    elif kind == 1:
        frame += 255 - rng.uniform(0, 8, frame.shape)
    elif kind == 2:
        frame += rng.uniform(0, 255, frame.shape)
    elif kind == 3:
        frame += 127 + 127 * np.sign(np.sin(np.arange(side) * rng.uniform(0.3, 2.0)))[:, None, None]
    else:
        frame += rng.uniform(0, 255, 3) + rng.normal(0, 2, frame.shape)
    return _clipped(frame)


def _noisy(pixels: _Pixels) -> _Pixels:
    return _clipped(pixels + _chance(pixels, 0).normal(0, 15, pixels.shape))


def _blurred(pixels: _Pixels) -> _Pixels:
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(len(pixels) / 40)), np.uint8)


def _dimmed(pixels: _Pixels) -> _Pixels:
    """Brighter or darker: one of the two a picture."""
    return _clipped(pixels * _chance(pixels, 1).choice([0.65, 1.4]))


def _squeezed(pixels: _Pixels) -> _Pixels:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=40)
    with Image.open(buffer) as picture:
        return np.array(picture.convert("RGB"), np.uint8)


FAULTS: Mapping[str, Callable[[_Pixels], _Pixels]] = MappingProxyType(
    {"noise": _noisy, "blur": _blurred, "brightness": _dimmed, "JPEG": _squeezed}
)
"""Corruptions at moderate severity, about the third of five of Hendrycks and Dietterich 2019."""


def _chance(pixels: _Pixels, number: int) -> np.random.Generator:
    digest = blake2b(pixels.tobytes() + number.to_bytes(8, "big"), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _clipped(values: npt.NDArray[np.floating]) -> _Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
