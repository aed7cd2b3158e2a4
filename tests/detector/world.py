"""A small world for the tests of the detector: a domain, what is foreign to it, and logs of queries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from detector.baseline import Baseline, EncoderKey
from detector.findings import Finding, FindingChange, FindingState
from detector.groups import DEFAULT_GROUPS, groups_of
from detector.monitor import Batch, Monitor, Observation
from detector.query_index import QueryIndex, QueryPool, owner_of
from detector.subjects import CLIENT, SubjectKey, SubjectRow

DIM = 32
ENCODER = EncoderKey("test", "0" * 64, DIM)
HOUR = 3_600_000
START = 1_790_000_000_000 // HOUR * HOUR

_HOMES = np.random.default_rng(7).normal(size=(2, 12, DIM // 2))


def normalised(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def native(n: int, seed: int) -> npt.NDArray[np.float16]:
    """Pictures of the domain: around one of twelve homes in the first half of the dimensions."""
    rng = np.random.default_rng([seed, 0])
    vectors = rng.normal(size=(n, DIM)) * np.where(np.arange(DIM) < DIM // 2, 0.35, 0.1)
    vectors[:, : DIM // 2] += _HOMES[0, rng.integers(12, size=n)]
    return normalised(vectors)


def foreign(n: int, seed: int) -> npt.NDArray[np.float16]:
    """Pictures that have nothing to do with the domain."""
    return normalised(np.random.default_rng([seed, 1]).normal(size=(n, DIM)))


def pictures(n: int, seed: int) -> npt.NDArray[np.uint64]:
    """Fingerprints of unlike pictures."""
    return np.random.default_rng([seed, 2]).integers(1, 2**63, size=n).astype(np.uint64)


@cache
def baseline() -> Baseline:
    return Baseline.fit("garments", ENCODER, native(2000, seed=1))


@dataclass(frozen=True)
class Query:
    client: str
    embedding: npt.NDArray[np.float16]
    fingerprint: int = 0
    time: int = START
    attributes: dict[str, str] = field(default_factory=dict)
    margin: float = float("nan")


def queries(
    client: str,
    embeddings: npt.NDArray[np.float16],
    *,
    seed: int = 0,
    start: int = START,
    every: int = 1000,
    **attributes: str,
) -> list[Query]:
    prints = pictures(len(embeddings), seed)
    return [
        Query(client, vector, int(fingerprint), start + i * every, attributes)
        for i, (vector, fingerprint) in enumerate(zip(embeddings, prints, strict=True))
    ]


def batch(log: Sequence[Query], first: int = 0, kinds: Sequence[str] = DEFAULT_GROUPS) -> Batch:
    return Batch(
        ids=[f"q-{first + i}" for i in range(len(log))],
        times=np.array([query.time for query in log], np.int64),
        clients=[query.client for query in log],
        groups=[groups_of(query.attributes, kinds) for query in log],
        embeddings=np.array([query.embedding for query in log], np.float16).reshape(len(log), DIM),
        fingerprints=np.array([query.fingerprint for query in log], np.uint64),
        margins=np.array([query.margin for query in log], np.float32),
    )


class Watch:
    """A monitor with the storage that its owner would have, and everything that it said.

    Args:
        base: its baseline; the world's unless given.
        kinds: groups judged.
        capacity: subjects kept in memory.
        half: queries in a generation of the query index.
    """

    def __init__(
        self,
        base: Baseline | None = None,
        *,
        kinds: Sequence[str] = DEFAULT_GROUPS,
        capacity: int = 200_000,
        half: int | None = None,
    ) -> None:
        self.baseline = base or baseline()
        self.kinds = tuple(kinds)
        self.capacity = capacity
        self.half = half
        self.stored: dict[SubjectKey, SubjectRow] = {}
        self.open: dict[SubjectKey, Finding] = {}
        self.pool: list[tuple[npt.NDArray[np.float16], int, list[int]]] = []
        self.seen: list[Observation] = []
        self.changes: list[FindingChange] = []
        self.count = 0
        self.restart()

    def restart(self) -> None:
        """A new monitor from what is stored."""
        self.monitor = Monitor(
            self.baseline, groups=self.kinds, capacity=self.capacity, novel_count=len(self.pool)
        )
        half = {} if self.half is None else {"half": self.half}
        if half:
            self.monitor._index = QueryIndex(
                self.baseline.domain,
                1 + len(self.kinds),
                self.baseline.near_duplicate,
                count=len(self.pool),
                **half,
            )
        kept = self.pool[QueryIndex.first_needed(len(self.pool), **half) :]
        self.monitor.restore(
            QueryPool(
                np.array([one[0] for one in kept], np.float16).reshape(len(kept), DIM),
                np.array([one[1] for one in kept], np.uint64),
                np.array([one[2] for one in kept], np.int64).reshape(len(kept), 1 + len(self.kinds)),
            )
        )

    def observe(self, log: Sequence[Query]) -> Observation:
        """One batch, as the pipeline does it."""
        part = batch(log, self.count, self.kinds)
        self.count += len(log)
        rows = [self.stored[key] for key in self.monitor.missing(part) if key in self.stored]
        self.monitor.insert(rows, [self.open[row.key] for row in rows if row.stage > 0])
        seen = self.monitor.observe(part)
        self.stored |= {row.key: row for row in self.monitor.changed()}
        for i in np.flatnonzero(seen.novel >= 0).tolist():
            assert seen.novel[i] == len(self.pool)
            owners = [owner_of(SubjectKey(CLIENT, part.clients[i])), *map(owner_of, part.groups[i])]
            self.pool.append((part.embeddings[i], int(part.fingerprints[i]), owners))
        for change in seen.changes:
            self.open[change.finding.subject] = change.finding
            if change.finding.state is FindingState.CLOSED:
                del self.open[change.finding.subject]
        self.monitor.saved()
        self.seen.append(seen)
        self.changes += seen.changes
        return seen

    def run(self, log: Sequence[Query], cuts: Iterable[int] = ()) -> Watch:
        """The log, cut before each of ``cuts``."""
        edges = sorted({0, *cuts, len(log)})
        for first, last in pairwise(edges):
            self.observe(log[first:last])
        return self

    def record(self) -> tuple[object, ...]:
        """Everything that must not depend on how the log was cut."""
        arrays = [
            np.concatenate([part(seen) for seen in self.seen]).tobytes()
            for part in (
                lambda seen: seen.verdict.scores,
                lambda seen: seen.verdict.p_values,
                lambda seen: seen.verdict.cells,
                lambda seen: seen.outcomes.hits,
                lambda seen: seen.outcomes.bounds,
                lambda seen: seen.outcomes.allowances,
                lambda seen: seen.duplicate,
                lambda seen: seen.novel,
            )
        ]
        return (arrays, self.changes, dict(sorted(self.stored.items())))

    def states(self, kind: str) -> set[FindingState]:
        """The states that findings of this kind of subject were ever in."""
        return {one.finding.state for one in self.changes if one.finding.subject.kind == kind}
