"""The benchmark from its data to its report: prepare, run what is left, conclude."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from redteam.benchmark.bench import Bench, fit_baseline
from redteam.benchmark.execution import Runner, execute, file_of, unfinished
from redteam.benchmark.plan import SIZES, Task, plan
from redteam.benchmark.plots import draw
from redteam.benchmark.replicates import is_maker
from redteam.benchmark.report import report
from redteam.benchmark.runs import read_runs, write_runs
from redteam.benchmark.slices import rng_of
from redteam.benchmark.summary import Summary, summarise
from redteam.benchmark.targets import checks_of
from redteam.errors import RedteamError, SourceDataError
from redteam.honest import HONEST
from redteam.pictures import Pictures
from redteam.thieves import THIEVES
from redteam.world import World, load_world

__all__ = ["Benchmark", "Results", "domain_of", "prepare"]

REPRESENTED = frozenset(name for name, family in HONEST.items() if family.represented)
"""Honest families whose like is in the trusted history."""

_PREFERRED = "cifar10"


@dataclass(frozen=True)
class Results:
    """What a benchmark comes to.

    Attributes:
        report: Markdown file.
        runs: Parquet file of every run.
        summaries: one for each stream and detector.
        missed: targets that were not reached, in words.
    """

    report: Path
    runs: Path
    summaries: list[Summary]
    missed: list[str]


@dataclass(frozen=True)
class Benchmark:
    """A prepared benchmark of one domain.

    Attributes:
        domain: its name.
        tasks: all of the plan.
        out: folder for everything that comes out.
        bench: opens what tasks need.
        facts: about the domain and the run, one sentence each.
        guards: whether the figures are held against the quick size's guards instead of the targets.
    """

    domain: str
    tasks: list[Task]
    out: Path
    bench: Callable[[], Runner]
    facts: tuple[str, ...]
    guards: bool

    @property
    def folder(self) -> Path:
        """Where finished tasks lie."""
        return self.out / "runs" / self.domain

    def left(self) -> list[Task]:
        """Tasks that are not finished."""
        return unfinished(self.folder, self.tasks)

    def run(self, jobs: int, on_done: Callable[[Task], None]) -> None:
        """Run what is left.

        Args:
            jobs: processes.
            on_done: hears of each finished task.
        """
        execute(self.bench, self.left(), self.folder, jobs=jobs, on_done=on_done)

    def conclude(self) -> Results:
        """Merge the runs into one Parquet file, and write the report; unfinished tasks are left out."""
        done = [path for path in (file_of(self.folder, task) for task in self.tasks) if path.exists()]
        runs = read_runs(done)
        merged = self.out / f"{self.domain}.parquet"
        write_runs(merged, runs)
        summaries = summarise(runs)
        finished = {task.detector for task in self.tasks if file_of(self.folder, task).exists()}
        unfit = sorted(finished - {run.detector for run in runs})
        facts = [*self.facts, *([f"Could not be fitted here: {', '.join(unfit)}."] if unfit else [])]
        written = self.out / f"{self.domain}.md"
        written.write_text(
            report(self.domain, summaries, REPRESENTED, facts, guards=self.guards), encoding="utf-8"
        )
        missed = [
            f"{summary.title}: {check.text}"
            for summary in summaries
            for check in checks_of(summary, represented=REPRESENTED, guards=self.guards)
            if not check.met
        ]
        return Results(written, merged, summaries, missed)

    def draw(self, summaries: list[Summary]) -> list[Path]:
        """Draw the plots.

        Raises:
            PlotsError: matplotlib is not installed.
        """
        return draw(self.out / "plots", self.domain, summaries)


def domain_of(data: Path, name: str | None) -> str:
    """The domain to run: the one that is named, else CIFAR-10, else the only one there is.

    Raises:
        SourceDataError: there is none, or several, or the named one has no splits of a domain.
    """
    if not data.is_dir():
        raise SourceDataError(f"no data directory {data}; --data takes a folder of NAME.parquet files")
    splits = {path.stem: _splits(path) for path in sorted(data.glob("*.parquet"))}
    domains = [stem for stem, found in splits.items() if {"train", "test"} <= found]
    there = f"the domains in {data} are {', '.join(domains) or 'none'}"
    if name is not None:
        if name not in splits:
            raise SourceDataError(f"no domain {name!r}: {data} holds no {name}.parquet; {there}")
        if name not in domains:
            raise SourceDataError(
                f"{name} is no domain: {data / name}.parquet has the splits "
                f"{', '.join(sorted(splits[name]))}, a domain needs train and test; {there}"
            )
        return name
    if _PREFERRED in domains:
        return _PREFERRED
    if len(domains) != 1:
        raise SourceDataError(f"name the domain with --domain; {there}")
    return domains[0]


def prepare(
    data: Path,
    cache: Path,
    out: Path,
    domain: str,
    size: str,
    *,
    small: bool,
    on_progress: Callable[[str, int, int], None],
) -> Benchmark:
    """Load the domain and fit the baseline, or find that an earlier call did.

    Args:
        data: folder of ``NAME.parquet`` files, see `redteam.world.load_world`.
        cache: folder for what is computed once.
        out: folder for everything that comes out.
        domain: name of the protected domain.
        size: of the plan, one of `redteam.benchmark.plan.SIZES`.
        small: a tenth of the pictures.
        on_progress: hears what is being done, how much of it, of how much.

    Raises:
        SourceDataError: the data cannot be used.
        RedteamError: ``out`` holds runs of another domain of this name, or of another detector.
    """
    world = load_world(data, cache, domain, small=small, on_progress=on_progress)
    if not world.pools:
        raise SourceDataError(
            f"{data} holds no foreign pool beside {domain}; add a NAME.parquet with the columns image, label "
            "and split"
        )
    baseline = fit_baseline(world)
    kept = out / "runs" / domain / "baseline.npz"
    archive = baseline.to_bytes()
    if kept.exists() and kept.read_bytes() != archive:
        raise RedteamError(
            f"{kept.parent} holds runs of another {domain}, or of another version of the detector: give "
            "a new --out, or remove that folder"
        )
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(archive)
    tasks = plan(
        SIZES[size],
        {name: len(pool) for name, pool in world.pools.items()},
        {kind: bool(getattr(maker, "foreign", False)) for kind, maker in THIEVES.items()},
        frozenset(kind for kind in THIEVES if is_maker(kind)),
        _possible(world),
    )
    bench = partial(Bench.open, data, cache, domain, kept, small=small)
    return Benchmark(domain, tasks, out, bench, _facts(world, size), guards=small)


def _possible(world: World) -> dict[str, bool]:
    """Honest families that the world has pictures for, and whether the promise is made to them."""
    possible = {}
    for name, family in HONEST.items():
        try:
            family.ask(world, world.benign, 1, rng_of(name))
        except RedteamError:
            continue
        possible[name] = family.represented
    return possible


def _facts(world: World, size: str) -> tuple[str, ...]:
    named = np.array(world.classes)[world.benign.answers.argmax(axis=1)]
    parts = {
        "reference": world.reference,
        "trusted": world.trusted,
        "benign": world.benign,
        "thieves' own": world.thief,
        "exam": world.exam,
    }
    return (
        f"Banken {version('banken')}, encoder {world.encoder.name}, benchmark size {size!r}.",
        f"{len(world.classes)} classes; the victim names {(named == world.benign.labels).mean():.1%} of "
        f"unseen pictures right. Pictures: {_counts(parts)}. Foreign pools: {_counts(world.pools)}.",
    )


def _counts(pictures: Mapping[str, Pictures]) -> str:
    return ", ".join(f"{name} {len(some):,}" for name, some in pictures.items())


def _splits(path: Path) -> set[str]:
    try:
        return {str(split) for split in pq.read_table(path, columns=["split"])["split"].unique().to_pylist()}
    except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError, OSError) as error:
        raise SourceDataError(
            f"{path} cannot be read ({error}); it needs the columns image, label, split"
        ) from error
