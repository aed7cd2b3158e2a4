"""Findings as JSON text: the one form in which history keeps them and the outbox sends them."""

from __future__ import annotations

import json
from typing import Any

from detector.findings import Finding, FindingState, Moment, Severity
from detector.subjects import SubjectKey

__all__ = ["decode", "encode"]


def encode(finding: Finding) -> str:
    """Write a finding; the same finding gives the same text, byte for byte.

    Raises:
        ValueError: evidence or exposure is not finite.
    """
    fields = {
        "uid": finding.uid,
        "endpoint": finding.endpoint,
        "subject": {"kind": finding.subject.kind, "value": finding.subject.value},
        "sequence": finding.sequence,
        "state": finding.state.value,
        "severity": int(finding.severity),
        "suspected_at": _moment_fields(finding.suspected_at),
        "alerted_at": _moment_fields(finding.alerted_at),
        "closed_at": _moment_fields(finding.closed_at),
        "evidence": finding.evidence,
        "exposure": finding.exposure,
        "queries": finding.queries,
        "baseline": finding.baseline,
    }
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def decode(text: str) -> Finding:
    """Read what :func:`encode` wrote."""
    fields = json.loads(text)
    return Finding(
        uid=fields["uid"],
        endpoint=fields["endpoint"],
        subject=SubjectKey(**fields["subject"]),
        sequence=fields["sequence"],
        state=FindingState(fields["state"]),
        severity=Severity(fields["severity"]),
        suspected_at=Moment(**fields["suspected_at"]),
        alerted_at=_moment(fields["alerted_at"]),
        closed_at=_moment(fields["closed_at"]),
        evidence=fields["evidence"],
        exposure=fields["exposure"],
        queries=fields["queries"],
        baseline=fields["baseline"],
    )


def _moment_fields(moment: Moment | None) -> dict[str, object] | None:
    if moment is None:
        return None
    return {"time": moment.time, "queries": moment.queries, "event_id": moment.event_id}


def _moment(fields: dict[str, Any] | None) -> Moment | None:
    return None if fields is None else Moment(**fields)
