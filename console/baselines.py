"""`banken baselines`: what is in force, what was before, and what refitting changes."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

import storage.baselines
from console.opening import opened
from console.options import AsJson, ConfigFile, DatabaseUrl
from console.output import cell, clean, out, print_json, say, when
from console.settings import load_settings
from detector.comparison import compare as compare_baselines
from detector.signals import Signal
from storage.records import BaselineRecord
from streams.watched import load_baseline

__all__ = ["app"]

app = typer.Typer(help="List baselines, look at one, put one in force, compare two.", no_args_is_help=True)

Endpoint = Annotated[str, typer.Argument(help="Name of the endpoint.")]
Version = Annotated[int, typer.Argument(help="Version of its baseline.")]


@app.command("list")
def list_baselines(
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint.")] = None,
    as_json: AsJson = False,
    db: DatabaseUrl = None,
    config: ConfigFile = None,
) -> None:
    """List every baseline by endpoint and version."""
    with opened(load_settings(config, db=db)) as database, database.snapshot() as connection:
        records = storage.baselines.listed(connection, endpoint)
    if as_json:
        print_json(_json(record) for record in records)
        return
    table = Table("endpoint", "version", "in force", "fitted", "encoder", "content", header_style="bold")
    for record in records:
        table.add_row(
            cell(record.endpoint),
            str(record.version),
            "yes" if record.active else "",
            when(record.created_at),
            cell(record.encoder_name),
            record.content_hash[:12],
        )
    out.print(table if records else "No baselines; `banken fit ENDPOINT --reference DIR` makes one.")


@app.command()
def show(
    endpoint: Endpoint,
    version: Annotated[int | None, typer.Argument(help="By default the one in force.")] = None,
    as_json: AsJson = False,
    db: DatabaseUrl = None,
    config: ConfigFile = None,
) -> None:
    """Show a baseline: what it was fitted on, its benign rates and where they come from."""
    with opened(load_settings(config, db=db)) as database, database.snapshot() as connection:
        record = (
            storage.baselines.active(connection, endpoint)
            if version is None
            else storage.baselines.get(connection, endpoint, version)
        )
    if record is None:
        say(f"Endpoint {clean(endpoint)} has no baseline.")
        raise typer.Exit(2)
    if as_json:
        print_json([_json(record)])
        return
    title = cell(f"{endpoint} version {record.version}")
    table = Table(show_header=False, title=title, title_justify="left")
    table.add_row("in force", "yes" if record.active else "no")
    table.add_row("fitted", when(record.created_at))
    summary = json.loads(record.summary)
    rates = summary.pop("rates", [])
    for name, value in summary.items():
        table.add_row(name.replace("_", " "), cell(value))
    out.print(table)
    out.print(_rates_table(rates))


@app.command()
def activate(endpoint: Endpoint, version: Version, db: DatabaseUrl = None, config: ConfigFile = None) -> None:
    """Put a version in force. It changes the null from then on and keeps all evidence."""
    with opened(load_settings(config, db=db)) as database, database.transaction() as connection:
        record = storage.baselines.activate(connection, endpoint, version)
    say(f"Baseline {clean(endpoint)} version {record.version} is in force, also in running watchers.")


@app.command()
def compare(
    endpoint: Endpoint,
    old: Version,
    new: Version,
    as_json: AsJson = False,
    db: DatabaseUrl = None,
    config: ConfigFile = None,
) -> None:
    """Say what changes between two versions: the domain, the benign rates, and which images fall out."""
    with opened(load_settings(config, db=db)) as database, database.snapshot() as connection:
        before, after = (load_baseline(connection, endpoint, version) for version in (old, new))
    assert before is not None
    assert after is not None
    comparison = compare_baselines(before, after)
    if as_json:
        print_json([comparison.as_json()])
        return
    for line in comparison.lines():
        say(line)


def _rates_table(rates: list[dict[str, Any]]) -> Table:
    """How often honest clients' queries hit, by signal: what the evidence is held against."""
    table = Table(
        "signal",
        "benign bound",
        "mean",
        "clients",
        "queries",
        "from",
        title="benign rates",
        title_justify="left",
    )
    for rate in rates:
        level = "" if rate["level"] is None else f" (p ≤ {rate['level']:g})"
        unit = " × unvisited mass" if rate["signal"] == Signal.COVERAGE else ""
        table.add_row(
            f"{rate['signal']}{level}",
            f"{rate['bound']:.4g}{unit}",
            f"{rate['mean']:.4g}",
            f"{rate['clients']:,}",
            f"{rate['queries']:,}",
            cell(rate["source"]),
        )
    return table


def _json(record: BaselineRecord) -> dict[str, object]:
    return {
        "endpoint": record.endpoint,
        "version": record.version,
        "active": record.active,
        "created_at": record.created_at,
        **json.loads(record.summary),
    }
