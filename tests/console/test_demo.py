"""The main job on the data that ships: every thief is alerted, no honest client is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_network
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


Found = dict[tuple[str, str], dict[str, object]]


@pytest.fixture(scope="module")
def found(printed: str, place: Path) -> Found:
    """Findings by kind and value of their subject; of several episodes the one that got furthest."""
    listed = CliRunner().invoke(
        app, ["findings", "list", "--limit", "1000", "--json", "--db", f"sqlite:///{place / 'banken.db'}"]
    )
    findings = [json.loads(line) for line in listed.stdout.splitlines()]
    findings.sort(key=lambda one: (one["alerted_at"] is not None, one["evidence"]))
    return {(one["subject"]["kind"], one["subject"]["value"]): one for one in findings}


def truth() -> Iterator[dict[str, object]]:
    yield from pq.read_table(DATA / "truth.parquet").to_pylist()


def test_every_thief_is_alerted_soon(found: Found) -> None:
    for row in truth():
        if row["honest"] or row["role"] == "campaign account":
            continue
        one = found["client", str(row["client"])]
        assert one["alerted_at"] is not None, row
        delay = one["alerted_at"]["queries"] - (row["turned_after"] or 0)  # type: ignore[index]
        assert delay <= (80 if "half" in str(row["role"]) else 40), row


def test_the_campaign_is_alerted_and_its_accounts_are_named(found: Found) -> None:
    accounts = {str(row["client"]) for row in truth() if row["role"] == "campaign account"}
    (network,) = {str(row["network"]) for row in truth() if row["role"] == "campaign account"}
    campaign = found["network", network]
    assert campaign["alerted_at"]["queries"] <= 40  # type: ignore[index]
    named = set(campaign["members"])  # type: ignore[call-overload]
    assert named <= accounts
    assert len(named) >= 0.95 * len(accounts)


def test_no_honest_client_is_alerted(found: Found) -> None:
    honest = {str(row["client"]): row["role"] for row in truth() if row["honest"]}
    seen = {client: found["client", client] for client in honest if ("client", client) in found}
    assert all(one["alerted_at"] is None for one in seen.values())
    assert {honest[client] for client in seen} <= {"new integrator"}


def test_who_is_alerted_is_who_steals(found: Found) -> None:
    """No honest client, office or organisation: thieves, the networks that only they use, and the fleet."""
    thieves = {
        str(row["client"]) for row in truth() if not row["honest"] and row["role"] != "campaign account"
    }
    (stolen,) = (row for row in truth() if row["role"] == "stolen key")
    log = pq.read_table(DATA / "log.parquet", columns=["id", "ip"]).to_pylist()
    (moved_to,) = {
        str(ip_network(f"{query['ip']}/24", strict=False))
        for query in log
        if query["id"] in stolen["foreign"]
    }
    (campaign,) = {str(row["network"]) for row in truth() if row["role"] == "campaign account"}
    assert len(thieves) == 3
    alerted = {subject: one for subject, one in found.items() if one["alerted_at"] is not None}
    dishonest = {str(row["client"]) for row in truth() if not row["honest"]}
    for kind, value in [subject for subject in alerted if subject[0] == "campaign"]:
        assert set(alerted.pop((kind, value))["members"]) <= dishonest  # type: ignore[call-overload]
    assert set(alerted) == {
        *(("client", thief) for thief in thieves),
        ("network", moved_to),
        ("network", campaign),
        ("fleet", "all"),
    }


def test_it_says_how_a_pixel_mean_does_beside_ours(printed: str) -> None:
    assert "pixel mean 0.50" in printed
    assert "Honest clients: 45" in printed
