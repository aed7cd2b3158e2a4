"""The command `banken`."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from console import baselines, dead_letters, findings, redteam, subjects
from console.demo.command import demo
from console.errors import SettingsError
from console.fit import fit
from console.logs import configure_logs
from console.output import clean, error_console
from console.watch import watch
from detector.errors import DetectorError
from embeddings.errors import EmbeddingsError
from redteam.errors import RedteamError
from storage.errors import StorageError, UnavailableError
from streams.errors import StreamError

__all__ = ["app", "main"]

FAULT, USAGE, UNAVAILABLE = 1, 2, 3

app = typer.Typer(
    name="banken",
    help="Banken, the watchdog for model APIs: it reads an image model's query log and names the clients "
    "that are stealing the model.\n\nStart with `banken demo`, then `banken fit` and `banken watch`.",
    epilog="Exit codes: 0 done, 1 fault in the data, 2 wrong usage or settings, 3 database unavailable, "
    "10 findings (watch --fail-on), 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.command()(demo)
app.command()(fit)
app.command()(watch)
app.add_typer(findings.app, name="findings")
app.add_typer(subjects.app, name="subjects")
app.add_typer(baselines.app, name="baselines")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(redteam.app, name="redteam")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"banken {version('banken')}")
        raise typer.Exit


@app.callback()
def _root(
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; faults become one line on standard error and an exit code.

    Ctrl-C ends with 130; Typer sees to that.
    """
    configure_logs()
    try:
        app()
    except SettingsError as error:
        _fail(error, USAGE)
    except UnavailableError as error:
        _fail(error, UNAVAILABLE)
    except (StreamError, StorageError, DetectorError, EmbeddingsError, RedteamError, OSError) as error:
        _fail(error, FAULT)


def _fail(error: object, code: int) -> None:
    error_console.print(f"error: {clean(error)}", markup=False, soft_wrap=True)
    sys.exit(code)
