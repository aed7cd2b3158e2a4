"""An encoder that needs no weights, and pictures for it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from embeddings.encoder import EncoderIdentity
from embeddings.preprocess import Preprocess


class Pixels:
    """Says that a picture's embedding is its pixels, and a text's its length.

    Attributes:
        encoded: pictures encoded so far.
    """

    identity = EncoderIdentity("pixels", "e" * 64, 48)
    preprocess = Preprocess(4, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __init__(self) -> None:
        self.encoded = 0

    def embed(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        self.encoded += len(pixels)
        return _unit(pixels.reshape(len(pixels), 48) + 1.0)

    def embed_text(self, texts: Sequence[str]) -> npt.NDArray[np.float16]:
        return _unit(np.eye(48)[[len(text) for text in texts]])


def png(seed: int) -> bytes:
    """A picture of 4 × 4 pixels of any colours."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float16]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
