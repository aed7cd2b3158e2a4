"""Log lines: on standard error only, so that what a script reads on standard output stays JSON."""

from __future__ import annotations

import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from console.output import clean, error_console

__all__ = ["configure_logs"]


def configure_logs() -> None:
    """Send log lines to standard error, as sentences to a terminal and as JSON to anything else."""
    readable: list[Processor] = [structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0), _harmless]
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.add_log_level,
            *(readable if error_console.is_terminal else [structlog.processors.JSONRenderer()]),
        ],
        # Looked up at every line: a live table puts itself in place of sys.stderr, and lines above itself.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )


def _harmless(logger: WrappedLogger, method: str, line: EventDict | str) -> str:
    return clean(line)
