"""What commands print: tables and sentences for people, one JSON object a line for scripts."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from detector.findings import Finding, FindingState, Moment, Severity
from storage.progress import SubjectProgress
from storage.records import FindingRecord

__all__ = [
    "cell",
    "clean",
    "error_console",
    "finding_json",
    "findings_table",
    "out",
    "print_json",
    "progress_json",
    "say",
    "when",
]

# Off a terminal there is no width to fit: tables must not fold what scripts look for.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
error_console = Console(stderr=True, highlight=False)

_STYLE = {
    Severity.INFORMATIONAL: "dim",
    Severity.MEDIUM: "yellow",
    Severity.HIGH: "bold yellow",
    Severity.CRITICAL: "bold red",
}


def clean(value: object) -> str:
    """A string of the log, safe for a terminal: control characters are shown, not obeyed."""
    return "".join(
        char if not unicodedata.category(char).startswith("C") else f"\\u{ord(char):04x}"
        for char in str(value)
    )


def cell(value: object) -> Text:
    """A string of the log as a cell of a table."""
    return Text(clean(value))


def say(text: str) -> None:
    """Print a sentence as it is: no markup is read in it, and the terminal wraps it."""
    out.print(text, markup=False, soft_wrap=True)


def when(milliseconds: int | None) -> str:
    """A moment for people, UTC to the second."""
    if milliseconds is None:
        return ""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms"


def print_json(objects: Iterable[Mapping[str, object]]) -> None:
    """One JSON object a line on standard output."""
    for one in objects:
        sys.stdout.write(json.dumps(one, ensure_ascii=True) + "\n")
    sys.stdout.flush()


def finding_json(
    finding: Finding, members: Iterable[str], progress: SubjectProgress | None
) -> dict[str, object]:
    """A finding as ``--json`` prints it (DESIGN §9)."""
    return {
        "uid": finding.uid,
        "endpoint": finding.endpoint,
        "state": finding.state.value,
        "subject": {"kind": finding.subject.kind, "value": finding.subject.value},
        "members": list(members),
        "severity": finding.severity.name.lower(),
        "suspected_at": _moment_json(finding.suspected_at),
        "alerted_at": _moment_json(finding.alerted_at),
        "closed_at": _moment_json(finding.closed_at),
        "evidence": finding.evidence,
        "exposure": finding.exposure,
        "queries": finding.queries,
        "progress": progress_json(progress),
        "action": finding.action.value,
        "baseline": finding.baseline,
    }


def progress_json(measured: SubjectProgress | None) -> dict[str, object] | None:
    """What a subject could reproduce and has mapped, as ``--json`` prints it; None before it is measured."""
    if measured is None:
        return None
    agreement = None if measured.progress is None else asdict(measured.progress)
    return {"queries": measured.queries, **(agreement or {}), "coverage": asdict(measured.coverage)}


def findings_table(records: Iterable[FindingRecord], members: Mapping[str, int]) -> Table:
    """Who, how sure, how exposed, since when, what to do; ``members`` counts a group's suspects by uid."""
    table = Table(header_style="bold", expand=False)
    for name in ("finding", "state", "who", "how sure", "exposed", "suspected", "alerted", "do"):
        table.add_column(
            name, justify="right" if name in ("how sure", "exposed") else "left", overflow="fold"
        )
    for record in records:
        finding = record.finding
        who = cell(finding.subject)
        if members.get(finding.uid):
            count = members[finding.uid]
            who.append(f"\n{count} suspected account{'' if count == 1 else 's'}")
        state = finding.state.value
        if finding.state is FindingState.ALERTED:
            state = f"{finding.severity.name.lower()} alert"
        if record.acknowledged:
            state += "\nacknowledged"
        table.add_row(
            finding.uid[:8],
            Text(state, style=_STYLE[finding.severity]),
            who,
            f"{finding.evidence:,.0f} : 1",
            f"{finding.exposure:,.0f} queries",
            _moment(finding.suspected_at),
            _moment(finding.alerted_at),
            finding.action.value,
        )
    return table


def _moment(moment: Moment | None) -> str:
    return "" if moment is None else f"query {moment.queries:,}\n{when(moment.time)}"


def _moment_json(moment: Moment | None) -> dict[str, object] | None:
    if moment is None:
        return None
    time = datetime.fromtimestamp(moment.time / 1000, UTC).isoformat(timespec="milliseconds")
    return {"time": time.replace("+00:00", "Z"), "queries": moment.queries, "event_id": moment.event_id}
