"""Databases for tests: a fresh SQLite file, and a fresh database of a private PostgreSQL cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from storage.database import Database

_NAMES = count()


def _server_binaries() -> Path | None:
    if on_path := shutil.which("pg_ctl"):
        return Path(on_path).parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    return installed[-1].parent if installed else None


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A private cluster on a Unix socket; yields a URL with ``{name}`` where the database goes."""
    binaries = _server_binaries()
    if binaries is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must test PostgreSQL: install its server (Debian: postgresql)")
        pytest.skip("the PostgreSQL server is not installed (Debian: apt-get install postgresql)")
    # Its own short path: a socket's name has room for about 100 characters.
    home = Path(tempfile.mkdtemp(prefix="banken-pg-"))
    # The server refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(home, user)

    def control(*command: str) -> None:
        subprocess.run(
            [str(binaries / command[0]), *command[1:]],
            check=True,
            user=user,
            cwd=home,
            stdout=subprocess.DEVNULL,
        )

    data = str(home / "data")
    try:
        control(
            "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"
        )
        options = f"-k {home} -c listen_addresses='' -c fsync=off -c synchronous_commit=off"
        control("pg_ctl", "-D", data, "-o", options, "-l", str(home / "log"), "-w", "start")
        try:
            yield f"postgresql://postgres@/{{name}}?host={home}"
        finally:
            control("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home)


def _administer(server: str, statement: str) -> None:
    engine = create_engine(
        server.format(name="postgres").replace("postgresql:", "postgresql+psycopg:"),
        isolation_level="AUTOCOMMIT",
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture(scope="session")
def _postgresql_template(postgresql_server: str) -> str:
    _administer(postgresql_server, "CREATE DATABASE template")
    Database.open(postgresql_server.format(name="template")).close()
    return "template"


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "banken.db"
    Database.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/banken.db"
    server: str = request.getfixturevalue("postgresql_server")
    name = f"empty{next(_NAMES)}"
    _administer(server, f"CREATE DATABASE {name}")
    return server.format(name=name)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes databases with tables and no rows, and gives their URLs."""

    def sqlite() -> str:
        path = tmp_path / f"banken{next(_NAMES)}.db"
        shutil.copy(request.getfixturevalue("_sqlite_template"), path)
        return f"sqlite:///{path}"

    def postgresql() -> str:
        server: str = request.getfixturevalue("postgresql_server")
        name = f"test{next(_NAMES)}"
        template: str = request.getfixturevalue("_postgresql_template")
        _administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
        return server.format(name=name)

    return sqlite if request.param == "sqlite" else postgresql


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    """The URL of a database with tables and no rows."""
    return new_url()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An open database with tables and no rows."""
    opened = Database.open(url)
    yield opened
    opened.close()
