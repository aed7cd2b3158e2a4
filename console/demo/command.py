"""`banken demo`: the whole way from images to findings, on data that ships with us."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

import storage.findings
from console.current import as_of_now, members_of
from console.demo.scoreboard import scoreboard
from console.fit import embedder_of, fit_and_store
from console.opening import opened
from console.options import Device, EncoderSpec
from console.output import error_console, findings_table, out
from console.settings import Settings, load_settings
from console.watch import Screen, stop_on_signals
from detector.findings import FindingState
from detector.subjects import CLIENT
from redteam.garments_files import write_native
from storage.database import Database
from streams.embedding import Embedder
from streams.formats import named
from streams.pipeline import Feed, Pipeline
from streams.sources import open_source

__all__ = ["DATA", "ENDPOINT", "demo"]

DATA = Path(__file__).parent
ENDPOINT = "garments"


def demo(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep the log and the database here, to look at afterwards.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--svg", help="Save what the demo prints as a picture.")
    ] = None,
    encoder: EncoderSpec = None,
    device: Device = None,
) -> None:
    """Fit, watch and find, on data that ships with Banken; no network, under a minute on two cores.

    A classifier of garments is asked by 45 honest clients, three thieves and a campaign of 40 accounts. The
    demo fits a baseline, watches the log, and says who was found, after how many queries, and who was not.
    """
    started = time.monotonic()
    out.record = picture is not None
    with _workplace(directory) as place:
        settings = load_settings(db=f"sqlite:///{place / 'banken.db'}", encoder=encoder, device=device)
        with opened(settings) as database:
            with embedder_of(settings) as embedder:
                _run(database, embedder, settings, place)
            _report(database)
        out.print(f"\n{time.monotonic() - started:.0f} s in all.")
        if picture is not None:
            drawn = out.export_svg(title="banken demo")
            # Rich names a font on the web; a picture of ours asks for nothing from outside.
            picture.write_text(re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL), encoding="utf-8")
        if directory is not None:
            out.print(
                f"Look around:\n  banken findings list --db {settings.db}\n  banken subjects list {ENDPOINT} "
                f"--db {settings.db}\n  banken baselines show {ENDPOINT} --db {settings.db}",
                markup=False,
                soft_wrap=True,
            )


@contextmanager
def _workplace(directory: Path | None) -> Iterator[Path]:
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="banken-demo-") as temporary:
            yield Path(temporary)
        return
    if (directory / "banken.db").exists():
        error_console.print(
            f"error: {directory / 'banken.db'} is there already; give --dir a new directory", markup=False
        )
        raise typer.Exit(2)
    directory.mkdir(parents=True, exist_ok=True)
    yield directory.resolve()


def _run(database: Database, embedder: Embedder, settings: Settings, place: Path) -> None:
    out.print(
        "[bold]1. Fit[/bold]  banken fit garments --reference reference.parquet --trusted trusted.parquet"
    )
    fitted, _ = fit_and_store(
        database, embedder, ENDPOINT, str(DATA / "reference.parquet"), str(DATA / "trusted.parquet")
    )
    rates = fitted.baseline.rates
    out.print(
        f"   {fitted.reference:,} reference images; {rates.channels[0].clients} trusted clients look foreign "
        f"at most {rates.bound[0]:.1%} of the time."
    )
    log = place / "log.jsonl"
    write_native(DATA / "log.parquet", log)
    out.print("[bold]2. Watch[/bold]  banken watch --source log.jsonl --once")
    screen = Screen("log.jsonl")
    with (
        closing(open_source(str(log), once=True)) as source,
        stop_on_signals() as stop,
        Live(screen, console=error_console, auto_refresh=error_console.is_terminal),
    ):
        Pipeline(database, embedder, settings.rules).run([Feed(source, named(None))], stop, screen.add)
        _interrupted(stop)


def _interrupted(stop: threading.Event) -> None:
    if stop.is_set():
        raise KeyboardInterrupt


def _report(database: Database) -> None:
    with database.snapshot() as connection:
        alerted = storage.findings.page(connection, endpoint=ENDPOINT, states=(FindingState.ALERTED,))
        records = as_of_now(connection, alerted)
        members = members_of(connection, [record.finding for record in records])
        groups = {uid: len(names) for uid, names in members.items()}
        for record in records:
            if record.finding.subject.kind == CLIENT:
                del groups[record.finding.uid]
        out.print("\n[bold]3. Findings[/bold]  banken findings list --state alerted")
        out.print(findings_table(records, groups))
        out.print("\n[bold]4. Against the truth[/bold]  (which the detector never sees)")
        for part in scoreboard(connection, DATA):
            out.print(part)
