"""The live table and the log lines beside it: bounded, safe, and never on standard output."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog
from rich.console import Console
from rich.live import Live

from console.logs import configure_logs
from console.watch import Screen
from detector.findings import Activity, Finding, FindingChange, FindingState, Moment, Severity
from detector.subjects import SubjectKey
from streams.pipeline import BatchReport


def report(
    number: int, name: str, severity: Severity, state: FindingState = FindingState.ALERTED
) -> BatchReport:
    """A batch in which one subject's finding changed."""
    at = Moment(1_780_000_000_000, 9, "q-9")
    finding = Finding(
        uid=str(number),
        endpoint="shop",
        subject=SubjectKey("client", name),
        sequence=1,
        state=state,
        severity=severity,
        suspected_at=at,
        alerted_at=at,
        closed_at=None,
        evidence=5000.0,
        exposure=float(number),
        queries=90,
        baseline="baseline",
    )
    return BatchReport(9, 9, 0, (FindingChange(Activity.UPDATE, finding, at),), at.time)


def drawn(screen: Screen) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(screen)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_fifteen_worst_stay_on_the_screen() -> None:
    screen = Screen("log")
    screen.add(report(1, "worst", Severity.CRITICAL))
    screen.add(report(2, "over", Severity.CRITICAL, FindingState.CLOSED))
    for number in range(3, 200):
        screen.add(report(number, f"key-{number}", Severity.MEDIUM))
    table = drawn(screen)
    assert "worst" in table
    assert "key-199" in table
    assert "key-185" not in table
    assert "over" not in table, "what is closed makes room for what is open"
    assert table.count("client:") == 15
    assert "2026-05-28 20:26:40" in table, "since when"


def test_hostile_names_do_not_reach_the_screen() -> None:
    screen = Screen("[/x]\x1b[2J")
    screen.add(report(1, "[/x]\x1b[2J[red]", Severity.HIGH))
    table = drawn(screen)
    assert table.count("[/x]") == 2
    assert "[red]" in table
    assert "\x1b" not in table


@pytest.fixture
def _configured() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("_configured")
def test_log_lines_are_json_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger().warning("the file was truncated", file="log.jsonl")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err) | {"timestamp": ""} == {
        "event": "the file was truncated",
        "file": "log.jsonl",
        "level": "warning",
        "timestamp": "",
    }


@pytest.mark.usefixtures("_configured")
def test_log_lines_stand_above_the_live_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=140)
    monkeypatch.setattr("console.logs.error_console", terminal)
    configure_logs()
    with Live(Screen("log"), console=terminal, auto_refresh=False):
        structlog.get_logger().warning("the file was truncated", file="[/x]\x1b[2J")
    assert isinstance(terminal.file, io.StringIO)
    drawn_ = terminal.file.getvalue()
    assert "the file was truncated" in drawn_
    assert "\x1b[2J" not in drawn_
    assert capsys.readouterr().err == ""
