"""Measures extraction progress and coverage on what is stored, at moments that do not depend on batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

import storage.members
import storage.progress
import storage.queries
from detector.baseline import Baseline
from detector.coverage_figures import Neighbourhoods, coverage_of
from detector.findings import FindingChange
from detector.groups import CAMPAIGN, FLEET
from detector.progress import MOST_PAIRS, Answered, due, progress_of, scheduled
from detector.subjects import CLIENT, SubjectKey, SubjectRow
from storage.progress import SubjectProgress
from storage.records import AskedQuery, QueryRecord, answer_of

__all__ = ["ProgressMeter"]


@dataclass(frozen=True, slots=True)
class _Moment:
    """When a subject is measured: its own count of queries, and the id of the last one."""

    queries: int
    until: int


class ProgressMeter:
    """Measures the subjects of one endpoint.

    Args:
        baseline: the one in force; without an exam only coverage is measured.
        groups: kinds of groups that a query names. Of others the members' queries count, all of them.
    """

    def __init__(self, baseline: Baseline, groups: Sequence[str]) -> None:
        self._baseline = baseline
        self._groups = frozenset(groups)
        self._reference = Neighbourhoods.of(baseline.held_out)

    def measure(
        self,
        connection: Connection,
        records: Iterable[QueryRecord],
        subjects: Iterable[SubjectRow],
        changes: Iterable[FindingChange],
        campaigns: Mapping[str, Sequence[str]],
    ) -> None:
        """Measure whoever is due after a batch, in the batch's own transaction.

        A client is due when its queries reach the schedule's next number (`detector.progress.scheduled`), any
        subject when a step in its finding's life happens. It is measured on what it had asked by that very
        query, so the same log gives the same figures however it is cut into batches.

        Args:
            connection: inside the transaction; the batch's queries and members are written.
            records: the batch's queries.
            subjects: those that they were about, as they stand after it.
            changes: steps in findings' lives, in their order.
            campaigns: accounts of each campaign among the changes, as they were at its latest step.
        """
        endpoint = self._baseline.endpoint
        moments: dict[SubjectKey, _Moment] = {}
        merged: set[SubjectKey] = set()
        fresh = Counter(record.client for record in records)
        for row in subjects:
            client, after = row.key.value, row.queries
            if row.key.kind == CLIENT and due(after - fresh[client], after):
                n = scheduled(after)
                until = storage.queries.id_of_nth(connection, endpoint, client, n)
                if until is not None:
                    moments[row.key] = _Moment(n, until)
        for change in changes:
            key, n = change.finding.subject, change.at.queries
            if key.kind == CAMPAIGN and not campaigns[key.value]:
                merged.add(key)  # into another one, which its accounts count for now
                continue
            until = storage.queries.id_of(connection, endpoint, change.at.event_id)
            if until is not None and (key not in moments or moments[key].queries <= n):
                moments[key] = _Moment(n, until)
        storage.progress.remove(connection, endpoint, merged)
        storage.progress.save(
            connection,
            endpoint,
            [self._measured(connection, key, at, campaigns) for key, at in moments.items()],
        )

    def _measured(
        self, connection: Connection, key: SubjectKey, at: _Moment, campaigns: Mapping[str, Sequence[str]]
    ) -> SubjectProgress:
        baseline, exam = self._baseline, self._baseline.exam
        asked = [
            query
            for query in self._asked(connection, key, at, campaigns)
            if query.encoder == baseline.encoder.weights
        ]
        joined = b"".join(query.embedding for query in asked)
        embeddings = np.frombuffer(joined, "<f2").reshape(len(asked), baseline.encoder.dim)
        # Cells that were stored with a query are those of the baseline that was in force then.
        verdict = baseline.judge(embeddings)
        inside = verdict.cells[~verdict.foreign[:, 0]]
        coverage = coverage_of(baseline.mass, self._reference, inside, embeddings)
        progress = None
        if exam is not None:
            pairs = Answered.of(exam, embeddings, [answer_of(query.response) for query in asked])
            progress = progress_of(exam, pairs, at.queries)
        return SubjectProgress(key, at.queries, progress, coverage)

    def _asked(
        self, connection: Connection, key: SubjectKey, at: _Moment, campaigns: Mapping[str, Sequence[str]]
    ) -> list[AskedQuery]:
        endpoint = self._baseline.endpoint
        clients: list[str] | None = [key.value]
        if key.kind == FLEET:
            clients = None
        elif key.kind == CAMPAIGN:
            clients = list(campaigns[key.value])
        elif key.kind != CLIENT:
            clients = storage.members.clients(connection, endpoint, key)
        return storage.queries.asked(
            connection,
            endpoint,
            clients,
            group=key if key.kind in self._groups - {FLEET} else None,
            until=at.until,
            limit=MOST_PAIRS,
        )
