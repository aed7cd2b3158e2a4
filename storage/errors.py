"""Errors of the storage: each names the fault, the place and the fix."""

from __future__ import annotations

__all__ = ["FencedError", "NewerDatabaseError", "StorageError", "UnavailableError"]


class StorageError(Exception):
    """Base of every error that the storage raises.

    Attributes:
        fault: what went wrong.
        place: the database (password hidden), file or row where it went wrong.
        fix: what a person can do about it.
    """

    def __init__(self, fault: str, *, place: str, fix: str) -> None:
        super().__init__(fault, place, fix)
        self.fault = fault
        self.place = place
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.fault} ({self.place}): {self.fix}"


class UnavailableError(StorageError):
    """The database is locked, full or out of reach: the same transaction may succeed later."""


class NewerDatabaseError(StorageError):
    """The database was upgraded by a newer Banken than this one."""


class FencedError(StorageError):
    """Another worker has moved the offset: this batch is not ours to commit."""
