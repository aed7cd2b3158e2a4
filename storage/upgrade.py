"""Bring a database to the schema that this code knows, with the migrations in `alembic/`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from alembic import command
from storage.errors import NewerDatabaseError, StorageError

__all__ = ["Upgradable", "migrations", "upgrade"]

# Any number will do, as long as every Banken takes the same one ("banken" in ASCII).
_ADVISORY_LOCK = 0x62616E6B656E


class Upgradable(Protocol):
    """What :func:`upgrade` needs of a database."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""

    def snapshot(self) -> AbstractContextManager[Connection]:
        """One transaction that reads."""

    def transaction(self) -> AbstractContextManager[Connection]:
        """One transaction that writes."""


def migrations() -> Config:
    """Alembic's settings: the migrations are inside an installed storage, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "migrations"
    folder = installed if installed.is_dir() else package.parent / "alembic"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config


def upgrade(database: Upgradable, *, create: bool) -> None:
    """Upgrade a database, unless it is up to date already.

    1. Look, without a lock: nearly always there is nothing to do.
    2. Lock out other upgraders: PostgreSQL by an advisory lock, SQLite by its one write lock.
    3. Look again: another process may have upgraded meanwhile.
    4. Run what is missing. All of it is one transaction, so a killed upgrade leaves no trace.

    Args:
        database: connected, perhaps empty.
        create: whether an empty database may be filled.

    Raises:
        NewerDatabaseError: its revision is unknown here.
        StorageError: it is empty and ``create`` is False.
    """
    config = migrations()
    with database.snapshot() as connection:
        if _is_current(connection, config, database.place):
            return
        if not create and _revisions(connection) == ():
            raise StorageError(
                "this database holds nothing of Banken",
                place=database.place,
                fix="`banken fit` fills it, or point --db at yours",
            )
    with database.transaction() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        if not _is_current(connection, config, database.place):
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _is_current(connection: Connection, config: Config, place: str) -> bool:
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    revisions = _revisions(connection)
    if unknown := set(revisions) - known:
        raise NewerDatabaseError(
            f"this database is newer than this Banken (revision {', '.join(sorted(unknown))})",
            place=place,
            fix="pip install --upgrade banken, or point --db at another database",
        )
    return set(revisions) == set(scripts.get_heads())


def _revisions(connection: Connection) -> tuple[str, ...]:
    return tuple(MigrationContext.configure(connection).get_current_heads())
