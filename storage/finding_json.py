"""Findings as JSON text: the one form in which history keeps them and the outbox sends them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from detector.findings import Finding, FindingState, Moment, Severity, SignalFigures
from detector.signals import Signal
from detector.subjects import SubjectKey

__all__ = ["decode", "decode_signals", "encode", "encode_signals"]


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
        "signals": _signal_fields(finding.signals),
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
        # Findings of before there were other signals than out of domain have none.
        signals=_signals(fields.get("signals", [])),
    )


def encode_signals(signals: Sequence[SignalFigures]) -> str:
    """Write what the signals said; the same figures give the same text."""
    return json.dumps(_signal_fields(signals), allow_nan=False, separators=(",", ":"))


def decode_signals(text: str) -> tuple[SignalFigures, ...]:
    """Read what :func:`encode_signals` wrote."""
    return _signals(json.loads(text))


def _signal_fields(signals: Sequence[SignalFigures]) -> list[dict[str, object]]:
    return [
        {"signal": one.signal.value, "evidence": one.evidence, "exposure": one.exposure, "hits": one.hits}
        for one in signals
    ]


def _signals(fields: Sequence[dict[str, Any]]) -> tuple[SignalFigures, ...]:
    return tuple(SignalFigures(**one | {"signal": Signal(one["signal"])}) for one in fields)


def _moment_fields(moment: Moment | None) -> dict[str, object] | None:
    if moment is None:
        return None
    return {"time": moment.time, "queries": moment.queries, "event_id": moment.event_id}


def _moment(fields: dict[str, Any] | None) -> Moment | None:
    return None if fields is None else Moment(**fields)
