"""`banken findings`: what was found, and what analysts did about it."""

from __future__ import annotations

import getpass
import os
import time
from typing import Annotated

import typer
from sqlalchemy import Connection

import storage.findings
from console.campaigns import part_json, parts_of, parts_table
from console.current import as_of_now, members_of, progress_of
from console.explanation import explain, explain_progress
from console.opening import opened
from console.options import AsJson, ConfigFile, DatabaseUrl
from console.output import clean, error_console, finding_json, findings_table, out, print_json, say, when
from console.settings import load_settings
from detector.findings import FindingState
from detector.subjects import CLIENT
from storage.records import FindingRecord

__all__ = ["app"]

app = typer.Typer(help="List findings, look at one, acknowledge or close it.", no_args_is_help=True)

Uid = Annotated[str, typer.Argument(metavar="UID", help="The finding's uid, or its first characters.")]
Note = Annotated[str | None, typer.Option("--note", help="Why, for whoever reads it later.")]


@app.command("list")
def list_findings(
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint.")] = None,
    state: Annotated[
        list[FindingState] | None, typer.Option(help="Only in this state; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the most severe first.")] = 50,
    as_json: AsJson = False,
    db: DatabaseUrl = None,
    config: ConfigFile = None,
) -> None:
    """List findings: who, how sure, how exposed, since when, what to do."""
    with opened(load_settings(config, db=db)) as database, database.snapshot() as connection:
        stored = storage.findings.page(
            connection, endpoint=endpoint, states=state or tuple(FindingState), limit=limit
        )
        records = as_of_now(connection, stored)
        members = members_of(connection, [record.finding for record in records])
        progress = progress_of(connection, [record.finding for record in records])
    if as_json:
        print_json(
            finding_json(record.finding, members[record.finding.uid], progress[record.finding.uid])
            for record in records
        )
    elif records:
        groups = [record.finding for record in records if record.finding.subject.kind != CLIENT]
        out.print(findings_table(records, {finding.uid: len(members[finding.uid]) for finding in groups}))
    else:
        say("No findings.")


@app.command()
def show(uid: Uid, as_json: AsJson = False, db: DatabaseUrl = None, config: ConfigFile = None) -> None:
    """Show one finding: a paragraph, its accounts and its history."""
    with opened(load_settings(config, db=db)) as database, database.snapshot() as connection:
        (record,) = as_of_now(connection, [_find(connection, uid)])
        members = members_of(connection, [record.finding])[record.finding.uid]
        progress = progress_of(connection, [record.finding])[record.finding.uid]
        parts = parts_of(connection, record.finding, members)
        history = storage.findings.history(connection, record.finding.uid)
    if as_json:
        extra = {"parts": [part_json(part) for part in parts]} if parts else {}
        print_json([finding_json(record.finding, members, progress) | extra])
        return
    out.print(findings_table([record], {}))
    say(explain(record.finding, members))
    if progress is not None:
        say(explain_progress(progress))
    if parts:
        out.print(parts_table(parts))
    for step in history:
        who = f" by {clean(step.by)}" if step.by else ""
        note = f": {clean(step.note)}" if step.note else ""
        say(
            f"{when(step.event_time)}  {step.activity.value} {step.finding.state.value}, "
            f"evidence {step.finding.evidence:,.0f}, exposure {step.finding.exposure:,.0f}{who}{note}"
        )


@app.command()
def acknowledge(uid: Uid, note: Note = None, db: DatabaseUrl = None, config: ConfigFile = None) -> None:
    """Say that somebody is looking at a finding."""
    with opened(load_settings(config, db=db)) as database, database.transaction() as connection:
        found = _find(connection, uid).finding.uid
        storage.findings.acknowledge(connection, found, at=_now(), by=_analyst(), note=note)
    say(f"Acknowledged {found}.")


@app.command()
def close(uid: Uid, note: Note = None, db: DatabaseUrl = None, config: ConfigFile = None) -> None:
    """Close a finding. It opens again only when its severity rises or a new episode begins.

    The subject's evidence stays as it is: to close a finding neither forgives nor forgets.
    """
    with opened(load_settings(config, db=db)) as database, database.transaction() as connection:
        found = _find(connection, uid).finding.uid
        storage.findings.close(connection, found, at=_now(), by=_analyst(), note=note)
    say(f"Closed {found}.")


def _analyst() -> str:
    """Who works at the terminal; in a container that user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _find(connection: Connection, uid: str) -> FindingRecord:
    """A finding by its uid or the start of it."""
    matches = storage.findings.starting_with(connection, uid)
    if len(matches) == 1:
        return matches[0]
    fault = "no finding" if not matches else f"{len(matches)} findings"
    error_console.print(f"error: {fault} with uid {clean(uid)}…; see `banken findings list`", markup=False)
    raise typer.Exit(2)


def _now() -> int:
    return time.time_ns() // 1_000_000
