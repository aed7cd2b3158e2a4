"""`banken subjects`: everyone who is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from sqlalchemy import Connection

import storage.members
import storage.progress
import storage.subjects
from console.current import FDR, Suspects
from console.opening import opened
from console.options import AsJson, ConfigFile, DatabaseUrl
from console.output import cell, clean, error_console, out, print_json, progress_json, say, when
from console.settings import load_settings
from detector.signals import CHANNELS
from detector.subjects import CLIENT, STATE, SubjectKey, SubjectRow
from storage.progress import SubjectProgress
from storage.subjects import SubjectOrder

__all__ = ["app"]

app = typer.Typer(help="List clients and groups, look at one.", no_args_is_help=True)

Endpoint = Annotated[str, typer.Argument(help="Name of the endpoint.")]


@app.command("list")
def list_subjects(
    endpoint: Endpoint,
    kind: Annotated[str | None, typer.Option(help="Only client, or one kind of group.")] = None,
    search: Annotated[str | None, typer.Option(help="Only names that contain this.")] = None,
    order: Annotated[SubjectOrder, typer.Option(help="What comes first.")] = SubjectOrder.EVIDENCE,
    suspects: Annotated[
        bool,
        typer.Option(
            "--suspects", help=f"Only the clients that e-BH lists at a false discovery rate of {FDR:g}."
        ),
    ] = False,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
    db: DatabaseUrl = None,
    config: ConfigFile = None,
) -> None:
    """List an endpoint's subjects, the most suspicious first."""
    with opened(load_settings(config, db=db)) as database, database.snapshot() as connection:
        if suspects:
            rows = Suspects(connection, endpoint).rows[offset : offset + limit]
        else:
            rows = storage.subjects.page(
                connection, endpoint, kind=kind, search=search, order=order, limit=limit, offset=offset
            )
        progress = storage.progress.load(connection, endpoint, [row.key for row in rows])
    if as_json:
        print_json(_json(row, progress.get(row.key)) for row in rows)
    elif rows:
        out.print(_table(rows, progress))
    else:
        say("No subjects.")


@app.command()
def show(
    endpoint: Endpoint,
    subject: Annotated[
        str,
        typer.Argument(
            help="A client, or KIND:VALUE such as network:203.0.113.0/24, where KIND is a kind of group that "
            "the endpoint has. client:NAME always means the client."
        ),
    ],
    as_json: AsJson = False,
    db: DatabaseUrl = None,
    config: ConfigFile = None,
) -> None:
    """Show one subject, and of a group its clients."""
    with opened(load_settings(config, db=db)) as database, database.snapshot() as connection:
        rows = storage.subjects.load(connection, endpoint, [_named(connection, endpoint, subject)])
        if not rows:
            error_console.print(
                f"error: endpoint {clean(endpoint)} has no subject {clean(subject)}", markup=False
            )
            raise typer.Exit(2)
        members = storage.members.page(connection, endpoint, rows[0].key)
        progress = storage.progress.load(connection, endpoint, [rows[0].key])
    if as_json:
        print_json(
            [
                _json(rows[0], progress.get(rows[0].key))
                | {
                    "members": [
                        {"client": m.client, "queries": m.queries, "foreign": m.foreign} for m in members
                    ]
                }
            ]
        )
        return
    out.print(_table(rows[:1], progress))
    state = np.frombuffer(rows[0].state, STATE)[0]
    for channel, hits in zip(CHANNELS, state["hits"].tolist(), strict=True):
        say(f"{channel}: {hits:,} of {rows[0].queries:,} queries")
    if members:
        table = Table(
            "client", "queries", "foreign", "first seen", "last seen", title="clients", header_style="bold"
        )
        for member in members:
            table.add_row(
                cell(member.client),
                f"{member.queries:,}",
                f"{member.foreign:,}",
                when(member.first_seen),
                when(member.last_seen),
            )
        out.print(table)


def _named(connection: Connection, endpoint: str, text: str) -> SubjectKey:
    """Whom a person means: a group where its kind is known, so that no client can pose as one."""
    kind, colon, value = text.partition(":")
    if colon and (kind == CLIENT or storage.subjects.count(connection, endpoint, kind=kind)):
        return SubjectKey(kind, value)
    return SubjectKey(CLIENT, text)


def _table(rows: list[SubjectRow], progress: Mapping[SubjectKey, SubjectProgress]) -> Table:
    table = Table(
        "who",
        "queries",
        "evidence",
        "exposure",
        "progress",
        "finding",
        "first seen",
        "last seen",
        header_style="bold",
    )
    for row in rows:
        table.add_row(
            cell(row.key),
            f"{row.queries:,}",
            f"{row.evidence:,.2f}",
            f"{row.exposure:,.1f}",
            _agreement(progress.get(row.key)),
            {0: "", 1: "suspected"}.get(row.stage, "alerted"),
            when(row.first_seen),
            when(row.last_seen),
        )
    return table


def _agreement(measured: SubjectProgress | None) -> str:
    """What a thief could reach with its answers."""
    return "" if measured is None or measured.progress is None else f"{measured.progress.strong:.0%}"


def _json(row: SubjectRow, measured: SubjectProgress | None) -> dict[str, object]:
    return {
        "kind": row.key.kind,
        "value": row.key.value,
        "queries": row.queries,
        "evidence": row.evidence,
        "exposure": row.exposure,
        "progress": progress_json(measured),
        "state": {0: None, 1: "suspected"}.get(row.stage, "alerted"),
        "first_seen": row.first_seen,
        "last_seen": row.last_seen,
    }
