"""Encoded pictures for the encoder's benchmarks: real ones from a file or directory, or drawn ones."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

__all__ = ["encoded_pictures"]


def encoded_pictures(data: Path | None, count: int) -> list[bytes]:
    """The first pictures of a Parquet file's ``image`` column or of a directory; drawings without either."""
    if data is not None and data.is_dir():
        return [path.read_bytes() for path in islice(sorted(data.rglob("*.png")), count)]
    if data is not None:
        found: list[bytes] = pq.read_table(data, columns=["image"])["image"].slice(0, count).to_pylist()
        return found
    return [_drawing(seed) for seed in range(count)]


def _drawing(seed: int) -> bytes:
    """Shapes and noise on a coloured ground, 32 to 64 pixels a side, JPEG or PNG."""
    generator = np.random.default_rng(seed)
    side = int(generator.integers(32, 65))
    image = Image.new("RGB", (side, side), tuple(generator.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y, radius = generator.integers(0, side, 3).tolist()
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius),
            fill=tuple(generator.integers(0, 256, 3).tolist()),
        )
    pixels = np.asarray(image) + generator.normal(0, 12, (side, side, 3))
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    image.save(buffer, "PNG") if seed % 2 else image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
