"""Public-domain drawings brought to the look of the garments.

A thief of the demo asks drawings. Were they brighter or flatter than garments, a mean of the pixels
would find the thief and the demo would prove nothing. So each drawing takes over the whole grey-value
histogram of a garment: mean, deviation and share of background agree exactly, and only the shapes differ.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

from redteam.errors import SourceDataError
from redteam.garments_images import SIDE

__all__ = ["dress", "drop_lookalikes", "held_out", "read_drawings", "render"]

_MAX_PIXELS = 2_000_000
_PNG_HEADER = struct.Struct(">8s4x4sII")
# What counts as drawn, in [0, 1], and which share of the frame it may fill.
_DRAWN = 0.04
_FILLED = (0.15, 0.97)
_LEAST_DEVIATION = 0.08


def held_out(data: bytes) -> bool:
    """Whether a clip-art file is of the half that the compact encoder never trains on.

    The file's content decides: the first hexadecimal digit of its SHA-256 is odd.
    """
    return hashlib.sha256(data).digest()[0] >> 4 & 1 == 1


def render(path: Path) -> npt.NDArray[np.float32] | None:
    """Draw one clip-art file as an object on black, the longer side filling the frame as in Fashion-MNIST.

    Returns:
        Grey values in [0, 1], float32, shape (28, 28); None where nothing usable remains: an empty,
        frame-filling or flat picture, or one of more than two million pixels.
    """
    with path.open("rb") as file:
        head = file.read(_PNG_HEADER.size)
    if len(head) < _PNG_HEADER.size:
        return None
    _, _, width, height = _PNG_HEADER.unpack(head)
    if width * height > _MAX_PIXELS:
        return None
    with Image.open(path, formats=["PNG"]) as file_image:
        pixels = np.asarray(file_image.convert("RGBA"), np.float32) / 255
    opacity = pixels[..., 3]
    grey = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    # Ink is bright, paper dark. White areas inside a transparent drawing belong to the object, so
    # opacity lifts them above the background; an opaque picture has its paper measured at the border.
    if opacity.min() < 0.5:
        value = opacity * (0.2 + 0.8 * (1 - grey))
    else:
        border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        value = np.abs(grey - np.median(border))
    drawn = value > _DRAWN
    if not drawn.any():
        return None
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    cut = Image.fromarray(value[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = SIDE / max(cut.size)
    size = max(1, round(cut.width * scale)), max(1, round(cut.height * scale))
    frame = Image.new("F", (SIDE, SIDE))
    frame.paste(cut.resize(size, Image.Resampling.BOX), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    picture = np.asarray(frame, np.float32)
    filled = float((picture > _DRAWN).mean())
    if not _FILLED[0] <= filled <= _FILLED[1] or picture.std() < _LEAST_DEVIATION:
        return None
    return picture


def drop_lookalikes(pictures: npt.NDArray[np.float32], *, most: float = 0.95) -> npt.NDArray[np.float32]:
    """Keep each picture whose cosine with every picture kept before it is below ``most``.

    Clip-art libraries hold series (flags, buttons, one icon in six colours), and a thief gains nothing
    by asking the same picture again.

    Args:
        pictures: shape (n, 28, 28).
        most: cosine of the mean-free grey values, in (-1, 1].
    """
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    alike = flat @ flat.T >= most
    kept = np.zeros(len(flat), bool)
    for index in range(len(flat)):
        kept[index] = not alike[index, kept].any()
    return pictures[kept]


def read_drawings(folder: Path) -> npt.NDArray[np.float32]:
    """Render every usable held-out drawing under a folder, in the order of the content hashes.

    Returns:
        Grey values in [0, 1], float32, shape (n, 28, 28).

    Raises:
        SourceDataError: the folder holds no usable drawing.
    """
    by_hash: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.png")):
        data = path.read_bytes()
        if held_out(data):
            by_hash.setdefault(hashlib.sha256(data).hexdigest(), path)
    rendered = (render(by_hash[digest]) for digest in sorted(by_hash))
    pictures = [picture for picture in rendered if picture is not None]
    if not pictures:
        raise SourceDataError(f"{folder}: no usable PNG drawing; install openclipart-png")
    return drop_lookalikes(np.stack(pictures))


def dress(drawings: npt.NDArray[np.float32], donors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Give each donor's histogram to the drawing that fits it best.

    The donors are fixed first and the drawings chosen for them, so the histograms stay a fair sample of
    garments. The assignment minimises the summed difference in filled area; then the k-th brightest pixel
    of the drawing takes the k-th brightest value of its donor (exact histogram specification, with the
    smoothed drawing breaking ties, so that flat areas shade like cloth and not like noise).

    Args:
        drawings: grey values in [0, 1], shape (n, 28, 28).
        donors: garments, uint8, shape (k, 28, 28), k ≤ n.

    Returns:
        Dressed drawings, uint8, shape (k, 28, 28), in the order of the donors.

    Raises:
        SourceDataError: fewer drawings than donors.
    """
    if len(drawings) < len(donors):
        raise SourceDataError(f"{len(drawings)} usable drawings for {len(donors)} queries; lower the plan")
    filled = (drawings > _DRAWN).mean(axis=(1, 2))
    wanted = (donors > 255 * _DRAWN).mean(axis=(1, 2))
    chosen = linear_sum_assignment(np.abs(wanted[:, None] - filled[None, :]))[1]
    picked = drawings[chosen].astype(np.float64)
    # 1e-3 is below one grey level: smoothing orders equals and overrules nothing.
    rank_key = picked + 1e-3 * gaussian_filter(picked, sigma=(0, 1.5, 1.5))
    order = np.argsort(rank_key.reshape(len(picked), -1), axis=1, kind="stable")
    dressed = np.empty_like(order, dtype=np.uint8)
    np.put_along_axis(dressed, order, np.sort(donors.reshape(len(donors), -1), axis=1), axis=1)
    return dressed.reshape(donors.shape)
