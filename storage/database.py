"""The database: opened, upgraded, and used one transaction at a time.

SQLite runs in WAL mode with ``synchronous=NORMAL``: a killed process loses nothing that was committed; a
power cut may lose the last transactions as a whole, and as offsets are part of them, they are read again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from storage.errors import StorageError
from storage.faults import translate, unfit
from storage.upgrade import upgrade

__all__ = ["Database"]

_BUSY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Database:
    """An open database of the schema that this code knows.

    Examples:
        >>> database = Database.open("sqlite:///banken.db")  # doctest: +SKIP
        >>> with database.transaction() as connection:  # doctest: +SKIP
        ...     offsets.advance(connection, "banken", position, expected=0)
    """

    engine: Engine

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Database:
        """Connect, and create or upgrade the tables where needed; several processes may do so at once.

        Args:
            url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``postgresql://user@host/name``.
            create: build the database where there is none; False is for commands that only read.

        Raises:
            NewerDatabaseError: a newer Banken has upgraded it.
            UnavailableError: it is locked, full or out of reach.
            StorageError: it cannot be opened for another reason.
        """
        parsed = _parsed(url)
        _check_file(parsed, create=create)
        try:
            database = cls(_engine(parsed))
        except ModuleNotFoundError as error:
            raise StorageError(
                f"the driver {error.name} is not installed",
                place=parsed.render_as_string(),
                fix="pip install 'banken[postgres]'",
            ) from error
        try:
            upgrade(database, create=create)
        except BaseException:
            database.close()
            raise
        return database

    @property
    def place(self) -> str:
        """The database's URL without its password, for messages."""
        return self.engine.url.render_as_string(hide_password=True)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction that writes: committed at the end, rolled back on any exception.

        Yields:
            a connection; on SQLite it holds the write lock from the start, so that it never fails half-way
            for want of it.

        Raises:
            StorageError: the database refused; nothing of the transaction was kept.
        """
        with self._connection(sqlite_begin="BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One transaction that only reads, all of it as of one moment; never waits for a writer.

        Raises:
            StorageError: the database refused.
        """
        options = (
            {} if self._is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        )
        with self._connection(**options) as connection:
            yield connection

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()

    @property
    def _is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def _connection(self, **options: Any) -> Iterator[Connection]:
        try:
            with self.engine.connect().execution_options(**options) as connection, connection.begin():
                yield connection
        except DBAPIError as error:
            raise translate(error, self.place) from error
        except (UnicodeEncodeError, OverflowError) as error:
            # SQLite's driver lets these through as they are.
            raise unfit(error, self.place) from error


def _parsed(url: str) -> URL:
    fix = "write sqlite:///file.db or postgresql://user@host/name"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        # The text is not shown: it may hold a password in a place where nobody expects one.
        raise StorageError("this is not a database URL", place="the database setting", fix=fix) from error
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in {"sqlite", "postgresql+psycopg"}:
        raise StorageError(f"no support for {parsed.drivername}", place=parsed.render_as_string(), fix=fix)
    return parsed


def _check_file(url: URL, *, create: bool) -> None:
    if url.drivername != "sqlite" or (url.database or "").startswith("file:"):
        return
    if url.database in {None, "", ":memory:"}:
        raise StorageError(
            "an in-memory database would forget everything",
            place=url.render_as_string(),
            fix="give a file: sqlite:///file.db",
        )
    path = Path(str(url.database))
    if not path.parent.is_dir():
        raise StorageError(
            "the directory does not exist", place=str(path.parent), fix=f"mkdir -p '{path.parent}'"
        )
    if path.is_dir():
        raise StorageError(
            "this is a directory, not a database file", place=str(path), fix="give a file inside it"
        )
    if not create and not path.exists():
        raise StorageError(
            "there is no database yet", place=str(path), fix="`banken fit` makes one, or point --db at yours"
        )


def _engine(url: URL) -> Engine:
    if url.drivername != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver opens transactions by its own rules; None leaves BEGIN to us.
    connection.isolation_level = None
    cursor = connection.cursor()
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # Subjects lie scattered: a batch touches thousands of pages. 32 MB of them stay in memory, and the
    # log is written back when it has that size, not at every commit.
    cursor.execute("PRAGMA cache_size = -32768")
    cursor.execute("PRAGMA wal_autocheckpoint = 8192")
    cursor.close()


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Switch a new file to WAL; of several processes that try at once, all but one may be told "busy".

    The switch does not wait as other statements do, hence the loop.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
