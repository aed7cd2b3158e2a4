"""The images and captions that banken-compact is trained and measured on, read from named inputs.

Every source yields `Example`s in a fixed order. What a source may be used for is decided here and nowhere
else: `TRAINING` lists the sources that train the encoder, and no other source reaches a gradient. The
committed manifest (`embeddings.compact.manifest`) holds the digest of each of them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

__all__ = ["HELD_OUT", "TRAINING", "Example", "in_training_half", "read"]

OPENCLIPART = Path("/usr/share/openclipart/png")
STAMPS = Path("/usr/share/tuxpaint/stamps")
EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
EMOJI_PIXELS = 109  # the font holds bitmaps of this one size
EMOJI_BLOCKS = ((0x2600, 0x27C0), (0x1F300, 0x1F650), (0x1F680, 0x1F700), (0x1F900, 0x1FB00))
MAX_CLIPART_BYTES = 2_000_000
GARMENTS = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """One image with what is said of it.

    Attributes:
        image: Encoded bytes (JPEG or PNG).
        caption: The label, file name, caption or Unicode name, as the source gives it.
        digest: SHA-256 of the source's content (the file, or the encoded image), as 64 hex digits.
    """

    image: bytes
    caption: str
    digest: str


def in_training_half(digest: str) -> bool:
    """Whether a clip-art file may train the encoder: its SHA-256 starts with an even hex digit.

    The rule depends on content alone, so copies of one drawing under two names stay on one side.
    """
    return int(digest[0], 16) % 2 == 0


def read(source: str, data: Path) -> Iterator[Example]:
    """Read one source in its fixed order.

    Args:
        source: A name of `TRAINING` or `HELD_OUT`.
        data: The folder that holds `cifar10.parquet`, `cifar100.parquet` and `tiny-imagenet.parquet`.

    Raises:
        KeyError: No source has that name.
        FileNotFoundError: The parquet file or the Debian package is missing.
    """
    return _READERS[source](data)


def _parquet(file: str, split: str, count: int) -> Callable[[Path], Iterator[Example]]:
    def rows(data: Path) -> Iterator[Example]:
        table = pq.read_table(data / f"{file}.parquet", filters=[("split", "=", split)])
        table = table.select(["image", "label"]).slice(0, count)
        for image, label in zip(table["image"].to_pylist(), table["label"].to_pylist(), strict=True):
            yield Example(image, label, hashlib.sha256(image).hexdigest())

    return rows


def _shrunk(rows: Callable[[Path], Iterator[Example]], pixels: int) -> Callable[[Path], Iterator[Example]]:
    """The same images at a lower resolution, so that the encoder meets both sizes of thumbnails."""

    def smaller(data: Path) -> Iterator[Example]:
        for example in rows(data):
            png = io.BytesIO()
            image = Image.open(io.BytesIO(example.image)).convert("RGB")
            image.resize((pixels, pixels), Image.Resampling.BICUBIC).save(png, "PNG")
            yield Example(png.getvalue(), example.caption, example.digest)

    return smaller


def _clipart(training: bool) -> Callable[[Path], Iterator[Example]]:
    def files(_: Path) -> Iterator[Example]:
        seen: set[str] = set()
        for path in sorted(OPENCLIPART.rglob("*.png")):
            if path.is_symlink() or path.stat().st_size > MAX_CLIPART_BYTES:
                continue
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            if digest in seen or in_training_half(digest) is not training:
                continue
            seen.add(digest)
            yield Example(content, path.stem, digest)

    return files


def _stamps(_: Path) -> Iterator[Example]:
    for path in sorted(STAMPS.rglob("*.png")):
        words = path.with_suffix(".txt")
        if words.exists():
            content = path.read_bytes()
            caption = words.read_text(encoding="utf-8", errors="replace").splitlines()[0]
            yield Example(content, caption, hashlib.sha256(content).hexdigest())


def _emoji(_: Path) -> Iterator[Example]:
    font = ImageFont.truetype(str(EMOJI_FONT), EMOJI_PIXELS)
    for first, last in EMOJI_BLOCKS:
        for point in range(first, last):
            name = unicodedata.name(chr(point), "")
            if not name or "VARIATION" in name or "MODIFIER" in name:
                continue
            canvas = Image.new("RGB", (136, 128), "white")
            ImageDraw.Draw(canvas).text((0, 0), chr(point), font=font, embedded_color=True)
            pixels = np.asarray(canvas)
            if pixels.min() == 255:  # the font has no picture of it
                continue
            png = io.BytesIO()
            canvas.save(png, "PNG")
            yield Example(png.getvalue(), name.lower(), hashlib.sha256(pixels.tobytes()).hexdigest())


def _fashion(count: int) -> Callable[[Path], Iterator[Example]]:
    def rows(_: Path) -> Iterator[Example]:
        images = gzip.decompress((FASHION_MNIST / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
        labels = gzip.decompress((FASHION_MNIST / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
        for pixels, label in zip(
            np.frombuffer(images, np.uint8).reshape(-1, 28, 28)[:count], labels, strict=False
        ):
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            yield Example(png.getvalue(), GARMENTS[label], hashlib.sha256(pixels.tobytes()).hexdigest())

    return rows


TRAINING: dict[str, Callable[[Path], Iterator[Example]]] = {
    "tiny-imagenet-encoder": _parquet("tiny-imagenet", "encoder", 20_000),
    "tiny-imagenet-encoder-32": _shrunk(_parquet("tiny-imagenet", "encoder", 10_000), 32),
    "cifar100-encoder": _parquet("cifar100", "encoder", 5_000),
    "openclipart-even": _clipart(training=True),
    "tuxpaint-stamps": _stamps,
    "noto-emoji": _emoji,
}
HELD_OUT: dict[str, Callable[[Path], Iterator[Example]]] = {
    "cifar10-train": _parquet("cifar10", "train", 8_000),
    "cifar10-test": _parquet("cifar10", "test", 8_000),
    "cifar100-pool": _parquet("cifar100", "pool", 5_000),
    "tiny-imagenet-pool": _parquet("tiny-imagenet", "pool", 5_000),
    "openclipart-odd": _clipart(training=False),
    "fashion-mnist": _fashion(4_000),
}
_READERS = TRAINING | HELD_OUT
