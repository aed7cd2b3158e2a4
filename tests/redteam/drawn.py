"""A tiny domain that is drawn on the spot: coloured shapes, and photographs of nothing as foreign pool."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

SIDE = 16
CLASSES = ("bar", "cat", "disc", "square")


def shape(label: str, rng: np.random.Generator) -> bytes:
    """One shape somewhere on a plain ground, as PNG; a cat is a disc with ears."""
    canvas = Image.new("RGB", (SIDE, SIDE), tuple(int(value) for value in rng.integers(150, 256, 3)))
    pen = ImageDraw.Draw(canvas)
    ink = tuple(int(value) for value in rng.integers(0, 100, 3))
    left, top = (int(value) for value in rng.integers(1, 6, 2))
    size = int(rng.integers(6, 9))
    if label == "bar":
        pen.rectangle((left, 2, left + 2, 13), fill=ink)
    elif label == "square":
        pen.rectangle((left, top, left + size, top + size), fill=ink)
    else:
        pen.ellipse((left, top, left + size, top + size), fill=ink)
    if label == "cat":
        pen.polygon([(left, top + 3), (left, top - 1), (left + 3, top)], fill=ink)
        pen.polygon([(left + size, top + 3), (left + size, top - 1), (left + size - 3, top)], fill=ink)
    return png(canvas)


def stain(rng: np.random.Generator) -> bytes:
    """Smooth colour noise, larger than the shapes, as PNG."""
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return png(coarse.resize((30, 24), Image.Resampling.BICUBIC))


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, rows: list[tuple[bytes, str, str]]) -> None:
    columns = zip(*rows, strict=True)
    pq.write_table(
        pa.table(dict(zip(("image", "label", "split"), (list(column) for column in columns), strict=True))),
        path,
    )


def draw(folder: Path) -> None:
    """Write ``shapes.parquet``, and ``stains.parquet`` which also holds ten shapes of the domain."""
    rng = np.random.default_rng(7)
    shapes = [
        (shape(CLASSES[number % 4], rng), CLASSES[number % 4], "train" if number < 300 else "test")
        for number in range(420)
    ]
    shapes[5] = (b"no picture", "bar", "train")
    stains = [
        (stain(rng), "tabby, tabby cat" if number % 3 == 0 else "stain", "pool") for number in range(110)
    ]
    stains += [(image, label, "pool") for image, label, _ in shapes[300:310]]
    stains.append((stain(rng), "stain", "encoder"))
    write(folder / "shapes.parquet", shapes)
    write(folder / "stains.parquet", stains)
