"""Bytes to vectors: safe decoding, open_clip encoders on any device, the compact CLIP that ships with us."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embeddings.cache import EmbeddingCache
from embeddings.decoding import DecodeLimits, Picture, decode
from embeddings.errors import DecodeError, EmbeddingsError, EncoderError
from embeddings.preprocess import Preprocess

if TYPE_CHECKING:
    from embeddings.encoder import Encoder, EncoderIdentity

__all__ = [
    "DecodeError",
    "DecodeLimits",
    "EmbeddingCache",
    "EmbeddingsError",
    "Encoder",
    "EncoderError",
    "EncoderIdentity",
    "Picture",
    "Preprocess",
    "decode",
]


def __getattr__(name: str) -> object:
    """Import torch with the first encoder, not before: a log of embeddings is watched without it."""
    if name in {"Encoder", "EncoderIdentity"}:
        from embeddings import encoder  # noqa: PLC0415

        return getattr(encoder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
