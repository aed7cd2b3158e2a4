"""A database that refuses: a clear error, and once it is mended nothing is lost or there twice."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

import storage.database
from storage.database import Database
from storage.errors import StorageError, UnavailableError
from streams.formats import named
from streams.pipeline import Feed, Pipeline, Rules
from streams.sources import open_source
from tests.integration.world import World, contents, embeddings_only, write_log

WORLD = World()

Fault = Callable[[Path, Database], AbstractContextManager[None]]


def watch(database: Database, log: Path, after: Callable[[int], object] = lambda done: None) -> None:
    """Read to the end, in batches of 10; ``after`` each the number of queries done is told."""
    done = 0

    def on_batch(report: object) -> None:
        nonlocal done
        done += 10
        after(done)

    with embeddings_only() as embedder, closing(open_source(str(log), once=True)) as source:
        pipeline = Pipeline(database, embedder, Rules(batch_size=10))
        pipeline.run([Feed(source, named(None))], threading.Event(), on_batch)


@contextmanager
def pragma(database: Database, statement: str) -> Iterator[None]:
    """Prepare each connection so, until the fault is mended."""

    def prepare(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(statement)

    event.listen(database.engine, "checkout", prepare)
    try:
        yield
    finally:
        event.remove(database.engine, "checkout", prepare)
        database.close()  # the engine connects anew when it is used again


def full(path: Path, database: Database) -> AbstractContextManager[None]:
    """No room for another page, as on a full disk; less than what is in use cannot be set."""
    return pragma(database, "PRAGMA max_page_count = 1")


def read_only(path: Path, database: Database) -> AbstractContextManager[None]:
    """Writing is forbidden, as it is to a user without the right (root, as whom tests may run, has it)."""
    return pragma(database, "PRAGMA query_only = ON")


@contextmanager
def locked(path: Path, database: Database) -> Iterator[None]:
    """Another process is in the middle of a long write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.parametrize("new_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (full, UnavailableError, "the disk is full.*make room"),
        (locked, UnavailableError, "the database is locked.*another process"),
        (read_only, StorageError, "the database is read-only.*write access"),
    ],
)
def test_a_fault_and_its_mending(
    new_url: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    error: type[StorageError],
    words: str,
) -> None:
    monkeypatch.setattr(storage.database, "_BUSY_SECONDS", 0.1)
    log = write_log(tmp_path / "log.jsonl", WORLD.traffic(130))
    urls = new_url(), new_url()
    undisturbed, database = map(Database.open, urls)
    for one in (undisturbed, database):
        WORLD.install(one, "garments")
    watch(undisturbed, log)

    path = Path(urls[1].removeprefix("sqlite:///"))
    with pytest.raises(error, match=words), fault(path, database):
        watch(database, log)
    assert contents(database)["queries"] == []
    with pytest.raises(error, match=words), ExitStack() as stack:
        watch(database, log, lambda done: stack.enter_context(fault(path, database)) if done == 50 else None)
    assert len(contents(database)["queries"]) >= 50
    watch(database, log)
    assert contents(database) == contents(undisturbed)
    for one in (undisturbed, database):
        one.close()


@pytest.mark.parametrize("where", ["INSERT INTO members", "commit"])
def test_the_same_pipeline_goes_on_after_a_fault(
    new_url: Callable[[], str], tmp_path: Path, where: str
) -> None:
    """What the monitors saw of the failed batch is forgotten, not judged twice."""
    log = write_log(tmp_path / "log.jsonl", WORLD.traffic(130))
    undisturbed, database = (Database.open(new_url()) for _ in range(2))
    for one in (undisturbed, database):
        WORLD.install(one, "garments")
    watch(undisturbed, log)
    times = 0

    def fail() -> None:
        nonlocal times
        times += 1
        if times in {4, 9}:
            raise OperationalError(where, {}, sqlite3.OperationalError("the disk broke"))

    def on_commit(connection: object) -> None:
        if where == "commit":
            fail()

    def on_statement(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(where):
            fail()

    event.listen(database.engine, "commit", on_commit)
    event.listen(database.engine, "before_cursor_execute", on_statement)
    failures = 0
    with embeddings_only() as embedder:
        pipeline = Pipeline(database, embedder, Rules(batch_size=10))
        for _ in range(3):
            with closing(open_source(str(log), once=True)) as source:
                try:
                    pipeline.run([Feed(source, named(None))], threading.Event())
                except StorageError:
                    failures += 1
    assert failures == 2
    assert contents(database) == contents(undisturbed)
    for one in (undisturbed, database):
        one.close()
