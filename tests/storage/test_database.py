"""Opening, upgrading and using a database, and what a person is told when that fails."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import insert, inspect, select, text

from storage import schema
from storage.database import Database
from storage.errors import NewerDatabaseError, StorageError, UnavailableError

ROOT = Path(__file__).parents[2]
OPEN_AT_ONCE = """
import sys
from storage.database import Database
print("ready", flush=True)
sys.stdin.readline()
Database.open(sys.argv[1]).close()
"""
OFFSET = {"consumer": "c", "source": "s", "partition": "0", "next_offset": 7}


def test_opening_creates_all_tables(empty_url: str) -> None:
    database = Database.open(empty_url)
    assert set(inspect(database.engine).get_table_names()) == {*schema.metadata.tables, "alembic_version"}
    database.close()


def test_several_processes_start_at_once(empty_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OPEN_AT_ONCE, empty_url],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    ended = [process.communicate("go\n", timeout=60) for process in processes]
    assert [(process.returncode, stderr) for process, (_, stderr) in zip(processes, ended, strict=True)] == [
        (0, "")
    ] * 4
    database = Database.open(empty_url, create=False)
    with database.snapshot() as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
    database.close()


def test_an_exception_rolls_everything_back(database: Database) -> None:
    def fail() -> None:
        with database.transaction() as connection:
            connection.execute(insert(schema.source_offsets), OFFSET)
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    with database.snapshot() as connection:
        assert connection.execute(select(schema.source_offsets)).all() == []


def test_a_snapshot_sees_one_moment_and_does_not_wait(database: Database) -> None:
    with database.transaction() as writer:
        writer.execute(insert(schema.source_offsets), OFFSET)
        with database.snapshot() as reader:
            assert reader.execute(select(schema.source_offsets)).all() == []
            writer.commit()
            assert reader.execute(select(schema.source_offsets)).all() == []


def test_a_contradiction_is_a_storage_error(database: Database) -> None:
    twice = [OFFSET, OFFSET]
    with (
        pytest.raises(StorageError, match="contradicts what is stored"),
        database.transaction() as connection,
    ):
        connection.execute(insert(schema.source_offsets), twice)


def test_a_newer_database_is_refused_and_left_alone(url: str) -> None:
    database = Database.open(url)
    with database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(NewerDatabaseError, match=r"9999.*pip install --upgrade banken"):
        Database.open(url)


def test_a_command_that_reads_makes_no_database(empty_url: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="banken fit"):
        Database.open(empty_url, create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_reads_makes_no_tables(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(StorageError, match="holds nothing of Banken"):
        Database.open(f"sqlite:///{tmp_path}/empty.db", create=False)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("banken.db", "not a database URL"),
        ("mysql://somewhere/banken", "no support for mysql"),
        ("sqlite://", "in-memory"),
        ("sqlite:///{tmp_path}/missing/banken.db", "mkdir -p"),
        ("sqlite:///{tmp_path}", "this is a directory"),
        ("postgresql://someone:secret@/banken?host=/nonexistent", "cannot be reached"),
    ],
)
def test_a_url_that_cannot_work(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=said) as caught:
        Database.open(url.format(tmp_path=tmp_path))
    assert "secret" not in str(caught.value)
    assert caught.value.fault
    assert caught.value.place
    assert caught.value.fix


def test_a_missing_postgresql_database(postgresql_server: str) -> None:
    with pytest.raises(StorageError):
        Database.open(postgresql_server.format(name="nobody_made_it"))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, whatever its name may be\n" * 100)
    with pytest.raises(StorageError, match="not an SQLite database"):
        Database.open(f"sqlite:///{path}")


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "banken.db"
    Database.open(f"sqlite:///{path}").close()
    content = bytearray(path.read_bytes())
    content[200:] = b"\x55" * (len(content) - 200)
    path.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        Database.open(f"sqlite:///{path}")


def test_a_read_only_database_can_be_read_and_refuses_writes(tmp_path: Path) -> None:
    path = tmp_path / "banken.db"
    Database.open(f"sqlite:///{path}").close()
    database = Database.open(f"sqlite:///file:{path}?mode=ro&uri=true", create=False)
    with database.snapshot() as connection:
        assert connection.execute(select(schema.queries)).all() == []
    with pytest.raises(StorageError, match=r"read-only.*write access"), database.transaction() as connection:
        connection.execute(insert(schema.source_offsets), OFFSET)
    database.close()


def test_a_full_disk(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/banken.db")
    letter = {
        "source": "s",
        "partition": "0",
        "item": 0,
        "stage": "parse",
        "reason": "r",
        "digest": b"",
        "raw": bytes(10_000),
    }

    def fill() -> None:
        with database.transaction() as connection:
            # SQLite gives the same error when the file system has no room.
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 10}")
            for offset in range(100):
                connection.execute(insert(schema.dead_letters), {**letter, "offset": offset})

    with pytest.raises(UnavailableError, match=r"disk is full.*make room"):
        fill()
    with database.snapshot() as connection:
        assert connection.execute(select(schema.dead_letters)).all() == []
    database.close()


def test_a_file_size_limit(tmp_path: Path) -> None:
    """A write that the operating system refuses, in a process of its own."""
    script = """
import resource, signal, sys
from sqlalchemy import insert
from storage import schema
from storage.database import Database
from storage.errors import UnavailableError
database = Database.open(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
letter = {"source": "s", "partition": "0", "offset": 0, "item": 0, "stage": "parse",
          "reason": "r", "digest": b""}
try:
    with database.transaction() as connection:
        connection.execute(insert(schema.dead_letters), {**letter, "raw": bytes(2**20)})
except UnavailableError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, f"sqlite:///{tmp_path}/banken.db"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "disk" in done.stdout
    with sqlite3.connect(tmp_path / "banken.db") as connection:
        assert connection.execute("SELECT count(*) FROM dead_letters").fetchone() == (0,)
    connection.close()


def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Database.open(f"sqlite:///{tmp_path}/banken.db").close()
    monkeypatch.setattr("storage.database._BUSY_SECONDS", 0.1)
    database = Database.open(f"sqlite:///{tmp_path}/banken.db")
    other = sqlite3.connect(tmp_path / "banken.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match=r"locked.*fuser"), database.transaction():
        pass
    with database.snapshot() as connection:
        assert connection.execute(select(schema.queries)).all() == []
    other.close()
    database.close()


def test_writers_take_turns(database: Database) -> None:
    """Four threads add one each to a counter, 25 times: no increment is lost."""
    with database.transaction() as connection:
        connection.execute(insert(schema.source_offsets), {**OFFSET, "next_offset": 0})

    def add() -> None:
        for _ in range(25):
            with database.transaction() as connection:
                columns = schema.source_offsets.c
                now = connection.execute(select(columns.next_offset).with_for_update()).scalar_one()
                connection.execute(schema.source_offsets.update().values(next_offset=now + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.snapshot() as connection:
        assert connection.execute(select(schema.source_offsets.c.next_offset)).scalar_one() == 100


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_a_killed_writer_changes_nothing(url: str) -> None:
    script = """
import os, signal, sys
from sqlalchemy import insert
from storage import schema
from storage.database import Database
offset = {"consumer": "c", "source": "s", "partition": "0", "next_offset": 7}
with Database.open(sys.argv[1]).transaction() as connection:
    connection.execute(insert(schema.source_offsets), offset)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, url], cwd=ROOT, check=False)
    assert done.returncode == -9
    database = Database.open(url)
    with database.snapshot() as connection:
        assert connection.execute(select(schema.source_offsets)).all() == []
    database.close()
