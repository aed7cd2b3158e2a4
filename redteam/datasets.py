"""Domains and foreign pools from Debian's packages, as the Parquet files that `redteam.world` reads.

Run ``python -m redteam.datasets fashion-mnist OUT``; the names are those of `DATASETS`.
"""

from __future__ import annotations

import argparse
import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from embeddings.decoding import fingerprint
from redteam.errors import SourceDataError
from redteam.garments_drawings import held_out
from redteam.garments_images import LABELS, encode_png, read_idx

__all__ = ["DATASETS", "Dataset", "Row", "main", "write"]

_SEED = 2026
_MOST_BYTES = 2_000_000
_MOST_PIXELS = 4_000_000
_PNG_HEADER = struct.Struct(">16xII")
_THUMBNAIL = 160
_ALIKE = 2
"""Bits of the fingerprint in which two frames of one animation may differ."""
_LEAST_OF_CLASS = 40
_TEST_SHARE = 0.3

_SCHEMA = pa.schema(
    [
        ("image", pa.binary()),
        ("label", pa.dictionary(pa.int32(), pa.string())),
        ("split", pa.dictionary(pa.int32(), pa.string())),
    ]
)


@dataclass(frozen=True, slots=True)
class Row:
    """One picture: encoded bytes, what it shows, and its split (train, test or pool)."""

    image: bytes
    label: str
    split: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Where a data set comes from.

    Attributes:
        package: Debian's name.
        source: folder that the package installs.
        rows: reads such a folder.
    """

    package: str
    source: Path
    rows: Callable[[Path], Iterator[Row]]


def write(name: str, out: Path, source: Path | None = None) -> Path:
    """Write ``NAME.parquet``.

    Args:
        name: one of `DATASETS`.
        out: folder; made if missing.
        source: folder to read; where the package installs it if None.

    Returns:
        The file.

    Raises:
        SourceDataError: no such data set, or its pictures are missing.
    """
    if name not in DATASETS:
        raise SourceDataError(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    folder = source or dataset.source
    rows = list(dataset.rows(folder))
    if not rows:
        raise SourceDataError(f"{folder} holds no picture; install {dataset.package}")
    columns = {field: [getattr(row, field) for row in rows] for field in _SCHEMA.names}
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.parquet"
    pq.write_table(pa.table(columns, _SCHEMA), path)
    return path


def _fashion(folder: Path) -> Iterator[Row]:
    """Fashion-MNIST (Xiao et al. 2017): garments, 28 × 28, grey; as many as a world uses."""
    for file, split, most in (("train", "train", 20_000), ("t10k", "test", 8_000)):
        images = read_idx(folder / f"{file}-images-idx3-ubyte.gz")[:most]
        labels = read_idx(folder / f"{file}-labels-idx1-ubyte.gz")[:most]
        for image, label in zip(images, labels, strict=True):
            yield Row(encode_png(image), LABELS[label], split)


def _openclipart(folder: Path) -> Iterator[Row]:
    """The half of openclipart that the compact encoder never trains on, as thumbnails on white."""
    seen: set[bytes] = set()
    for path in _pngs(folder):
        data = path.read_bytes()
        digest = hashlib.sha256(data).digest()
        if digest in seen or not held_out(data):
            continue
        seen.add(digest)
        picture = _on_white(path)
        if picture is not None:
            picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
            yield Row(_png(picture), path.relative_to(folder).parts[0].replace("_", " "), "pool")


def _wesnoth(folder: Path) -> Iterator[Row]:
    """Figures, terrain and things of a strategy game; the class is the folder (elves, castle, items, …).

    Frames of one animation differ little. One of them stays, so that no picture of the test split is
    almost one of the training split.
    """
    kept: dict[str, list[Image.Image]] = {}
    prints = np.empty(0, np.uint64)
    for path in _pngs(folder):
        parts = path.relative_to(folder).parts
        label = parts[1] if parts[0] in {"units", "terrain"} else parts[0]
        # Overlays hold shadows and light, which are no pictures by themselves.
        if len(parts) < 2 or label.endswith(".png") or label in {"masks", "light", "fog", "themes"}:
            continue
        picture = _on_white(path)
        if picture is None or np.asarray(picture).std() < 8:
            continue
        bits = np.uint64(fingerprint(picture))
        if len(prints) and _distances(prints, bits).min() <= _ALIKE:
            continue
        prints = np.append(prints, bits)
        kept.setdefault(label, []).append(_square(picture))
    rng = np.random.default_rng(_SEED)
    for label, pictures in sorted(kept.items()):
        if len(pictures) >= _LEAST_OF_CLASS:
            tested = rng.permutation(len(pictures)) < round(_TEST_SHARE * len(pictures))
            for picture, test in zip(pictures, tested, strict=True):
                yield Row(_png(picture), label, "test" if test else "train")


def _pngs(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*.png"))
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MOST_BYTES
    ]


def _on_white(path: Path) -> Image.Image | None:
    """A drawing composed on white; None where it is too large, or too long and narrow."""
    with path.open("rb") as file:
        head = file.read(_PNG_HEADER.size)
    if len(head) < _PNG_HEADER.size:
        return None
    # Pillow would warn of the largest ones on opening them.
    width, height = _PNG_HEADER.unpack(head)
    if width * height > _MOST_PIXELS or max(width, height) > 8 * min(width, height):
        return None
    with Image.open(path, formats=["PNG"]) as opened:
        layers = opened.convert("RGBA")
    canvas = Image.new("RGB", layers.size, "white")
    canvas.paste(layers, mask=layers.getchannel("A"))
    return canvas


def _square(picture: Image.Image) -> Image.Image:
    """Pad to a square with white, then bring to 48 pixels: figures come in many frames."""
    side = max(picture.size)
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return canvas.resize((48, 48), Image.Resampling.BICUBIC)


def _distances(prints: npt.NDArray[np.uint64], bits: np.uint64) -> npt.NDArray[np.uint8]:
    """Hamming distances, shape (n,)."""
    return np.asarray(np.bitwise_count(prints ^ bits), np.uint8)


def _png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


DATASETS: Mapping[str, Dataset] = {
    "fashion-mnist": Dataset("dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist"), _fashion),
    "openclipart": Dataset("openclipart-png", Path("/usr/share/openclipart/png"), _openclipart),
    "wesnoth": Dataset("wesnoth-1.16-data", Path("/usr/share/games/wesnoth/1.16/data/core/images"), _wesnoth),
}
"""Data sets by name."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one data set and say what is in it."""
    parser = argparse.ArgumentParser(prog="python -m redteam.datasets", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(DATASETS), help="which data set")
    parser.add_argument("out", type=Path, help="folder to write NAME.parquet to")
    parser.add_argument("--source", type=Path, help="folder to read instead of the package's own")
    given = parser.parse_args(arguments)
    path = write(given.name, given.out, given.source)
    table = pq.read_table(path, columns=["label", "split"])
    splits = ", ".join(f"{count:,} {split}" for split, count in Counter(table["split"].to_pylist()).items())
    classes = len(set(table["label"].to_pylist()))
    print(f"{path}: {splits}; {classes} classes; {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
