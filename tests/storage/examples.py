"""Example rows for the tests of the repositories."""

from __future__ import annotations

from detector.findings import Finding, FindingState, Moment, Severity, SignalFigures
from detector.signals import Signal
from detector.subjects import SubjectKey, SubjectRow
from storage.records import BaselineDraft, DeadLetterRecord, QueryRecord

CLIENT = SubjectKey("client", "key-1")
NETWORK = SubjectKey("network", "203.0.113.0/24")


def baseline(endpoint: str = "garments", content_hash: str = "aa", archive: bytes = b"npz") -> BaselineDraft:
    return BaselineDraft(
        endpoint, content_hash, "banken-compact", "ff00", 512, 1_000, '{"images": 3}', archive
    )


def subject(
    value: str,
    *,
    kind: str = "client",
    evidence: float = 0.5,
    exposure: float = 0.0,
    linking: float = 0.0,
) -> SubjectRow:
    return SubjectRow(
        SubjectKey(kind, value),
        queries=3,
        evidence=evidence,
        exposure=exposure,
        linking=linking,
        stage=0,
        first_seen=10,
        last_seen=20,
        state=value.encode(),
    )


def query(
    number: int, *, client: str = "key-1", endpoint: str = "garments", novel: int | None = None
) -> QueryRecord:
    return QueryRecord(
        endpoint=endpoint,
        client=client,
        event_id=f"q-{number}",
        event_time=1_000 + number,
        source=f"file:///var/log/{endpoint}.jsonl",
        partition="",
        offset=100 * number,
        item=0,
        content=bytes([number % 256]) * 16,
        fingerprint=2**64 - 1 - number,
        embedding=bytes([number % 256, 0]) * 4,
        encoder="ab" * 32,
        score=0.1 * number,
        p_value=1 / (number + 1),
        cell=number % 7,
        hits=number % 4,
        duplicate=number % 2 == 0,
        novel=novel,
        groups=(NETWORK, SubjectKey("organisation", 'acme "ünited"')),
        response='{"label":"coat"}',
        attributes='{"ip":"203.0.113.7"}',
    )


def finding(
    uid: str = "f-1",
    *,
    subject: SubjectKey = CLIENT,
    sequence: int = 1,
    state: FindingState = FindingState.SUSPECTED,
    severity: Severity = Severity.INFORMATIONAL,
    alerted_at: Moment | None = None,
    closed_at: Moment | None = None,
    suspected_time: int = 1_000,
) -> Finding:
    return Finding(
        uid=uid,
        endpoint="garments",
        subject=subject,
        sequence=sequence,
        state=state,
        severity=severity,
        suspected_at=Moment(suspected_time, 12, "q-12"),
        alerted_at=alerted_at,
        closed_at=closed_at,
        evidence=1234.5678901234567,
        exposure=0.1 + 0.2,
        queries=12,
        baseline="aa",
        signals=(
            SignalFigures(Signal.OUT_OF_DOMAIN, 1e5 / 3, 0.1 + 0.2, 7),
            SignalFigures(Signal.PERTURBATION, 1e-300, 0.0, 0),
        ),
    )


def letter(offset: int, *, stage: str = "decode", endpoint: str | None = "garments") -> DeadLetterRecord:
    return DeadLetterRecord(
        endpoint, "file:///log", "", offset, 0, stage, "not an image: send PNG", b"\xff\x00", "q-1"
    )
