"""A runner that finds nothing, in a module that imports quickly: other processes have to."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from redteam.benchmark.plan import Group, Stream, Task
from redteam.benchmark.runs import Run

KNOCKOFF = Stream(Group.ATTACK, "knockoff", 200, "noise")

ATTACK = Run(
    domain="cifar10",
    group="attack",
    name="knockoff",
    pool="tiny-imagenet",
    share=1.0,
    accounts=1,
    network=False,
    replicate=0,
    slicing="disjoint",
    detector="banken",
    queries=5_000,
    suspected_at=4,
    alerted_at=31,
)


@dataclass
class Counting:
    """Gives every task the same run, and dies at one."""

    dies_at: str = ""

    def run(self, task: Task) -> list[Run]:
        if task.key == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return [ATTACK]


def tasks_of(count: int) -> list[Task]:
    return [Task(KNOCKOFF, "banken", number, number + 1, count) for number in range(count)]
