"""What a driver's error means for a person: the fault, the place and the fix."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DataError, DBAPIError

from storage.errors import StorageError, UnavailableError

__all__ = ["translate", "unfit"]

_Meaning = tuple[type[StorageError], str, str]

_LATER = "nothing of this batch was kept; it can be tried again"

_SQLITE: dict[int, _Meaning] = {
    sqlite3.SQLITE_BUSY: (
        UnavailableError,
        "the database is locked",
        "another process has held the write lock for 30 s: `fuser FILE` names it; end it",
    ),
    sqlite3.SQLITE_LOCKED: (UnavailableError, "a table is locked", _LATER),
    sqlite3.SQLITE_FULL: (
        UnavailableError,
        "the disk is full",
        f"make room on the database's disk; {_LATER}",
    ),
    sqlite3.SQLITE_IOERR: (
        UnavailableError,
        "the database's disk cannot be read or written",
        f"check the disk, its quota and the file size limit; {_LATER}",
    ),
    sqlite3.SQLITE_READONLY: (
        StorageError,
        "the database is read-only",
        "give this user write access to the file and to its directory, or choose another with --db",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        StorageError,
        "the database file cannot be opened",
        "check that its directory exists and that this user may read and write there",
    ),
    sqlite3.SQLITE_NOTADB: (
        StorageError,
        "this file is not an SQLite database",
        "choose another file with --db",
    ),
    sqlite3.SQLITE_CORRUPT: (
        StorageError,
        "the database file is damaged",
        "restore it from a backup, or save what is readable with `sqlite3 FILE .recover`",
    ),
    sqlite3.SQLITE_CONSTRAINT: (
        StorageError,
        "a row contradicts what is stored",
        "two writers may be at work on the same rows: leave one running and start it again",
    ),
}

# By SQLSTATE, or by its class (the first two characters) where the whole is not listed.
_POSTGRESQL: dict[str, _Meaning] = {
    "08": (UnavailableError, "the connection broke", f"check that the server is up; {_LATER}"),
    "23": (
        StorageError,
        "a row contradicts what is stored",
        "two writers may be at work on the same rows: leave one running and start it again",
    ),
    "25006": (
        StorageError,
        "the database is read-only",
        "connect to the primary server with a role that may write",
    ),
    "28": (StorageError, "the server refused the user", "check user, password and pg_hba.conf"),
    "3D000": (StorageError, "the database does not exist", "make it with `createdb`"),
    "40": (UnavailableError, "another transaction got in the way", _LATER),
    "42501": (
        StorageError,
        "the user may not do this",
        "let the database's owner run it once, or grant the rights",
    ),
    "53": (UnavailableError, "the server has no disk, memory or connections left", f"make room; {_LATER}"),
    "55P03": (UnavailableError, "a lock was not to be had", _LATER),
    "57": (UnavailableError, "the server is stopping or starting", _LATER),
}


def translate(error: DBAPIError, place: str) -> StorageError:
    """The storage's own error for a driver's.

    Args:
        error: as SQLAlchemy raised it.
        place: the database, for the message.

    Returns:
        an error to raise: :class:`UnavailableError` where trying again later may help.
    """
    if isinstance(error, DataError):
        return unfit(error.orig or error, place)
    kind, fault, fix = _meaning(error)
    return kind(f"{fault}: {_first_line(error)}", place=place, fix=fix)


def unfit(error: BaseException, place: str) -> StorageError:
    """The storage's own error for what no column can hold: NUL, a lone surrogate, an integer beyond 2⁶³."""
    fault = f"a value does not fit its column: {error}"
    return StorageError(fault, place=place, fix="report this: such input belongs in the dead letters")


def _meaning(error: DBAPIError) -> _Meaning:
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        # Extended codes keep the plain one in their low byte; errors of the driver itself have none.
        code = getattr(cause, "sqlite_errorcode", -1) & 0xFF
        return _SQLITE.get(code, (StorageError, "the database refused", "report this with the message"))
    state = getattr(cause, "sqlstate", None)
    if state is None:
        return (UnavailableError, "the server cannot be reached", "check the URL and that the server is up")
    unknown = (StorageError, f"the database refused ({state})", "report this with the message")
    return _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2]) or unknown


def _first_line(error: DBAPIError) -> str:
    return next(iter(str(error.orig).splitlines()), type(error.orig).__name__)
