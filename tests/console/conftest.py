"""A small watched endpoint whose log brings its own embeddings, so that no encoder is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import Result
from typer.testing import CliRunner

from console.app import app

DIM = 32
WEIGHTS = "ab" * 32


@dataclass(frozen=True)
class Shop:
    """An endpoint in a temporary directory, and a log of one thief and nine honest clients."""

    place: Path
    db: str
    log: Path
    reference: Path

    def banken(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--db", self.db])


def domain(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Vectors around one direction that vary in five others."""
    basis = np.random.default_rng(7).normal(size=(5, DIM))
    return np.full(DIM, 3.0) + rng.normal(size=(count, 5)) @ basis + 0.1 * rng.normal(size=(count, DIM))


def foreign(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Vectors anywhere."""
    return 3.0 * rng.normal(size=(count, DIM))


def line(number: int, client: str, vector: npt.NDArray[np.float64], **extra: object) -> str:
    """A native record."""
    record = {
        "id": f"q-{number}",
        "time": 1_780_000_000_000 + number * 1000,
        "client": client,
        "endpoint": "shop",
        "embedding": vector.round(4).tolist(),
        "encoder": WEIGHTS,
        "attributes": {"ip": f"198.51.{sum(client.encode()) % 200}.7"},
    }
    return json.dumps(record | extra)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    for name in ("BANKEN_DB", "BANKEN_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    rng = np.random.default_rng(1)
    reference = tmp_path / "reference.jsonl"
    reference.write_text(
        "\n".join(line(i, "reference", vector) for i, vector in enumerate(domain(rng, 1500))) + "\n"
    )
    clients = [f"key-{i % 9}" for i in range(450)]
    vectors = list(domain(rng, 450))
    for at, vector in zip(rng.permutation(450)[:120], foreign(rng, 120), strict=True):
        clients[at], vectors[at] = "thief", vector
    log = tmp_path / "log.jsonl"
    log.write_text(
        "\n".join(
            line(i, client, vector) for i, (client, vector) in enumerate(zip(clients, vectors, strict=True))
        )
        + "\n"
    )
    return Shop(tmp_path, f"sqlite:///{tmp_path / 'banken.db'}", log, reference)


@pytest.fixture
def watched(shop: Shop) -> Shop:
    """The shop after `fit` and `watch --once`."""
    fitted = shop.banken("fit", "shop", "--reference", str(shop.reference))
    assert fitted.exit_code == 0, fitted.output
    seen = shop.banken("watch", "--source", str(shop.log), "--once")
    assert seen.exit_code == 0, seen.output
    return shop


@pytest.fixture
def rows(watched: Shop) -> Callable[..., list[dict[str, object]]]:
    """Run a command with --json and read what it prints."""

    def read(*arguments: str) -> list[dict[str, object]]:
        result = watched.banken(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return [json.loads(printed) for printed in result.stdout.splitlines()]

    return read
