"""The database that the settings name, open for as long as a command works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from console.errors import SettingsError
from console.settings import Settings, default_database
from storage.database import Database

__all__ = ["opened"]


@contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """Open the database, and close it whatever happens.

    The directory of the default database is made where it is missing; one that somebody named is not, as it
    may be misspelt.

    Raises:
        SettingsError: the directory of the default database cannot be made.
        StorageError: the database cannot be opened.
    """
    if "db" not in settings.model_fields_set:
        directory = default_database().parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"the directory of the default database, {directory}, cannot be made: {error.strerror}; give "
                "--db sqlite:///FILE, or set XDG_STATE_HOME"
            ) from error
    with closing(Database.open(settings.db)) as database:
        yield database
