"""Findings as they stand now: current evidence and exposure, and the accounts that are suspects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from sqlalchemy import Connection

import storage.members
import storage.progress
import storage.subjects
from detector.findings import Finding, FindingState
from detector.groups import FLEET
from detector.ranking import e_bh
from detector.subjects import CLIENT, SubjectKey, SubjectRow
from storage.progress import SubjectProgress
from storage.records import FindingRecord

__all__ = ["FDR", "Suspects", "as_of_now", "members_of", "progress_of"]

FDR = 0.05
"""Bound on the false discovery rate of a list of suspects."""


class Suspects:
    """The clients of one endpoint that e-BH lists at :data:`FDR`, on current evidence.

    Args:
        connection: to read from.
        endpoint: which.
    """

    def __init__(self, connection: Connection, endpoint: str) -> None:
        self._connection = connection
        self._endpoint = endpoint
        judged = storage.subjects.count(connection, endpoint, kind=CLIENT)
        # A client below 1/FDR is never listed, so only those above are read.
        rows = storage.subjects.at_least(connection, endpoint, kind=CLIENT, evidence=1 / FDR)
        listed = e_bh(np.array([row.evidence for row in rows], np.float64), FDR, judged=judged)
        self.rows: list[SubjectRow] = [row for row, suspect in zip(rows, listed, strict=True) if suspect]
        self._names = {row.key.value for row in self.rows}

    def members(self, finding: Finding) -> list[str]:
        """The suspects that a finding is about: the client itself, or the listed clients of the group."""
        if finding.subject.kind == CLIENT:
            return [finding.subject.value]
        if finding.subject.kind == FLEET:
            return sorted(self._names)
        clients = storage.members.clients(self._connection, self._endpoint, finding.subject)
        return [client for client in clients if client in self._names]


def members_of(connection: Connection, findings: Iterable[Finding]) -> dict[str, list[str]]:
    """Members of each finding by uid."""
    suspects: dict[str, Suspects] = {}
    named: dict[str, list[str]] = {}
    for finding in findings:
        if finding.endpoint not in suspects:
            suspects[finding.endpoint] = Suspects(connection, finding.endpoint)
        named[finding.uid] = suspects[finding.endpoint].members(finding)
    return named


def as_of_now(connection: Connection, records: Sequence[FindingRecord]) -> list[FindingRecord]:
    """Findings with their subjects' current figures; a stored finding has those of its latest change."""
    open_ = [record.finding for record in records if record.finding.state is not FindingState.CLOSED]
    subjects: defaultdict[str, list[SubjectKey]] = defaultdict(list)
    for finding in open_:
        subjects[finding.endpoint].append(finding.subject)
    rows = {
        (endpoint, row.key): row
        for endpoint, keys in subjects.items()
        for row in storage.subjects.load(connection, endpoint, keys)
    }
    now = {
        finding.uid: replace(finding, evidence=row.evidence, exposure=row.exposure, queries=row.queries)
        for finding in open_
        if (row := rows.get((finding.endpoint, finding.subject))) is not None
    }
    return [replace(record, finding=now.get(record.finding.uid, record.finding)) for record in records]


def progress_of(connection: Connection, findings: Iterable[Finding]) -> dict[str, SubjectProgress | None]:
    """What the subject of each finding could reproduce of the endpoint, by uid; None where not measured."""
    subjects: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        subjects[finding.endpoint].append(finding)
    measured: dict[str, SubjectProgress | None] = {}
    for endpoint, judged in subjects.items():
        found = storage.progress.load(connection, endpoint, [finding.subject for finding in judged])
        measured |= {finding.uid: found.get(finding.subject) for finding in judged}
    return measured
