"""The commands on a real database: what they print, what they change, how they refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from console.app import app
from console.explanation import explain
from detector.findings import Finding, FindingState, Moment, Severity
from detector.subjects import SubjectKey
from storage.errors import StorageError
from tests.console.conftest import Shop, domain, foreign, line

Rows = Callable[..., list[dict[str, object]]]


def test_watch_finds_the_thief_and_nobody_else(rows: Rows) -> None:
    alerted = rows("findings", "list", "--state", "alerted")
    assert [(found["subject"], found["members"]) for found in alerted] == [
        ({"kind": "client", "value": "thief"}, ["thief"])
    ]
    (found,) = alerted
    assert found["state"] == "alerted"
    assert set(found) >= {"suspected_at", "alerted_at", "evidence", "exposure", "progress", "severity"}
    assert 3 <= found["suspected_at"]["queries"] <= 8  # type: ignore[index]
    assert 26 <= found["alerted_at"]["queries"] <= 40  # type: ignore[index]


def test_a_second_run_resumes_and_changes_nothing(watched: Shop, rows: Rows) -> None:
    before = rows("subjects", "list", "shop")
    assert watched.banken("watch", "--source", str(watched.log), "--once").exit_code == 0
    assert rows("subjects", "list", "shop") == before
    assert rows("dead-letters", "list") == []


def test_fail_on_alerted_is_an_exit_code(shop: Shop) -> None:
    shop.banken("fit", "shop", "--reference", str(shop.reference))
    watch = ("watch", "--source", str(shop.log), "--once", "--fail-on", "alerted")
    assert shop.banken(*watch).exit_code == 10
    assert shop.banken(*watch).exit_code == 0, "nothing new was found in the second run"


def test_a_finding_is_explained_acknowledged_and_closed(watched: Shop, rows: Rows) -> None:
    uid = str(rows("findings", "list", "--state", "alerted")[0]["uid"])
    shown = watched.banken("findings", "show", uid[:8]).output
    assert "Client thief" in shown
    assert "Recommended" in shown
    assert watched.banken("findings", "acknowledge", uid[:8], "--note", "looking").exit_code == 0
    assert watched.banken("findings", "close", uid[:8], "--note", "key revoked").exit_code == 0
    assert rows("findings", "show", uid)[0]["state"] == "closed"
    history = watched.banken("findings", "show", uid).output
    assert "looking" in history
    assert "key revoked" in history


def test_an_unknown_finding_is_named(watched: Shop) -> None:
    result = watched.banken("findings", "show", "ffff")
    assert result.exit_code == 2
    assert "no finding with uid ffff" in result.stderr


def test_subjects_are_listed_searched_and_ranked(watched: Shop, rows: Rows) -> None:
    assert rows("subjects", "list", "shop", "--kind", "client")[0]["value"] == "thief"
    assert [row["value"] for row in rows("subjects", "list", "shop", "--suspects")] == ["thief"]
    assert {row["value"] for row in rows("subjects", "list", "shop", "--search", "KEY-3")} == {"key-3"}
    assert rows("subjects", "show", "shop", "thief")[0]["queries"] == 120
    fleet = rows("subjects", "show", "shop", "fleet:all")[0]
    assert fleet["queries"] == 450
    assert watched.banken("subjects", "show", "shop", "nobody").exit_code == 2


def test_baselines_are_versions(watched: Shop, rows: Rows, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    moved = domain(np.random.default_rng(9), 900) + np.linspace(-6, 6, 32)
    other.write_text("".join(line(i, "r", vector) + "\n" for i, vector in enumerate(moved)))
    assert watched.banken("fit", "shop", "--reference", str(other), "--no-activate").exit_code == 0
    assert [(row["version"], row["active"]) for row in rows("baselines", "list")] == [(1, True), (2, False)]
    shown = rows("baselines", "show", "shop")[0]
    rates: list[dict[str, object]] = shown["rates"]  # type: ignore[assignment]
    assert [(rate["signal"], rate["level"], rate["bound"]) for rate in rates] == [
        ("out of domain", 0.05, 0.12),
        ("out of domain", 0.01, 0.03),
        ("out of domain", 0.002, 0.01),
        ("coverage", None, 1.5),
        ("perturbation", None, 0.25),
        ("boundary", None, 0.3),
    ]
    assert {rate["source"] for rate in rates} == {"cautious default: no trusted history was given"}
    compared = rows("baselines", "compare", "shop", "1", "2")[0]
    assert compared["new_foreign_to_old"] > 0.5  # type: ignore[operator]
    assert "has grown or moved" in watched.banken("baselines", "compare", "shop", "1", "2").output
    assert watched.banken("baselines", "activate", "shop", "2").exit_code == 0
    assert [row["active"] for row in rows("baselines", "list")] == [False, True]


def test_a_baseline_shows_the_rates_of_all_six_channels(watched: Shop) -> None:
    printed = watched.banken("baselines", "show", "shop").output
    assert "benign rates" in printed
    for words in ("out of domain (p ≤ 0.05)", "out of domain (p ≤ 0.01)", "out of domain (p ≤ 0.002)"):
        assert words in " ".join(printed.split()), printed
    assert all(name in printed for name in ("coverage", "perturbation", "boundary"))
    subject = watched.banken("subjects", "show", "shop", "thief").output
    assert "out of domain at 0.002: " in subject
    assert "boundary: 0 of 120 queries" in subject


def test_fit_warns_of_a_thief_among_the_trusted_and_of_images_that_nobody_asks_about(shop: Shop) -> None:
    rng = np.random.default_rng(12)
    clients = [f"key-{i % 30}" for i in range(1500)]
    vectors = [*domain(rng, 1500), *foreign(rng, 150)]
    trusted = shop.place / "trusted.jsonl"
    trusted.write_text(
        "".join(
            line(i, client, vector) + "\n"
            for i, (client, vector) in enumerate(zip(clients + ["mole"] * 150, vectors, strict=True))
        )
    )
    pile = foreign(rng, 1) + 0.2 * rng.normal(size=(150, 32))
    with shop.reference.open("a") as reference:
        reference.writelines(line(9000 + i, "r", vector) + "\n" for i, vector in enumerate(pile))
    fitted = shop.banken("fit", "shop", "--reference", str(shop.reference), "--trusted", str(trusted))
    assert fitted.exit_code == 0, fitted.output
    said = " ".join(fitted.stderr.split())
    assert "unlike its other clients: mole. Is one of them a thief?" in said
    assert "of 1,650 reference images are of a kind that no trusted client ever asked about" in said
    assert "trusted history, 30 clients, 1,500 queries" in " ".join(fitted.stdout.split())
    (shown,) = map(json.loads, shop.banken("baselines", "show", "shop", "--json").stdout.splitlines())
    assert shown["left_out"] == ["mole"]
    assert 140 <= shown["never_asked_about"] <= 160


def test_fit_says_why_a_short_history_changes_nothing(shop: Shop) -> None:
    rng = np.random.default_rng(13)
    trusted = shop.place / "trusted.jsonl"
    trusted.write_text("".join(line(i, f"k{i % 4}", v) + "\n" for i, v in enumerate(domain(rng, 80))))
    fitted = shop.banken("fit", "shop", "--reference", str(shop.reference), "--trusted", str(trusted))
    said = " ".join((fitted.stdout + fitted.stderr).split())
    assert "4 clients that this signal can judge, 10 are needed; their own bound would be 0." in said


def test_dead_letters_are_shown_and_removed(watched: Shop, rows: Rows) -> None:
    with watched.log.open("a") as log:
        log.write('{"id": "bad"}\n')
    watched.banken("watch", "--source", str(watched.log), "--once")
    (letter,) = rows("dead-letters", "list")
    assert letter["stage"] == "parse"
    assert letter["offset"] > 1000  # type: ignore[operator]
    assert "bad" in watched.banken("dead-letters", "show", str(letter["id"])).output
    assert watched.banken("dead-letters", "remove", str(letter["id"])).exit_code == 0
    assert rows("dead-letters", "list") == []


def test_hostile_names_cannot_reach_the_terminal(shop: Shop) -> None:
    shop.banken("fit", "shop", "--reference", str(shop.reference))
    name = "\x1b[31m\u202eevil[bold]\n=cmd()"
    shop.log.write_text(line(1, name, domain(np.random.default_rng(3), 1)[0]) + "\n")
    shop.banken("watch", "--source", str(shop.log), "--once")
    printed = shop.banken("subjects", "list", "shop", "--kind", "client").output
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert "[bold]" in printed


def test_hostile_names_of_endpoints_and_files_are_no_markup(shop: Shop) -> None:
    """Square brackets are rich's markup; a closing tag that nothing opened would be an error."""
    name = "[/x]\x1b[2J[red]"
    hostile = shop.place / "\x1b\u202ehostile.jsonl"
    for log in (shop.reference, shop.log):
        hostile.write_text(
            log.read_text().replace('"shop"', json.dumps(name)).replace('"thief"', json.dumps(name))
        )
        if log is shop.reference:
            assert shop.banken("fit", name, "--reference", str(hostile)).exit_code == 0
    with hostile.open("a") as log_file:
        log_file.write(json.dumps({"id": name, name: name}) + "\n")
    assert shop.banken("watch", "--source", str(hostile), "--once").exit_code == 0
    (uid,) = {
        one["uid"]
        for one in map(json.loads, shop.banken("findings", "list", "--json").stdout.splitlines())
        if one["subject"]["value"] == name
    }
    for command in (
        ("findings", "list"),
        ("findings", "show", uid),
        ("subjects", "list", name),
        ("subjects", "show", name, name),
        ("subjects", "show", name, f"network:198.51.{sum(b'thief') % 200}.0/24"),
        ("baselines", "list"),
        ("baselines", "show", name),
        ("baselines", "compare", name, "1", "1"),
        ("baselines", "activate", name, "1"),
        ("dead-letters", "list"),
        ("dead-letters", "show", "1"),
    ):
        result = shop.banken(*command)
        assert result.exit_code == 0, result.output
        assert "\x1b" not in result.output
        if name in command and "compare" not in command:
            assert "[/x]" in result.output.replace("\n", ""), command


def test_no_client_can_pose_as_a_network(shop: Shop) -> None:
    shop.banken("fit", "shop", "--reference", str(shop.reference))
    vectors = domain(np.random.default_rng(3), 3)
    mask, other = "network:198.51.100.0/24", "user:alice"
    ip = {"attributes": {"ip": "198.51.100.7"}}
    shop.log.write_text(
        "".join(line(i, c, vectors[i], **ip) + "\n" for i, c in enumerate([mask, other, other]))
    )
    shop.banken("watch", "--source", str(shop.log), "--once")

    def shown(subject: str) -> tuple[object, object]:
        one = json.loads(shop.banken("subjects", "show", "shop", subject, "--json").stdout)
        return one["kind"], one["queries"]

    assert shown(mask) == ("network", 3)
    assert shown(f"client:{mask}") == ("client", 1)
    assert shown(other) == ("client", 2), "no group is of the kind user"


def test_a_thief_who_goes_on_after_a_close_is_visible_again_at_the_next_severity(shop: Shop) -> None:
    def findings() -> list[dict[str, object]]:
        listed = shop.banken("findings", "list", "--json").stdout.splitlines()
        return [one for one in map(json.loads, listed) if one["subject"]["value"] == "thief"]

    def steal(count: int, start: int, *, fail_on: str = "never") -> int:
        vectors = foreign(np.random.default_rng(start), count)
        with shop.log.open("a") as log:
            log.writelines(line(start + i, "thief", vector) + "\n" for i, vector in enumerate(vectors))
        watch = ("watch", "--source", str(shop.log), "--once", "--group", "network", "--fail-on", fail_on)
        return shop.banken(*watch).exit_code

    shop.banken("fit", "shop", "--reference", str(shop.reference))
    shop.log.write_text("")
    assert steal(50, 1000, fail_on="alerted") == 10
    (found,) = findings()
    assert (found["state"], found["severity"]) == ("alerted", "medium")
    assert shop.banken("findings", "close", str(found["uid"])).exit_code == 0
    steal(20, 2000)
    assert [one["state"] for one in findings()] == ["closed"], "no worse than when it was closed"
    assert steal(60, 3000, fail_on="suspected") == 0, "an update of an old finding is no new one"
    (again,) = findings()
    assert (again["uid"], again["state"], again["severity"]) == (found["uid"], "alerted", "high")


def test_the_default_database_is_made_where_there_is_none(shop: Shop) -> None:
    assert CliRunner().invoke(app, ["findings", "list"]).exit_code == 0
    assert (shop.place / "state" / "banken" / "banken.db").is_file()
    with pytest.raises(StorageError, match="does not exist"):
        CliRunner().invoke(
            app, ["findings", "list", "--db", f"sqlite:///{shop.place}/other/b.db"], catch_exceptions=False
        )


def test_a_user_without_a_name_can_close_a_finding(
    watched: Shop, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", nameless)
    uid = str(rows("findings", "list", "--state", "alerted")[0]["uid"])
    assert watched.banken("findings", "close", uid).exit_code == 0
    assert f"by uid {os.getuid()}" in watched.banken("findings", "show", uid).output


def test_explanations_claim_no_more_than_is_known() -> None:
    at = Moment(0, 9, "q-9")
    group = Finding(
        uid="uid",
        endpoint="shop",
        subject=SubjectKey("network", "203.0.113.0/24"),
        sequence=1,
        state=FindingState.ALERTED,
        severity=Severity.MEDIUM,
        suspected_at=at,
        alerted_at=at,
        closed_at=None,
        evidence=5000.0,
        exposure=30.0,
        queries=90,
        baseline="baseline",
    )
    alone = explain(group, [])
    assert alone.startswith("Network 203.0.113.0/24: 90 queries")
    assert "throttle this network" in alone
    assert explain(group, ["a", "b"]).startswith("2 suspected accounts of network")
    closed = explain(replace(group, state=FindingState.CLOSED, closed_at=at), ["a"])
    assert "now" not in closed


def test_ctrl_c_ends_a_fit_with_nothing_stored(shop: Shop) -> None:
    command = [sys.executable, "-c", "from console.app import main; main()"]
    fit = subprocess.Popen(
        [*command, "fit", "shop", "--reference", "-", "--db", shop.db],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (shop.place / "banken.db").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert fit.stdin is not None
    fit.stdin.write(shop.reference.read_text())
    fit.stdin.flush()  # a pipe holds less: by now it is reading
    fit.send_signal(signal.SIGINT)
    _, said = fit.communicate(timeout=60)
    assert fit.returncode == 130
    assert "Traceback" not in said
    assert "No baselines" in shop.banken("baselines", "list").output


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("fit", "shop", "--reference", "/nowhere/at/all"), "no such"),
        (("watch", "--source", "kafka://host/topic", "--once"), "kafka"),
        (("watch", "--source", "-", "--alpha", "2"), "alpha"),
        (("watch", "--source", "-", "--group", "client"), "client"),
        (("findings", "list", "--config", "/no/such.toml"), "no such file"),
    ],
)
def test_faults_are_one_line_and_an_exit_code(
    shop: Shop,
    arguments: tuple[str, ...],
    fault: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from console.app import main

    monkeypatch.setattr("sys.argv", ["banken", *arguments, "--db", shop.db])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code in (1, 2)
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert fault in printed
    assert "Traceback" not in printed
