"""A watcher that is killed or stopped at any moment: the database ends up as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.database import Database
from tests.integration.world import World, contents, stored_ids, write_log

BANKEN = (sys.executable, "-c", "from console.app import main; main()")
LATEST = 120.0


@dataclass(frozen=True)
class Disturbance:
    """A signal, sent so many seconds after so many committed batches."""

    signal: signal.Signals
    batches: int
    seconds: float


class Watcher:
    """The real command as a process of its own.

    Attributes:
        process: it.
        said: lines that it has logged so far.
    """

    def __init__(self, log: Path, url: str, *options: str) -> None:
        command = [*BANKEN, "watch", "--source", str(log), "--db", url, *options]
        environment = os.environ | {"BANKEN_BATCH_SIZE": "16", "BANKEN_BATCH_SECONDS": "0.2"}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []

    def wait_for(self, batches: int) -> None:
        """Wait until the command watches and has committed so many batches, or has come to its end."""
        assert self.process.stderr is not None
        while sum('"batch"' in line for line in self.said) < batches or not self.said:
            line = self.process.stderr.readline()
            if not line:
                break
            self.said.append(line)

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal and wait for the end."""
        if number is not None:
            self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=LATEST)
        self.said += rest.splitlines()
        return self.process.returncode


def watch_disturbed(log: Path, url: str, disturbances: Sequence[Disturbance]) -> list[int]:
    """Watch, be disturbed, start again, and finish; how many queries were stored after each disturbance."""
    progress = []
    for disturbance in disturbances:
        kill = disturbance.signal is signal.SIGKILL
        watcher = Watcher(log, url, *(["--once"] if kill else []))
        watcher.wait_for(disturbance.batches)
        time.sleep(disturbance.seconds)
        begin = time.monotonic()
        code = watcher.end(disturbance.signal)
        if kill:
            assert code in {-signal.SIGKILL, 0}, watcher.said  # 0: it had come to the end
        else:
            assert code == 0, watcher.said
            assert '"stopped"' in watcher.said[-1]
            assert time.monotonic() - begin < 10
        database = Database.open(url)
        progress.append(len(stored_ids(database)))
        database.close()
    last = Watcher(log, url, "--once")
    assert last.end() == 0, last.said
    return progress


def check_equal(
    world: World, n: int, tmp_path: Path, new_url: Callable[[], str], plan: list[Disturbance]
) -> None:
    log = write_log(tmp_path / "log.jsonl", world.traffic(n))
    with log.open("ab") as file:
        file.write(b"{not a query\n")
    urls = new_url(), new_url()
    databases = [Database.open(url) for url in urls]
    for database in databases:
        world.install(database, "garments")
    quiet = Watcher(log, urls[0], "--once")
    assert quiet.end() == 0, quiet.said
    progress = watch_disturbed(log, urls[1], plan)
    undisturbed, disturbed = map(contents, databases)
    for database in databases:
        database.close()
    assert progress == sorted(progress)
    assert len(set(progress) - {0, n}) >= len(plan) // 2, (
        f"the disturbances came too early or late: {progress}"
    )
    assert len(undisturbed["queries"]) == n
    for name, rows in undisturbed.items():
        assert rows, name
        assert disturbed[name] == rows, name


@pytest.mark.parametrize("new_url", ["sqlite"], indirect=True)
def test_killed_and_stopped_a_few_times(tmp_path: Path, new_url: Callable[[], str]) -> None:
    plan = [
        Disturbance(signal.SIGKILL, 5, 0.01),
        Disturbance(signal.SIGTERM, 3, 0.0),
        Disturbance(signal.SIGINT, 3, 0.02),
    ]
    check_equal(World(dim=64), 600, tmp_path, new_url, plan)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_twenty_moments(tmp_path: Path, new_url: Callable[[], str]) -> None:
    moments = random.Random(0)
    plan = [Disturbance(signal.SIGKILL, moments.randint(0, 10), moments.uniform(0, 0.03)) for _ in range(20)]
    check_equal(World(dim=512), 4000, tmp_path, new_url, plan)


def test_a_log_of_embeddings_needs_no_torch() -> None:
    script = "import sys, console.app; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
