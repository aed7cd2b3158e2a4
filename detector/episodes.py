"""From evidence and exposure to findings: when one opens, grows and closes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from detector.evidence import EvidenceRule
from detector.findings import Activity, Finding, FindingChange, FindingState, Moment, Severity, SignalFigures
from detector.subjects import SubjectKey

__all__ = ["LAPSED", "Episodes", "next_stage"]

LAPSED = 1.0
"""Evidence below which an open finding closes: nothing is left of what opened it."""

_NAMESPACE = uuid.UUID("6f1c2a52-4f4e-5d0a-9a68-ba7ce1000001")
_STEPS = ((1, Severity.MEDIUM), (4, Severity.HIGH), (16, Severity.CRITICAL))


def next_stage(
    rule: EvidenceRule,
    evidence: npt.NDArray[np.float64],
    exposure: npt.NDArray[np.float64],
    stage: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Where a subject's finding goes: 0 for none, else its severity; all arrays have shape (n,).

    A finding opens as informational (suspected) at E ≥ 1/α. While E ≥ 1/α, exposure makes it an alert:
    medium from ``rule.alert_exposure``, high from four times and critical from sixteen times that. It
    keeps its highest severity until the evidence has lapsed.
    """
    severity = np.full(len(stage), int(Severity.INFORMATIONAL))
    for factor, step in _STEPS:
        severity[exposure >= factor * rule.alert_exposure] = step
    grown = np.where(evidence >= rule.threshold, np.maximum(stage, severity), stage)
    return np.where(evidence < LAPSED, 0, grown)


class Episodes:
    """The open findings of one endpoint's subjects.

    Args:
        endpoint: name of the endpoint.
        baseline: content hash of the baseline in force.
    """

    def __init__(self, endpoint: str, baseline: str) -> None:
        self._endpoint = endpoint
        self._baseline = baseline
        self._open: dict[SubjectKey, Finding] = {}

    def insert(self, findings: Iterable[Finding]) -> None:
        """Put stored findings back; one that an analyst closed goes on where it was, should it change."""
        for finding in findings:
            state = FindingState.SUSPECTED if finding.alerted_at is None else FindingState.ALERTED
            self._open[finding.subject] = replace(finding, state=state, closed_at=None)

    def forget(self, keys: Iterable[SubjectKey]) -> None:
        """Drop the findings of subjects that left memory."""
        for key in keys:
            self._open.pop(key, None)

    def move(
        self,
        key: SubjectKey,
        sequence: int,
        stage: int,
        *,
        at: Moment,
        evidence: float,
        signals: tuple[SignalFigures, ...],
    ) -> FindingChange:
        """Move a subject's finding to ``stage``, opening or closing it where that is what it means.

        Args:
            key: who.
            sequence: number of the subject's current episode, from 1.
            stage: what :func:`next_stage` said.
            at: the query that made it so.
            evidence: E after that query.
            signals: what each signal said then.
        """
        exposure = max(figures.exposure for figures in signals)
        found = self._open.pop(key, None)
        activity = Activity.UPDATE
        if found is None:
            activity = Activity.CREATE
            name = "\0".join([self._endpoint, key.kind, key.value, str(sequence)])
            found = Finding(
                uid=str(uuid.uuid5(_NAMESPACE, name)),
                endpoint=self._endpoint,
                subject=key,
                sequence=sequence,
                state=FindingState.SUSPECTED,
                severity=Severity.INFORMATIONAL,
                suspected_at=at,
                alerted_at=None,
                closed_at=None,
                evidence=evidence,
                exposure=exposure,
                queries=at.queries,
                baseline=self._baseline,
            )
        found = replace(
            found,
            evidence=evidence,
            exposure=exposure,
            queries=at.queries,
            baseline=self._baseline,
            signals=signals,
        )
        if stage == 0:
            return FindingChange(Activity.CLOSE, replace(found, state=FindingState.CLOSED, closed_at=at), at)
        if stage > Severity.INFORMATIONAL:
            found = replace(
                found,
                state=FindingState.ALERTED,
                severity=Severity(stage),
                alerted_at=found.alerted_at or at,
            )
        self._open[key] = found
        return FindingChange(activity, found, at)
