"""Honest clients. Each habit is a function registered as a family; the trusted history is made of some."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from redteam.honest import cameras, mixes, strays  # each registers its families
from redteam.honest.family import Family, family, registered
from redteam.honest.trusted import trusted_history

__all__ = ["HONEST", "Family", "family", "trusted_history"]

_MODULES = (cameras, mixes, strays)

HONEST: Mapping[str, Family] = MappingProxyType(registered)
"""Families of the evaluation by name."""
