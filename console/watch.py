"""`banken watch`: the daemon on log streams."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from enum import StrEnum
from types import FrameType
from typing import Annotated

import structlog
import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from console.fit import embedder_of
from console.opening import opened
from console.options import ConfigFile, DatabaseUrl, Device, EncoderSpec, LogFormat
from console.output import cell, clean, error_console, when
from console.settings import load_settings
from detector.findings import Finding, FindingChange, FindingState
from streams.formats import named
from streams.pipeline import BatchReport, Feed, Pipeline
from streams.sources import open_source

__all__ = ["FailOn", "Screen", "stop_on_signals", "watch"]

FOUND = 10
ROWS = 15


class FailOn(StrEnum):
    """What makes `banken watch` end with exit code 10."""

    NEVER = "never"
    SUSPECTED = "suspected"
    ALERTED = "alerted"


def watch(
    source: Annotated[
        list[str],
        typer.Option(
            "--source",
            metavar="URI",
            help="A log to follow: a path, file:///…, a directory, a pattern such as logs/*.parquet, or "
            "- for standard input. May be given several times.",
        ),
    ],
    once: Annotated[bool, typer.Option("--once", help="Stop at the end of the sources.")] = False,
    fail_on: Annotated[
        FailOn, typer.Option(help="End with exit code 10 if this run found somebody new.")
    ] = FailOn.NEVER,
    format_name: LogFormat = None,
    alpha: Annotated[
        float | None, typer.Option(help="Probability with which an honest client is ever suspected (0.001).")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            help="Judge this group beside clients: network, fleet, or an attribute; may be repeated. "
            "Without it: org, network, fleet."
        ),
    ] = None,
    consumer: Annotated[
        str | None,
        typer.Option(help="Name under which read offsets are kept; another name reads from the start."),
    ] = None,
    encoder: EncoderSpec = None,
    device: Device = None,
    db: DatabaseUrl = None,
    config: ConfigFile = None,
) -> None:
    """Follow query logs and judge every client.

    It resumes where it stopped. Ctrl-C or SIGTERM ends it after the batch in hand; nothing is lost and
    nothing is counted twice, also after a crash.
    """
    settings = load_settings(
        config, db=db, encoder=encoder, device=device, alpha=alpha, groups=group, consumer=consumer
    )
    found = False
    with ExitStack() as stack:
        database = stack.enter_context(opened(settings))
        feeds = []
        for uri in source:
            opened_source = stack.enter_context(closing(open_source(uri, once=once)))
            feeds.append(Feed(opened_source, named(format_name)))
        embedder = stack.enter_context(embedder_of(settings))
        stop = stack.enter_context(stop_on_signals())
        report = stack.enter_context(_reporting(", ".join(source)))

        def on_batch(batch: BatchReport) -> None:
            nonlocal found
            found = found or any(_is_news(change, fail_on) for change in batch.changes)
            report(batch)

        # A log that is followed waits for its database as long as it takes; a job with an end does not.
        rules = replace(settings.rules, patience=30.0 if once else None)
        pipeline = Pipeline(database, embedder, rules, clock=lambda: time.time_ns() // 1_000_000)
        pipeline.run(feeds, stop, on_batch)
    if found:
        raise typer.Exit(FOUND)


def _is_news(change: FindingChange, fail_on: FailOn) -> bool:
    """Whether a finding became what ``fail_on`` asks for at this change; an update of an old one did not."""
    suspected, alerted = change.finding.suspected_at, change.finding.alerted_at
    moments = {
        FailOn.NEVER: (),
        FailOn.SUSPECTED: (suspected, alerted),
        FailOn.ALERTED: (alerted,),
    }
    return change.at in moments[fail_on]


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and the first Ctrl-C set; a second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _reporting(what: str) -> Iterator[Callable[[BatchReport], None]]:
    """A live table on a terminal, JSON log lines off it."""
    if error_console.is_terminal:
        screen = Screen(what)
        with Live(screen, console=error_console, refresh_per_second=4, transient=False):
            yield screen.add
        return
    log = structlog.get_logger()
    log.info("watching", source=what)

    def write(batch: BatchReport) -> None:
        log.info(
            "batch",
            queries=batch.queries,
            foreign=batch.foreign,
            dead_letters=batch.dead,
            repeated=batch.repeated,
        )
        for change in batch.changes:
            finding = change.finding
            level = log.warning if finding.state is FindingState.ALERTED else log.info
            level(
                "finding",
                activity=change.activity.value,
                state=finding.state.value,
                severity=finding.severity.name.lower(),
                endpoint=finding.endpoint,
                subject=str(finding.subject),
                evidence=round(finding.evidence, 1),
                exposure=round(finding.exposure, 1),
                queries=finding.queries,
                action=finding.action.value,
                uid=finding.uid,
            )

    yield write
    log.info("stopped")


class Screen:
    """What a person sees while watching: totals, and the worst findings."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._started = time.monotonic()
        self._queries = self._foreign = self._dead = 0
        self._latest: int | None = None
        self._findings: dict[str, Finding] = {}

    def add(self, batch: BatchReport) -> None:
        """Count a committed batch."""
        self._queries += batch.queries
        self._foreign += batch.foreign
        self._dead += batch.dead
        self._latest = batch.latest if batch.latest is not None else self._latest
        self._findings |= {change.finding.uid: change.finding for change in batch.changes}
        worst = sorted(self._findings.values(), key=_badness, reverse=True)[:ROWS]
        self._findings = {finding.uid: finding for finding in worst}

    def __rich__(self) -> Group:
        rate = self._queries / max(time.monotonic() - self._started, 1e-9)
        head = Text.assemble(
            ("banken ", "bold"),
            f"watching {clean(self._what)}   {self._queries:,} queries ({rate:,.0f}/s), ",
            f"{self._foreign:,} foreign, {self._dead:,} dead letters"
            + (f", at {when(self._latest)}" if self._latest is not None else ""),
        )
        table = Table(header_style="bold", expand=False)
        for name in ("who", "state", "since", "how sure", "exposed", "queries", "do"):
            table.add_column(name)
        styles = {
            FindingState.ALERTED: "bold red",
            FindingState.SUSPECTED: "yellow",
            FindingState.CLOSED: "dim",
        }
        for finding in self._findings.values():
            table.add_row(
                cell(finding.subject),
                Text(finding.state.value, style=styles[finding.state]),
                when(finding.suspected_at.time),
                f"{finding.evidence:,.0f} : 1",
                f"{finding.exposure:,.0f}",
                f"{finding.queries:,}",
                finding.action.value,
            )
        return Group(head, table if self._findings else Text("no findings", style="dim"))


def _badness(finding: Finding) -> tuple[bool, int, float]:
    return finding.state is not FindingState.CLOSED, finding.severity, finding.exposure
