"""A small world of embeddings: a domain, honest clients, thieves, and the log of what they asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

import storage.baselines
import storage.dead_letters
from detector.baseline import Baseline, EncoderKey
from embeddings.errors import EncoderError
from storage import schema
from storage.database import Database
from storage.records import BaselineDraft, DeadLetterRecord
from streams.embedding import Embedder
from streams.events import Coordinates, QueryEvent, Response
from streams.formats import encode_native

START = 1_700_000_000_000
MINUTE = 60_000
WEIGHTS = "c0ffee" * 10
_NUMBERED = {"baselines", "queries", "outbox", "dead_letters"}
NOWHERE = Coordinates("", "", 0)


def no_encoder() -> Any:
    raise EncoderError("a log of embeddings needs no encoder")


def embeddings_only() -> Embedder:
    return Embedder(no_encoder, threads=1)


@dataclass(frozen=True)
class World:
    """Honest pictures lie near a few centres of a subspace, foreign ones anywhere.

    Attributes:
        dim: of the embeddings.
        seed: of everything that is drawn.
        weights: of the encoder that is said to have made the embeddings.
    """

    dim: int = 32
    seed: int = 0
    weights: str = WEIGHTS

    def honest(self, n: int, seed: int) -> npt.NDArray[np.float32]:
        shape = np.random.default_rng(self.seed)
        basis = np.linalg.qr(shape.standard_normal((self.dim, 8)))[0]
        centres = 2 * shape.standard_normal((5, 8))
        rng = np.random.default_rng([self.seed, seed, 1])
        inside = centres[rng.integers(0, 5, n)] + 0.7 * rng.standard_normal((n, 8))
        return _unit(inside @ basis.T + 0.15 * rng.standard_normal((n, self.dim)))

    def foreign(self, n: int, seed: int) -> npt.NDArray[np.float32]:
        return _unit(np.random.default_rng([self.seed, seed, 2]).standard_normal((n, self.dim)))

    @cache  # noqa: B019 (worlds live as long as the tests)
    def baseline(self, endpoint: str = "garments") -> Baseline:
        key = EncoderKey("world", self.weights, self.dim)
        return Baseline.fit(endpoint, key, self.honest(600, seed=0).astype(np.float16))

    def install(self, database: Database, *endpoints: str) -> None:
        """Put a baseline in force for each endpoint."""
        with database.transaction() as connection:
            for endpoint in endpoints:
                storage.baselines.add(connection, draft(self.baseline(endpoint)))

    def query(
        self, number: int, *, client: str = "honest-0", endpoint: str = "garments", foreign: bool = False
    ) -> QueryEvent:
        """One query; its number gives its id, its time and its embedding."""
        vectors = (self.foreign if foreign else self.honest)(1, seed=1000 + number)
        return QueryEvent(
            id=f"{endpoint}-{number}",
            time=START + number * MINUTE,
            client=client,
            endpoint=endpoint,
            at=NOWHERE,
            embedding=np.round(vectors[0], 4),
            encoder=WEIGHTS,
        )

    def traffic(self, n: int, endpoints: Sequence[str] = ("garments",)) -> list[QueryEvent]:
        """Queries of honest clients, a thief, a campaign, a health check and a client that repeats itself."""
        rng = np.random.default_rng([self.seed, 3])
        honest, foreign = self.honest(n, seed=3), self.foreign(n, seed=3)
        odd = self.foreign(1, seed=4)[0]
        events = []
        for i in range(n):
            role = rng.choice(
                ["honest", "thief", "campaign", "check", "repeats"], p=[0.6, 0.15, 0.15, 0.05, 0.05]
            )
            number = int(rng.integers(0, 25))
            client = {"honest": f"honest-{number}", "campaign": f"account-{number}"}.get(role, str(role))
            network = "203.0.113" if role == "campaign" else f"198.51.{number}"
            vector = foreign[i] if role in {"thief", "campaign"} and rng.random() < 0.8 else honest[i]
            if role == "check":
                vector = odd
            elif role == "repeats":
                vector = foreign[int(rng.integers(0, 5))] + 0.002 * rng.standard_normal(self.dim)
            endpoint = endpoints[int(rng.integers(0, len(endpoints)))]
            event = QueryEvent(
                id=f"q-{i}",
                time=START + i * 20_000 - int(rng.integers(0, 5 * MINUTE)),
                client=client,
                endpoint=endpoint,
                at=NOWHERE,
                embedding=np.round(_unit(vector[None])[0], 4),
                encoder=WEIGHTS,
                response=Response("coat", {"coat": 0.75, "shirt": 0.25}) if i % 3 == 0 else None,
                attributes={"ip": f"{network}.{number}", "org": f"org-{number % 6}"},
            )
            events.append(event)
        return events


def lines(events: Iterable[QueryEvent]) -> bytes:
    """A native log; embeddings are written with four decimals."""
    return b"".join(encode_native(_short(event)) for event in events)


def write_log(path: Path, events: Iterable[QueryEvent]) -> Path:
    path.write_bytes(lines(events))
    return path


def draft(baseline: Baseline) -> BaselineDraft:
    return BaselineDraft(
        endpoint=baseline.endpoint,
        content_hash=baseline.content_hash,
        encoder_name=baseline.encoder.name,
        encoder_weights=baseline.encoder.weights,
        dim=baseline.encoder.dim,
        created_at=START,
        summary="{}",
        archive=baseline.to_bytes(),
    )


def contents(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, in the order of the keys.

    Rows that are numbered count from 1: a rollback leaves gaps in PostgreSQL's numbers.
    """
    with database.snapshot() as connection:
        tables = {
            table.name: [
                tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))
            ]
            for table in schema.metadata.sorted_tables
        }
    return {
        name: [(i, *row[1:]) for i, row in enumerate(rows, 1)] if name in _NUMBERED else rows
        for name, rows in tables.items()
    }


def stored_ids(database: Database) -> list[str]:
    """Ids of the judged queries in the order of arrival."""
    with database.snapshot() as connection:
        return list(connection.scalars(select(schema.queries.c.event_id).order_by(schema.queries.c.id)))


def letters(database: Database) -> list[DeadLetterRecord]:
    with database.snapshot() as connection:
        return [stored.letter for stored in storage.dead_letters.page(connection, limit=100_000)]


def _short(event: QueryEvent) -> QueryEvent:
    if event.embedding is None:
        return event
    return replace(event, embedding=np.round(event.embedding.astype(np.float64), 4))


def _unit(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
