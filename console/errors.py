"""Errors of the console."""

from __future__ import annotations

__all__ = ["SettingsError"]


class SettingsError(Exception):
    """Settings cannot be used: the message names the setting, what was given and what would do."""
