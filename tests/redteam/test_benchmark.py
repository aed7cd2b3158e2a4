"""Tasks on a made-up world: what Banken and rivals are shown, what is recorded, and what survives."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from redteam.benchmark.agreement import agreement
from redteam.benchmark.bench import Bench, fit_baseline
from redteam.benchmark.execution import execute, file_of, unfinished
from redteam.benchmark.plan import SIZES, Group, Stream, Task, plan
from redteam.benchmark.plots import draw
from redteam.benchmark.replicates import attack, campaign, honest
from redteam.benchmark.runs import read_runs
from redteam.benchmark.summary import summarise
from redteam.world import World
from tests.redteam.counting import ATTACK, KNOCKOFF, Counting, tasks_of
from tests.redteam.made_up import make_world
from tests.redteam.test_benchmark_figures import CAMPAIGN, HONEST

DEALT = Stream(Group.CAMPAIGN, "knockoff", 200, "noise", accounts=10, network=True, beside=15)


def banken(stream: Stream, replicates: int = 2, *, trains: bool = False) -> Task:
    return Task(stream, "banken", 0, replicates, replicates, trains)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def bench(world: World) -> Bench:
    return Bench(world, fit_baseline(world))


def test_a_thief_is_found_and_what_it_holds_is_measured(bench: Bench) -> None:
    runs = bench.run(banken(KNOCKOFF, trains=True))
    assert [run.replicate for run in runs] == [0, 1]
    for run in runs:
        assert run.queries == 200
        assert run.suspected_at is not None
        assert run.alerted_at is not None
        assert 3 <= run.suspected_at < 25 <= run.alerted_at <= 60
        assert (run.alerted_by, run.slicing) == ("out of domain", "disjoint")
        assert run.agreement_at_alert is not None
        assert run.agreement_final is not None
        assert run.progress_at_alert is not None
        assert 0.4 <= run.progress_at_alert <= 1


def test_a_run_depends_on_nothing_but_its_name(bench: Bench) -> None:
    both = bench.run(banken(KNOCKOFF))
    (second,) = bench.run(Task(KNOCKOFF, "banken", 1, 2, 2))
    assert replace(second, seconds=0) == replace(both[1], seconds=0)


def test_a_turncoat_is_counted_from_its_turn(bench: Bench, world: World) -> None:
    stream = Stream(Group.ATTACK, "turncoat", 100, "noise", turn=300)
    traffic = attack(world, stream, 0, 2)
    assert not traffic.attack[:300].any()
    assert traffic.attack[300:].all()
    for run in bench.run(banken(stream)):
        assert run.queries == 100
        assert run.alerted_at is not None
        assert 25 <= run.alerted_at <= 70


def test_camouflage_counts_every_query_of_the_client(bench: Bench, world: World) -> None:
    stream = replace(KNOCKOFF, share=0.5)
    assert attack(world, stream, 0, 2).attack.mean() == 0.5
    for run in bench.run(banken(stream)):
        assert run.alerted_at is not None
        assert run.alerted_at >= 45


def test_seeds_are_not_counted(bench: Bench) -> None:
    (run,) = bench.run(banken(Stream(Group.ATTACK, "jbda", 140), 1))
    assert (run.queries, run.slicing) == (40, "made anew")


def test_honest_clients_have_their_own_pictures_and_are_left_alone(bench: Bench, world: World) -> None:
    stream = Stream(Group.HONEST, "i.i.d.", 150, share=0.0)
    clients = honest(world, stream, 0, 4).of_client()
    assert [len(own) for own in clients.values()] == [150] * 4
    for own in clients.values():
        assert len(np.unique(own.pictures.embeddings, axis=0)) == 150, "no repeat within one life"
    runs = bench.run(banken(stream, 4))
    assert [run.alerted_at for run in runs] == [None] * 4


def test_a_campaign_is_pooled_and_listed(bench: Bench, world: World) -> None:
    assert set(campaign(world, DEALT, 0).clients) == {f"mule-{number:04d}" for number in range(10)}
    (run,) = bench.run(banken(DEALT, 1))
    assert run.suspected_at is run.alerted_at is None
    assert run.alerted_pooled is not None
    assert 25 <= run.alerted_pooled <= 100
    assert run.alerted_by in {"network", "campaign", "fleet"}
    assert run.recall == run.precision == 1


def test_rivals_see_the_same_streams(bench: Bench) -> None:
    ours, theirs = bench.run(banken(KNOCKOFF)), bench.run(Task(KNOCKOFF, "knn-mean", 0, 2, 2))
    assert [run.queries for run in theirs] == [run.queries for run in ours]
    assert all(run.detector == "knn-mean" and run.alerted_at is not None for run in theirs)
    (dealt,) = bench.run(Task(DEALT, "knn-mean", 0, 1, 1))
    assert dealt.recall is not None


def test_more_answers_make_a_better_thief(world: World) -> None:
    assert agreement(world.thief[:1], world.exam) <= agreement(world.thief, world.exam)
    assert agreement(world.thief, world.exam) > 0.8


@pytest.mark.parametrize("size", SIZES)
def test_a_plan_names_every_task_once(size: str) -> None:
    tasks = plan(
        SIZES[size],
        {"tiny-imagenet": 12_000, "cifar100": 10_000},
        {"knockoff": True, "jbda": False, "in-domain": False},
        frozenset({"jbda"}),
        {"i.i.d.": True, "other camera": False},
    )
    assert len({task.key for task in tasks}) == len(tasks)
    assert all("/" not in task.key and " " not in task.key for task in tasks)
    replicates = {}
    for task in tasks:
        stream = replace(task.stream, queries=0)
        if task.detector == "banken" and task.stream.name != "i.i.d.":
            replicates.setdefault((stream, task.of), []).extend(range(task.first, task.stop))
    for (_, of), numbers in replicates.items():
        assert sorted(numbers) == list(range(of)), "every replicate runs once"


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    tasks = tasks_of(6)
    done: list[str] = []
    execute(Counting, tasks[:4], tmp_path, jobs=1, on_done=lambda task: done.append(task.key))
    assert done == [task.key for task in tasks[:4]]
    assert unfinished(tmp_path, tasks) == tasks[4:]
    assert read_runs([file_of(tmp_path, task) for task in tasks[:4]]) == [ATTACK] * 4


def test_a_killed_process_is_named_and_loses_nothing_else(tmp_path: Path) -> None:
    tasks = tasks_of(6)
    script = (
        "from functools import partial\n"
        "from pathlib import Path\n"
        "from redteam.benchmark.execution import execute\n"
        "from tests.redteam.counting import Counting, tasks_of\n"
        "if __name__ == '__main__':\n"
        f"    counting, folder = partial(Counting, {tasks[3].key!r}), Path({str(tmp_path)!r})\n"
        "    execute(counting, tasks_of(6), folder, jobs=2, on_done=lambda task: None)\n"
    )
    (tmp_path / "killed.py").write_text(script)
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, tmp_path / "killed.py"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "a process was killed during" in result.stderr
    left = unfinished(tmp_path, tasks)
    assert tasks[3] in left
    execute(partial(Counting), left, tmp_path, jobs=1, on_done=lambda task: None)
    assert unfinished(tmp_path, tasks) == []


def test_every_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    leaky = replace(ATTACK, agreement_at_alert=0.2, agreement_final=0.8, alerted_at=None)
    runs = [ATTACK, leaky, HONEST, CAMPAIGN, replace(CAMPAIGN, share=0.5, alerted_pooled=None)]
    written = draw(tmp_path, "cifar10", summarise(runs))
    assert [path.name for path in written] == [
        f"cifar10-{name}.png" for name in ("delays", "honest", "agreement", "shares")
    ]
    assert all(path.stat().st_size > 5_000 for path in written)
    assert draw(tmp_path, "none", []) == []
