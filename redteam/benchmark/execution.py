"""Tasks over processes: each opens the world once, and each finished task is one small file."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from redteam.benchmark.plan import Task
from redteam.benchmark.runs import Run, write_runs
from redteam.errors import RedteamError

__all__ = ["Runner", "execute", "file_of", "unfinished"]

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Runner(Protocol):
    """What runs tasks: `redteam.benchmark.bench.Bench`."""

    def run(self, task: Task) -> list[Run]:
        """Run a task's replicates."""


_runner: Runner | None = None


def file_of(folder: Path, task: Task) -> Path:
    """Where a finished task's runs lie."""
    return folder / f"{task.key}.parquet"


def unfinished(folder: Path, tasks: Sequence[Task]) -> list[Task]:
    """Tasks whose file is not there yet."""
    return [task for task in tasks if not file_of(folder, task).exists()]


def execute(
    opens: Callable[[], Runner],
    tasks: Sequence[Task],
    folder: Path,
    *,
    jobs: int,
    on_done: Callable[[Task], None],
) -> None:
    """Run tasks; whatever is finished stays when this is interrupted.

    Args:
        opens: makes what runs them, in each process once. It is sent to other processes, so it is a function
            of a module's level, or a partial one.
        tasks: to run, in this order.
        folder: for one file a task.
        jobs: processes. With one, everything happens in this process.
        on_done: hears of each finished task.

    Raises:
        RedteamError: a process was killed.
    """
    if jobs == 1:
        runner = opens()
        for task in tasks:
            _perform(runner, task, folder)
            on_done(task)
        return
    with _one_thread():
        pool = ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn"), initializer=_open, initargs=(opens,)
        )
        try:
            waiting = {pool.submit(_perform_here, task, folder): task for task in tasks}
            while waiting:
                finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    on_done(_result(future, waiting.pop(future)))
        finally:
            # What is under way is finished and kept; what has not begun never will be.
            pool.shutdown(cancel_futures=True)


def _result(future: Future[None], task: Task) -> Task:
    try:
        future.result()
    except BrokenProcessPool as error:
        raise RedteamError(
            f"a process was killed during {task.key}, perhaps for want of memory: run it again with fewer "
            "--jobs; what is finished is kept"
        ) from error
    return task


def _open(opens: Callable[[], Runner]) -> None:
    global _runner  # noqa: PLW0603 - what a process opens once lives as long as the process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of the group; the parent decides
    _runner = opens()


def _perform_here(task: Task, folder: Path) -> None:
    assert _runner is not None
    _perform(_runner, task, folder)


def _perform(runner: Runner, task: Task, folder: Path) -> None:
    write_runs(file_of(folder, task), runner.run(task))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Child processes start with libraries on one thread each; this process keeps its own setting."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
