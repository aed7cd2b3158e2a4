"""What can go wrong while attacks are simulated."""

from __future__ import annotations

__all__ = ["RedteamError", "SourceDataError"]


class RedteamError(Exception):
    """Base of every error that this package raises on purpose."""


class SourceDataError(RedteamError):
    """Source pictures are missing, malformed or too few. The message names the file or folder."""
