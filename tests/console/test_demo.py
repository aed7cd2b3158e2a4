"""The main job on the data that ships: every thief is alerted, no honest client is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from console.app import app
from console.demo.command import DATA


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def printed(place: Path) -> str:
    result = CliRunner().invoke(app, ["demo", "--dir", str(place)])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def found(printed: str, place: Path) -> dict[str, dict[str, object]]:
    """Findings by subject; of several episodes the first."""
    listed = CliRunner().invoke(
        app, ["findings", "list", "--limit", "1000", "--json", "--db", f"sqlite:///{place / 'banken.db'}"]
    )
    findings = [json.loads(line) for line in listed.stdout.splitlines()]
    return {one["subject"]["value"]: one for one in sorted(findings, key=lambda one: -one["evidence"])}


def truth() -> Iterator[dict[str, object]]:
    yield from pq.read_table(DATA / "truth.parquet").to_pylist()


def test_every_thief_is_alerted_soon(found: dict[str, dict[str, object]]) -> None:
    for row in truth():
        if row["honest"] or row["role"] == "campaign account":
            continue
        one = found[str(row["client"])]
        assert one["alerted_at"] is not None, row
        delay = one["alerted_at"]["queries"] - (row["turned_after"] or 0)  # type: ignore[index]
        assert delay <= (80 if "half" in str(row["role"]) else 40), row


def test_the_campaign_is_alerted_and_its_accounts_are_named(found: dict[str, dict[str, object]]) -> None:
    accounts = {str(row["client"]) for row in truth() if row["role"] == "campaign account"}
    (network,) = {str(row["network"]) for row in truth() if row["role"] == "campaign account"}
    campaign = found[network]
    assert campaign["alerted_at"]["queries"] <= 40  # type: ignore[index]
    named = set(campaign["members"])  # type: ignore[call-overload]
    assert named <= accounts
    assert len(named) >= 0.95 * len(accounts)


def test_no_honest_client_is_alerted(found: dict[str, dict[str, object]]) -> None:
    honest = {str(row["client"]): row["role"] for row in truth() if row["honest"]}
    seen = {client: found[client] for client in honest if client in found}
    assert all(one["alerted_at"] is None for one in seen.values())
    assert {honest[client] for client in seen} <= {"new integrator"}


def test_it_says_how_a_pixel_mean_does_beside_ours(printed: str) -> None:
    assert "pixel mean 0.50" in printed
    assert "Honest clients: 45" in printed
