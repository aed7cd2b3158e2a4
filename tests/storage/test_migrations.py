"""The migrations build what the code expects, go both ways, and travel in the wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from alembic import command
from storage import schema
from storage.database import Database
from storage.upgrade import migrations

ROOT = Path(__file__).parents[2]


def _run(database: Database, direction: str, revision: str) -> None:
    config = migrations()
    with database.transaction() as connection:
        config.attributes["connection"] = connection
        getattr(command, direction)(config, revision)


def test_the_migrated_schema_is_the_metadata(database: Database) -> None:
    with database.snapshot() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, schema.metadata) == []


def test_the_comparison_sees_partial_indexes_and_keys(database: Database) -> None:
    """What alembic does not compare (keys, conditions of indexes, foreign keys' names), compared by hand."""
    with database.snapshot() as connection:
        inspector = inspect(connection)
        for table in schema.metadata.sorted_tables:
            key = inspector.get_pk_constraint(table.name)["constrained_columns"]
            assert key == [column.name for column in table.primary_key], table.name
            dialect = connection.dialect.name
            for index in inspector.get_indexes(table.name):
                if index.get("duplicates_constraint") or index["name"].startswith("sqlite_autoindex"):
                    continue
                ours = next(own for own in table.indexes if own.name == index["name"])
                condition = ours.dialect_options[dialect]["where"]
                found = index.get("dialect_options", {}).get(f"{dialect}_where")
                assert (condition is None) == (found is None), index["name"]


def test_every_table_is_documented() -> None:
    page = (ROOT / "docs" / "storage.md").read_text(encoding="utf-8")
    assert [name for name in schema.metadata.tables if f"| `{name}` |" not in page] == []


def test_down_and_up_again(empty_url: str) -> None:
    database = Database.open(empty_url)
    _run(database, "downgrade", "base")
    with database.snapshot() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    _run(database, "upgrade", "head")
    with database.snapshot() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    database.close()


def test_a_failed_upgrade_leaves_no_trace(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        command.upgrade(*_)
        raise KeyboardInterrupt

    monkeypatch.setattr("storage.upgrade.command", type("command", (), {"upgrade": staticmethod(fail)}))
    with pytest.raises(KeyboardInterrupt):
        Database.open(empty_url)
    monkeypatch.undo()
    database = Database.open(empty_url)
    with database.snapshot() as connection:
        assert "queries" in inspect(connection).get_table_names()
    database.close()


@pytest.mark.slow
def test_an_installed_wheel_brings_its_migrations(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("banken-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "storage/migrations/env.py" in names
    assert "storage/migrations/versions/0001_first_schema.py" in names
    assert not [name for name in names if name.startswith("alembic") or name.endswith(".pyc")]

    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(installed), str(wheel)], check=True)
    script = (
        "import sys; sys.path = [p for p in sys.path if p != sys.argv[2]]; sys.path.insert(0, sys.argv[1])\n"
        "import storage.database as d, alembic\n"
        "assert d.__file__.startswith(sys.argv[1]), d.__file__\n"
        "assert not alembic.__file__.startswith(sys.argv[1]), alembic.__file__\n"
        "from sqlalchemy import inspect\n"
        "db = d.Database.open('sqlite:///banken.db')\n"
        "print(*sorted(inspect(db.engine).get_table_names()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(installed), str(ROOT)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == sorted([*schema.metadata.tables, "alembic_version"])
