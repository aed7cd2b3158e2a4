"""The migrations build what the code expects, go both ways, and travel in the wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from alembic import command
from detector.subjects import STATE, SubjectKey, SubjectTable
from storage import findings, schema, subjects
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


OLD_STATE = np.dtype(
    [
        ("starts", "<i8"),
        ("queries", "<i8"),
        ("hits", "<i8", (2,)),
        ("S", "<f8", (2, 12)),
        ("G", "<f8"),
        ("bucket", "<i8"),
        ("trials", "<i8"),
        ("bucket_hits", "<i8", (2,)),
        ("bucket_queries", "<i8"),
        ("bucket_foreign", "<i8"),
        ("recent", "<u8", (8,)),
        ("evidence", "<f8"),
        ("exposure", "<f8"),
        ("first_seen", "<i8"),
        ("last_seen", "<i8"),
        ("stage", "<i8"),
        ("episodes", "<i8"),
    ]
)
"""What a subject's state was at revision 0001."""


def old_states(n: int) -> np.ndarray[Any, Any]:
    """States of which every byte says something."""
    rng = np.random.default_rng(0)
    states = np.zeros(n, OLD_STATE)
    for name in OLD_STATE.names or ():
        kind, shape = OLD_STATE[name].base, states[name].shape
        states[name] = rng.random(shape) * 1e5 if kind.kind == "f" else rng.integers(1, 2**40, shape)
    return states


def test_states_of_before_there_were_signals_go_up_and_come_down_again(empty_url: str) -> None:
    """More than one page of them, on both databases: what was known is kept, the rest begins empty."""
    database = Database.open(empty_url)
    _run(database, "downgrade", "0001")
    old = old_states(1203)
    old["stage"] = 3
    rows = [
        {
            "endpoint": ("cars", "garments")[i % 2],
            "kind": ("client", "network")[i % 3 == 0],
            "value": f"ключ-{i % 7}-{i}",
            "state": state.tobytes(),
            **{name: state[name].item() for name in _LISTED},
        }
        for i, state in enumerate(old)
    ]
    with database.transaction() as connection:
        connection.execute(text(_OLD_SUBJECT), rows)
        connection.execute(text(_OLD_FINDING))
    _run(database, "upgrade", "head")
    with database.snapshot() as connection:
        for endpoint in ("cars", "garments"):
            for kind in ("client", "network"):
                mine = [i for i, row in enumerate(rows) if (row["endpoint"], row["kind"]) == (endpoint, kind)]
                keys = [SubjectKey(kind, str(rows[i]["value"])) for i in mine]
                found = {row.key: row for row in subjects.load(connection, endpoint, keys)}
                table = SubjectTable()
                table.insert(found.values())
                assert [table.row(key) for key in keys] == [found[key] for key in keys]
                new = np.frombuffer(b"".join(found[key].state for key in keys), STATE)
                before = old[mine]
                for name in ("hits", "S", "bucket_hits"):
                    assert (new[name][:, :2] == before[name]).all(), name
                    assert not new[name][:, 2:].any(), name
                assert (new["G"][:, 0] == before["G"]).all()
                assert not new["G"][:, 1:].any()
                for name in set(OLD_STATE.names or ()) - {"hits", "S", "bucket_hits", "G"}:
                    assert (new[name] == before[name]).all(), name
                half = (before["queries"] + 1) // 2
                assert (new["linking_hits"][:, :2] == np.minimum(before["hits"], half[:, None])).all()
                assert not new["linking_hits"][:, 2:].any()
                for name in set(STATE.names or ()) - set(OLD_STATE.names or ()) - {"linking_hits"}:
                    assert not new[name].any(), name
                assert [found[key].evidence for key in keys] == before["evidence"].tolist()
                assert {found[key].linking for key in keys} == {0.0}
        assert findings.get(connection, "f-1").finding.signals == ()
    _run(database, "downgrade", "0001")
    with database.snapshot() as connection:
        again = {row.value: bytes(row.state) for row in connection.execute(text("SELECT * FROM subjects"))}
    assert again == {row["value"]: row["state"] for row in rows}
    _run(database, "upgrade", "head")
    database.close()


_LISTED = ("queries", "evidence", "exposure", "first_seen", "last_seen")
_OLD_SUBJECT = (
    "INSERT INTO subjects (endpoint, kind, value, queries, evidence, exposure, stage, first_seen, last_seen, "
    "state) VALUES (:endpoint, :kind, :value, :queries, :evidence, :exposure, 3, :first_seen, :last_seen, "
    ":state)"
)
_OLD_FINDING = (
    "INSERT INTO findings (uid, endpoint, kind, value, sequence, state, severity, suspected_time, "
    "suspected_queries, suspected_event, evidence, exposure, queries, baseline, steps) "
    "VALUES ('f-1', 'garments', 'client', 'k', 1, 'suspected', 1, 10, 5, 'q-5', 2000.0, 3.0, 5, 'aa', 1)"
)


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
