"""`banken redteam`: attack Banken, and measure how it does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from console.demo.command import DATA as DEMO
from console.output import clean, error_console, out, say

if TYPE_CHECKING:
    from redteam.benchmark.conduct import Benchmark

__all__ = ["app"]

MISSED = 10
"""Exit code for a missed target, as for findings elsewhere."""

app = typer.Typer(
    help="Attack Banken: simulated thieves, honest clients, published detectors, and the benchmark of all.",
    no_args_is_help=True,
)


@app.command()
def benchmark(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            envvar="BANKEN_DATA",
            help="Folder of NAME.parquet files with the columns image, label and split. A file with the "
            "splits train and test is a domain to protect; all others are pools that thieves draw from. "
            "--quick works without, on pictures that ship with Banken.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Under three minutes; the default. It guards, it measures little.")
    ] = False,
    core: Annotated[
        bool, typer.Option("--core", help="Under an hour on two cores: the published tables.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Everything, with more replicates and every published detector.")
    ] = False,
    domain: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which domain to protect; cifar10, or the only one there is."),
    ] = None,
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="For runs, tables and plots.")
    ] = Path("banken-benchmark"),
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For what is computed once, such as embeddings and the victim; OUT/cache if left out.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Processes; as many as there are cores if left out."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit with {MISSED} if a target is missed.")
    ] = False,
) -> None:
    """Measure Banken against thieves, honest clients and published detectors, on fixed splits and seeds.

    Every picture of the domain serves one party only: the victim, the baseline, the trusted clients, the
    honest clients, the thief or the exam. Thresholds are fixed on the trusted history before any evaluation.

    Ctrl-C keeps the runs that are finished, and the same command goes on from there. What comes out:
    OUT/NAME.md with the tables, OUT/NAME.parquet with every run, and OUT/plots. docs/benchmark.md explains
    them.
    """
    size = _size(quick=quick, core=core, full=full)
    # Torch and the rest take seconds; `banken --help` does not wait for them.
    from redteam.benchmark.conduct import domain_of, prepare  # noqa: PLC0415
    from redteam.benchmark.plots import PlotsError  # noqa: PLC0415
    from redteam.benchmark.shipped import DOMAIN, unpack  # noqa: PLC0415

    kept = cache or out_folder / "cache"
    if data is None:
        if size != "quick":
            raise typer.BadParameter(f"--{size} needs --data DIR (or BANKEN_DATA)", param_hint="--data")
        data, domain = kept / "shipped", domain or DOMAIN
        unpack(DEMO, data)
    name = domain_of(data, domain)
    with _progress() as progress:
        bars: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(f"preparing {what}")
            progress.update(bars[what], completed=done, total=total)

        prepared = prepare(data, kept, out_folder, name, size, small=size == "quick", on_progress=show)
    _run(prepared, jobs or os.cpu_count() or 1)

    results = prepared.conclude()
    out.print(results.report.read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    try:
        plots = prepared.draw(results.summaries)
    except PlotsError as error:
        error_console.print(f"No plots: {clean(error)}", markup=False, soft_wrap=True)
        plots = []
    for path in (results.report, results.runs, *plots):
        say(f"Wrote {path}")
    if results.missed:
        error_console.print(
            f"{len(results.missed)} targets missed; see the end of {results.report}", markup=False
        )
        if strict:
            raise typer.Exit(MISSED)


@app.command()
def zoo() -> None:
    """List who attacks, who is honest, and which published detectors are compared.

    The benchmark runs all of them. A new one is one small file: docs/benchmark.md says how.
    """
    from redteam.honest import HONEST  # noqa: PLC0415
    from redteam.rivals import RIVALS  # noqa: PLC0415
    from redteam.thieves import THIEVES  # noqa: PLC0415

    table = Table("kind", "name", "what it does", header_style="bold")
    for name, thief in sorted(THIEVES.items()):
        table.add_row(
            "thief", f"{name} ← POOL" if getattr(thief, "foreign", False) else name, _first_line(thief)
        )
    for name, family in HONEST.items():
        known = " (in the trusted history)" if family.represented else ""
        table.add_row("honest", name, _first_line(family.draw) + known)
    for name, rival in RIVALS.items():
        table.add_row("rival", name, _first_line(rival))
    out.print(table)


def _size(*, quick: bool, core: bool, full: bool) -> str:
    given = [name for name, wanted in (("quick", quick), ("core", core), ("full", full)) if wanted]
    if len(given) > 1:
        raise typer.BadParameter("give one of them", param_hint=" / ".join(f"--{name}" for name in given))
    return given[0] if given else "quick"


def _run(prepared: Benchmark, jobs: int) -> None:
    """Run what is left with a progress bar; Ctrl-C says how to go on."""
    left = len(prepared.left())
    finished = len(prepared.tasks) - left
    if finished:
        error_console.print(
            f"{finished:,} of {len(prepared.tasks):,} tasks were finished before.", markup=False
        )
    with _progress() as progress:
        bar = progress.add_task(
            f"{prepared.domain}, {jobs} processes", completed=finished, total=len(prepared.tasks)
        )
        try:
            prepared.run(jobs, lambda task: progress.advance(bar))
        except KeyboardInterrupt:
            progress.stop()
            done = len(prepared.tasks) - len(prepared.left())
            error_console.print(
                f"Interrupted; {done:,} of {len(prepared.tasks):,} tasks are kept in {prepared.folder}. "
                "The same command goes on from there.",
                markup=False,
                soft_wrap=True,
            )
            raise


@contextmanager
def _progress() -> Iterator[Progress]:
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=error_console,
        disable=not error_console.is_terminal,
    ) as progress:
        yield progress


def _first_line(what: object) -> str:
    """The first line of a docstring; of a partial function that of the function."""
    said = getattr(what, "func", what).__doc__ or ""
    return said.strip().partition("\n")[0]
