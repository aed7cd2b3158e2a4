from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.findings import Activity, Finding, FindingChange, FindingState, Moment, Severity, SignalFigures
from detector.signals import Signal
from detector.subjects import SubjectKey
from storage import finding_json, findings
from storage.database import Database
from storage.errors import StorageError
from tests.storage.examples import CLIENT, NETWORK, finding

SUSPECTED = finding()
ALERTED = replace(
    finding(state=FindingState.ALERTED, severity=Severity.HIGH, alerted_at=Moment(2_000, 40, "q-40")),
    signals=(*SUSPECTED.signals, SignalFigures(Signal.BOUNDARY, 2.5, 30.0, 31)),
)
CLOSED = replace(ALERTED, state=FindingState.CLOSED, closed_at=Moment(3_000, 90, "q-90"))
LIFE = [
    FindingChange(Activity.CREATE, SUSPECTED, SUSPECTED.suspected_at),
    FindingChange(Activity.UPDATE, ALERTED, Moment(2_000, 40, "q-40")),
    FindingChange(Activity.CLOSE, CLOSED, Moment(3_000, 90, "q-90")),
]


def created(found: Finding) -> FindingChange:
    return FindingChange(Activity.CREATE, found, found.suspected_at)


def _moments() -> st.SearchStrategy[Moment]:
    return st.builds(Moment, st.integers(0, 2**62), st.integers(0, 2**62), st.text())


def _figures() -> st.SearchStrategy[SignalFigures]:
    finite = st.floats(allow_nan=False, allow_infinity=False)
    return st.builds(SignalFigures, evidence=finite, exposure=finite)


@given(
    st.builds(
        Finding,
        subject=st.builds(SubjectKey, st.text(), st.text()),
        suspected_at=_moments(),
        alerted_at=st.none() | _moments(),
        closed_at=st.none() | _moments(),
        evidence=st.floats(allow_nan=False, allow_infinity=False),
        exposure=st.floats(allow_nan=False, allow_infinity=False),
        signals=st.lists(_figures(), max_size=4).map(tuple),
    )
)
def test_json_keeps_every_finding(example: Finding) -> None:
    text = finding_json.encode(example)
    assert finding_json.decode(text) == example
    assert finding_json.encode(finding_json.decode(text)) == text
    assert finding_json.decode_signals(finding_json.encode_signals(example.signals)) == example.signals


def test_json_refuses_what_json_has_not() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        finding_json.encode(replace(SUSPECTED, evidence=float("inf")))
    with pytest.raises(ValueError, match="not JSON compliant"):
        finding_json.encode_signals([replace(SUSPECTED.signals[0], exposure=float("nan"))])


def test_a_finding_of_before_there_were_signals_is_read_without_any() -> None:
    fields = json.loads(finding_json.encode(SUSPECTED))
    del fields["signals"]
    assert finding_json.decode(json.dumps(fields)) == replace(SUSPECTED, signals=())


def test_a_life_from_suspicion_to_close(database: Database) -> None:
    with database.transaction() as connection:
        findings.apply(connection, LIFE[:1])
        findings.apply(connection, LIFE[1:])
        stored = findings.get(connection, "f-1")
        assert stored.finding == CLOSED
        assert (stored.steps, stored.acknowledged, stored.note) == (3, False, None)
        steps = findings.history(connection, "f-1")
        assert [(step.step, step.activity, step.event_time, step.finding) for step in steps] == [
            (1, Activity.CREATE, 1_000, SUSPECTED),
            (2, Activity.UPDATE, 2_000, ALERTED),
            (3, Activity.CLOSE, 3_000, CLOSED),
        ]
        sent = findings.pending(connection)
        assert [(entry.uid, entry.step, entry.activity) for entry in sent] == [
            ("f-1", step.step, step.activity) for step in steps
        ]
        assert [finding_json.decode(entry.payload) for entry in sent] == [step.finding for step in steps]


def test_the_latest_finding_of_each_subject(database: Database) -> None:
    again = finding("f-2", sequence=2, suspected_time=4_000)
    group = finding("f-3", subject=NETWORK)
    with database.transaction() as connection:
        findings.apply(connection, [*LIFE, created(again), created(group)])
        found = findings.load_latest(
            connection, "garments", [CLIENT, NETWORK, SubjectKey("client", "unknown")]
        )
        assert sorted(found, key=lambda one: one.uid) == [again, group]
        assert findings.load_latest(connection, "cars", [CLIENT]) == []


def test_lists_and_filters(database: Database) -> None:
    early = finding("f-2", subject=NETWORK, suspected_time=500)
    late = finding("f-3", subject=SubjectKey("client", "key-3"), suspected_time=5_000)
    with database.transaction() as connection:
        changes = [created(ALERTED), created(early)]
        findings.apply(connection, [*changes, created(late)])
        findings.acknowledge(connection, "f-2", at=9_000, by="ana")

        def listed(**options: object) -> list[str]:
            return [record.finding.uid for record in findings.page(connection, **options)]  # type: ignore[arg-type]

        assert listed() == ["f-1", "f-3", "f-2"]
        assert listed(limit=1, offset=1) == ["f-3"]
        assert listed(states=[FindingState.ALERTED]) == ["f-1"]
        assert listed(severity=Severity.HIGH) == ["f-1"]
        assert listed(severity=Severity.CRITICAL) == []
        assert listed(subject=NETWORK) == ["f-2"]
        assert listed(acknowledged=True) == ["f-2"]
        assert listed(acknowledged=False) == ["f-1", "f-3"]
        assert listed(endpoint="cars") == []
        assert findings.count(connection) == 3
        assert findings.count(connection, endpoint="garments", state=FindingState.SUSPECTED) == 2


def test_an_analyst_takes_note(database: Database) -> None:
    with database.transaction() as connection:
        findings.apply(connection, LIFE[:1])
        findings.acknowledge(connection, "f-1", at=1_500, by="ana", note="asked the customer")
        findings.apply(connection, LIFE[1:2])
        stored = findings.acknowledge(connection, "f-1", at=2_500, by="ben")
        assert stored.finding == ALERTED
        assert (stored.acknowledged_at, stored.acknowledged_by, stored.note) == (
            2_500,
            "ben",
            "asked the customer",
        )
        steps = [
            (step.step, step.activity, step.by, step.note) for step in findings.history(connection, "f-1")
        ]
        assert steps == [
            (1, Activity.CREATE, None, None),
            (2, Activity.UPDATE, "ana", "asked the customer"),
            (3, Activity.UPDATE, None, None),
            (4, Activity.UPDATE, "ben", None),
        ]
        assert [entry.step for entry in findings.pending(connection)] == [1, 3]


def test_an_analyst_closes_and_the_detector_reopens(database: Database) -> None:
    with database.transaction() as connection:
        findings.apply(connection, LIFE[:1])
        stored = findings.close(connection, "f-1", at=1_500, by="ana", note="a penetration test")
        assert stored.finding == replace(
            SUSPECTED, state=FindingState.CLOSED, closed_at=Moment(1_500, 12, "")
        )
        assert (stored.steps, stored.acknowledged_by, stored.note) == (2, "ana", "a penetration test")
        assert [(entry.step, entry.activity) for entry in findings.pending(connection)][1:] == [
            (2, Activity.CLOSE)
        ]
        with pytest.raises(StorageError, match="closed already"):
            findings.close(connection, "f-1", at=1_600, by="ana")
        findings.apply(connection, LIFE[1:2])
        assert findings.get(connection, "f-1").finding == ALERTED
        assert findings.get(connection, "f-1").note == "a penetration test"


def test_an_unknown_finding(database: Database) -> None:
    with database.transaction() as connection:
        for act in (findings.acknowledge, findings.close):
            with pytest.raises(StorageError, match="no such finding"):
                act(connection, "nope", at=1, by="ana")
        assert findings.history(connection, "nope") == []
