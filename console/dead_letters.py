"""`banken dead-letters`: what could not be read, where it stood and why."""

from __future__ import annotations

import base64
from typing import Annotated

import typer
from rich.table import Table

import storage.dead_letters
from console.opening import opened
from console.options import AsJson, ConfigFile, DatabaseUrl
from console.output import cell, clean, out, print_json, say
from console.settings import load_settings

__all__ = ["app"]

app = typer.Typer(help="List records that could not be processed, or remove them.", no_args_is_help=True)


@app.command("list")
def list_letters(
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only parse, decode, validate or observe.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only ids above this.")] = 0,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    as_json: AsJson = False,
    db: DatabaseUrl = None,
    config: ConfigFile = None,
) -> None:
    """List dead letters in the order of arrival."""
    with opened(load_settings(config, db=db)) as database, database.snapshot() as connection:
        letters = storage.dead_letters.page(
            connection, endpoint=endpoint, stage=stage, after=after, limit=limit
        )
        total = storage.dead_letters.count(connection, endpoint=endpoint, stage=stage)
    if as_json:
        print_json(
            {
                "id": stored.id,
                "endpoint": stored.letter.endpoint,
                "source": stored.letter.source,
                "partition": stored.letter.partition,
                "offset": stored.letter.offset,
                "item": stored.letter.item,
                "stage": stored.letter.stage,
                "reason": stored.letter.reason,
                "event_id": stored.letter.event_id,
                "raw": base64.b64encode(stored.letter.raw).decode(),
            }
            for stored in letters
        )
        return
    table = Table("id", "where", "stage", "why", header_style="bold")
    for stored in letters:
        letter = stored.letter
        item = f" item {letter.item}" if letter.item else ""
        table.add_row(
            str(stored.id),
            cell(f"{letter.source} at {letter.offset:,}{item}"),
            letter.stage,
            cell(letter.reason),
        )
    if letters:
        out.print(table)
    out.print(f"{total:,} dead letters." if total else "No dead letters.")


@app.command()
def show(
    letter_id: Annotated[int, typer.Argument(metavar="ID")], db: DatabaseUrl = None, config: ConfigFile = None
) -> None:
    """Show one dead letter with what was kept of the record."""
    with opened(load_settings(config, db=db)) as database, database.snapshot() as connection:
        letters = storage.dead_letters.page(connection, after=letter_id - 1, limit=1)
    if not letters or letters[0].id != letter_id:
        say(f"No dead letter {letter_id}.")
        raise typer.Exit(2)
    letter = letters[0].letter
    say(f"{clean(letter.source)} [{clean(letter.partition)}] at {letter.offset:,}")
    say(f"{letter.stage}: {clean(letter.reason)}")
    say(clean(letter.raw.decode(errors="backslashreplace")))


@app.command()
def remove(
    letter_ids: Annotated[list[int], typer.Argument(metavar="ID…")],
    db: DatabaseUrl = None,
    config: ConfigFile = None,
) -> None:
    """Remove dead letters that were dealt with."""
    with opened(load_settings(config, db=db)) as database, database.transaction() as connection:
        removed = storage.dead_letters.remove(connection, letter_ids)
    say(f"Removed {removed}.")
