"""Errors of the detector."""

from __future__ import annotations

__all__ = ["DetectorError"]


class DetectorError(ValueError):
    """Base of every error that the detector raises: the message names the fault, the place and the fix."""
