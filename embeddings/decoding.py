"""Bytes that a stranger sent, to pixels that an encoder may see."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from embeddings.errors import DecodeError
from embeddings.preprocess import Preprocess

__all__ = ["DecodeLimits", "Picture", "decode", "fingerprint"]


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a picture may be. Checked before its pixels are allocated.

    Attributes:
        max_bytes: of the encoded picture.
        max_pixels: width × height in the header. Pillow's own guard (179 million) stands above it.
        formats: Pillow's names of the formats that are tried; no other plugin sees the bytes.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded query, ready for the encoder.

    Attributes:
        pixels: uint8, shape (size, size, 3), resized as open_clip does in evaluation.
        fingerprint: 64-bit difference hash of the whole picture; near duplicates differ in few bits.
        content: 16-byte BLAKE2b of the encoded bytes; exact duplicates are equal.
    """

    pixels: npt.NDArray[np.uint8]
    fingerprint: int
    content: bytes


_LIMITS = DecodeLimits()

_FAILURES = (
    # Met on mutated files of every allowed format:
    OSError,  # truncated or broken data, and what libjpeg, libtiff and libwebp refuse
    SyntaxError,  # Pillow's word for a malformed header or a broken PNG chunk
    ValueError,  # text chunks that inflate over Pillow's limits, impossible tiles and modes
    OverflowError,  # sizes and offsets beyond a C integer
    # Raised, asserted or guarded against in the plugins' source:
    TypeError,  # TIFF and EXIF fields of the wrong type
    KeyError,  # TIFF without a required tag; an unknown mode or compression
    IndexError,  # headers that end early
    EOFError,  # GIF and TIFF directories that lead past the end
    AttributeError,  # a plugin that meets a half-read header
    AssertionError,  # plugins assert what a broken file denies
    RuntimeError,  # TIFF offsets of an unknown kind; NotImplementedError is one
    ZeroDivisionError,  # rational fields with a zero below
    MemoryError,  # a codec that cannot allocate what a lying header asks for
    struct.error,  # fields cut short
    zlib.error,  # broken deflate streams
)
"""What Pillow may raise on bad bytes."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the transposition that undoes it (EXIF 2.32, tag 0x0112)."""


def decode(data: bytes, preprocess: Preprocess, limits: DecodeLimits = _LIMITS) -> Picture:
    """Decode one picture.

    Of an animation the first frame counts. EXIF orientation is applied. Transparency is composed on white.
    16-bit grey is scaled to 8 bits; 32-bit integer and float grey, which know no white, are stretched from
    their minimum to their maximum. Colour profiles are ignored, as open_clip does.

    Args:
        data: the encoded picture.
        preprocess: of the encoder that will see it.
        limits: what a picture may be.

    Returns:
        The picture.

    Raises:
        DecodeError: the bytes are too many, of no allowed format, too large when decoded, or broken.
    """
    if not data:
        raise DecodeError("the picture is empty (0 bytes)")
    if len(data) > limits.max_bytes:
        raise DecodeError(f"the picture has {len(data):,} bytes, over the limit of {limits.max_bytes:,}")
    try:
        with Image.open(BytesIO(data), formats=limits.formats) as image:
            _check_size(image, preprocess, limits)
            picture = _upright(_rgb(image), image)
        pixels, bits = preprocess.fit(picture), fingerprint(picture)
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError(f"not a picture of an allowed format ({', '.join(limits.formats)})") from None
    # Pillow's own pixel guard, where it fires before ours; the warning is raised under python -W error only.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DecodeError(f"the picture has too many pixels: {error}") from error
    except _FAILURES as error:
        raise DecodeError(f"broken picture: {str(error) or type(error).__name__}") from error
    return Picture(pixels, bits, blake2b(data, digest_size=16).digest())


def fingerprint(picture: Image.Image) -> int:
    """The difference hash: is each cell of an 8 × 8 grid brighter than its left neighbour?

    The picture is averaged down to 9 × 8 grey cells. A constant picture gives 0.

    Args:
        picture: mode RGB, any size.

    Returns:
        64 bits, the first row's first comparison highest.
    """
    cells = np.asarray(picture.resize((9, 8), Image.Resampling.BOX).convert("L"))
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def _check_size(image: Image.Image, preprocess: Preprocess, limits: DecodeLimits) -> None:
    """Refuse by the header alone: the pixels are not allocated yet."""
    width, height = image.size
    if width * height > limits.max_pixels:
        raise DecodeError(
            f"the picture has {width:,} × {height:,} pixels, over the limit of {limits.max_pixels:,}"
        )
    # A sliver grows beyond all bounds when its shorter side is resized to the encoder's.
    ratio = max(width, height) / min(width, height)
    if preprocess.size**2 * ratio > limits.max_pixels or ratio > 2 * preprocess.size:
        raise DecodeError(f"the picture is too long and narrow to resize ({width:,} × {height:,} pixels)")


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_grey(image)).convert("RGB")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        canvas = Image.new("RGB", layers.size, "white")
        canvas.paste(layers, mask=layers.getchannel("A"))
        return canvas
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Deep grey to 8 bits, shape (height, width): convert() would clip it at 255."""
    values = np.asarray(image)
    if values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    values -= values.min()
    return np.rint(values * (255 / (values.max() or 1.0))).astype(np.uint8)


def _upright(picture: Image.Image, source: Image.Image) -> Image.Image:
    """Undo the EXIF orientation. EXIF that cannot be read is ignored, as viewers do."""
    try:
        turn = _UPRIGHT.get(source.getexif().get(ExifTags.Base.Orientation, 1))
    except _FAILURES:
        return picture
    return picture if turn is None else picture.transpose(turn)
