"""Options that several commands share, and what they open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "ConfigFile", "DatabaseUrl", "Device", "EncoderSpec", "LogFormat"]

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--db", metavar="URL", help="Database: sqlite:///file.db or postgresql://user@host/name. [BANKEN_DB]"
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings. [BANKEN_CONFIG]")
]
EncoderSpec = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="SPEC",
        help="banken-compact (default), MODEL/TAG, hf-hub:ORG/NAME, MODEL@FILE, or a directory; "
        "#sha256=… at the end pins the weights file.",
    ),
]
Device = Annotated[str | None, typer.Option("--device", help="auto (default), cpu, cuda, cuda:N or mps.")]
LogFormat = Annotated[
    str | None, typer.Option("--format", metavar="NAME", help="Log format; found by content if left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]
