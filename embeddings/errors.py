"""Errors of the embeddings package."""

from __future__ import annotations

__all__ = ["DecodeError", "EmbeddingsError", "EncoderError"]


class EmbeddingsError(ValueError):
    """Base of every error that the package raises: the message names the fault, the place and the fix."""


class DecodeError(EmbeddingsError):
    """The bytes of one query are not a picture that may be decoded.

    Attributes:
        reason: what is wrong, fit for a dead letter.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EncoderError(EmbeddingsError):
    """An encoder cannot be loaded, or cannot embed what it was given."""
