"""The commands on a real database: what they print, what they change, how they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.console.conftest import Shop, domain, line

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
    moved = domain(np.random.default_rng(9), 900) + np.linspace(-2, 2, 32)
    other.write_text("".join(line(i, "r", vector) + "\n" for i, vector in enumerate(moved)))
    assert watched.banken("fit", "shop", "--reference", str(other), "--no-activate").exit_code == 0
    assert [(row["version"], row["active"]) for row in rows("baselines", "list")] == [(1, True), (2, False)]
    shown = rows("baselines", "show", "shop")[0]
    assert shown["benign_bound"] == [0.12, 0.03]
    assert "defaults" in str(shown["rates_from"])
    compared = rows("baselines", "compare", "shop", "1", "2")[0]
    assert compared["new_foreign_to_old"] > 0.5  # type: ignore[operator]
    assert "has grown or moved" in watched.banken("baselines", "compare", "shop", "1", "2").output
    assert watched.banken("baselines", "activate", "shop", "2").exit_code == 0
    assert [row["active"] for row in rows("baselines", "list")] == [False, True]


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
