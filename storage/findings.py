"""Findings: their latest state, every step that led there, and the outbox that carries the steps away."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Connection, Row, func, insert, select, update

from detector.findings import Activity, Finding, FindingChange, FindingState, Moment, Severity
from detector.subjects import SubjectKey
from storage import finding_json, schema
from storage.errors import StorageError
from storage.records import FindingRecord, FindingStep, OutboxEntry
from storage.statements import insert_into, one_of

__all__ = [
    "acknowledge",
    "apply",
    "close",
    "count",
    "get",
    "history",
    "load_latest",
    "page",
    "pending",
    "starting_with",
]

_FINDINGS = schema.findings
_HISTORY = schema.finding_history
_OUTBOX = schema.outbox


def apply(connection: Connection, changes: Sequence[FindingChange]) -> None:
    """Store the detector's changes in the order given: latest state, history and outbox.

    What an analyst noted on a finding stays. A change to a finding that an analyst had closed opens it
    again: the detector speaks only when it has got worse or has lapsed.

    Args:
        connection: inside the batch's transaction.
        changes: as :class:`detector.findings.FindingChange`.
    """
    for change in changes:
        finding = change.finding
        step = _upsert(connection, finding)
        _append(connection, finding, step, change.activity, change.at.time, send=True)


def load_latest(connection: Connection, endpoint: str, keys: Iterable[SubjectKey]) -> list[Finding]:
    """Each subject's latest finding, open or closed, of those subjects that ever had one."""
    latest: dict[SubjectKey, Finding] = {}
    for condition in one_of(_FINDINGS, endpoint, keys):
        for row in connection.execute(select(_FINDINGS).where(condition).order_by(_FINDINGS.c.sequence)):
            finding = _record(row).finding
            latest[finding.subject] = finding
    return list(latest.values())


def get(connection: Connection, uid: str) -> FindingRecord:
    """One finding.

    Raises:
        StorageError: there is none with this uid.
    """
    row = connection.execute(select(_FINDINGS).where(_FINDINGS.c.uid == uid)).one_or_none()
    if row is None:
        raise StorageError("no such finding", place=uid, fix="`banken findings list` shows what is stored")
    return _record(row)


def starting_with(connection: Connection, uid: str, *, limit: int = 10) -> list[FindingRecord]:
    """Findings whose uid begins so, in order: what a person means who types the first characters."""
    statement = select(_FINDINGS).where(_FINDINGS.c.uid.startswith(uid, autoescape=True))
    return [_record(row) for row in connection.execute(statement.order_by(_FINDINGS.c.uid).limit(limit))]


def page(
    connection: Connection,
    *,
    endpoint: str | None = None,
    states: Collection[FindingState] = tuple(FindingState),
    severity: Severity = Severity.INFORMATIONAL,
    subject: SubjectKey | None = None,
    acknowledged: bool | None = None,
    limit: int = 50,
    offset: int = 0,
) -> list[FindingRecord]:
    """List findings: the most severe first, then the latest suspected, then by uid.

    Args:
        connection: any.
        endpoint: only those of one endpoint.
        states: only those in one of these states.
        severity: only those at least so severe.
        subject: only those against one subject.
        acknowledged: only those that an analyst has, or has not, taken note of.
        limit: at most so many.
        offset: after so many.
    """
    columns = _FINDINGS.c
    statement = select(_FINDINGS).where(
        columns.state.in_([state.value for state in states]), columns.severity >= int(severity)
    )
    if endpoint is not None:
        statement = statement.where(columns.endpoint == endpoint)
    if subject is not None:
        statement = statement.where(columns.kind == subject.kind, columns.value == subject.value)
    if acknowledged is not None:
        at = columns.acknowledged_at
        statement = statement.where(at.is_not(None) if acknowledged else at.is_(None))
    order = (columns.severity.desc(), columns.suspected_time.desc(), columns.uid)
    return [
        _record(row) for row in connection.execute(statement.order_by(*order).limit(limit).offset(offset))
    ]


def count(connection: Connection, *, endpoint: str | None = None, state: FindingState | None = None) -> int:
    """How many findings there are, of one endpoint or in one state."""
    statement = select(func.count()).select_from(_FINDINGS)
    if endpoint is not None:
        statement = statement.where(_FINDINGS.c.endpoint == endpoint)
    if state is not None:
        statement = statement.where(_FINDINGS.c.state == state.value)
    return connection.execute(statement).scalar_one()


def history(connection: Connection, uid: str) -> list[FindingStep]:
    """Every step of one finding, the first first."""
    rows = connection.execute(select(_HISTORY).where(_HISTORY.c.uid == uid).order_by(_HISTORY.c.step))
    return [
        FindingStep(
            uid=row.uid,
            step=row.step,
            activity=Activity(row.activity),
            event_time=row.event_time,
            finding=finding_json.decode(row.finding),
            by=row.by,
            note=row.note,
        )
        for row in rows
    ]


def acknowledge(
    connection: Connection, uid: str, *, at: int, by: str, note: str | None = None
) -> FindingRecord:
    """Record that an analyst has taken note. The history gains a step; the sinks hear nothing.

    Args:
        connection: inside a transaction.
        uid: the finding.
        at: now, in milliseconds.
        by: who.
        note: replaces the earlier note, where given.

    Raises:
        StorageError: there is none with this uid.
    """
    finding = get(connection, uid).finding
    step = _annotate(connection, uid, at=at, by=by, note=note)
    _append(connection, finding, step, Activity.UPDATE, at, send=False, by=by, note=note)
    return get(connection, uid)


def close(connection: Connection, uid: str, *, at: int, by: str, note: str | None = None) -> FindingRecord:
    """Close a finding by an analyst's word and tell the sinks; the subject's evidence stays as it is.

    Args:
        connection: inside a transaction.
        uid: the finding.
        at: now, in milliseconds.
        by: who.
        note: replaces the earlier note, where given.

    Raises:
        StorageError: there is none with this uid, or it is closed already.
    """
    finding = get(connection, uid).finding
    if finding.state is FindingState.CLOSED:
        raise StorageError("this finding is closed already", place=uid, fix="nothing is left to do")
    closed = replace(finding, state=FindingState.CLOSED, closed_at=Moment(at, finding.queries, event_id=""))
    _annotate(connection, uid, at=at, by=by, note=note)
    step = _upsert(connection, closed, steps=0)
    _append(connection, closed, step, Activity.CLOSE, at, send=True, by=by, note=note)
    return get(connection, uid)


def pending(connection: Connection, *, limit: int = 1000) -> list[OutboxEntry]:
    """What the sinks have not delivered yet, the oldest first."""
    columns = _OUTBOX.c
    statement = (
        select(columns.id, columns.uid, columns.step, columns.activity, columns.event_time, columns.payload)
        .where(columns.delivered_at.is_(None))
        .order_by(columns.id)
        .limit(limit)
    )
    return [
        OutboxEntry(row.id, row.uid, row.step, Activity(row.activity), row.event_time, row.payload)
        for row in connection.execute(statement)
    ]


def _upsert(connection: Connection, finding: Finding, *, steps: int = 1) -> int:
    """Write the latest state, count the steps under the row's lock, and return the number of the last."""
    values = {
        "uid": finding.uid,
        "endpoint": finding.endpoint,
        "kind": finding.subject.kind,
        "value": finding.subject.value,
        "sequence": finding.sequence,
        "state": finding.state.value,
        "severity": int(finding.severity),
        **_moment_columns("suspected", finding.suspected_at),
        **_moment_columns("alerted", finding.alerted_at),
        **_moment_columns("closed", finding.closed_at),
        "evidence": finding.evidence,
        "exposure": finding.exposure,
        "queries": finding.queries,
        "baseline": finding.baseline,
        "signals": finding_json.encode_signals(finding.signals),
    }
    statement = insert_into(connection, _FINDINGS).values(**values, steps=1)
    new = {name: statement.excluded[name] for name in values if name != "uid"}
    upsert = statement.on_conflict_do_update(
        index_elements=["uid"], set_={**new, "steps": _FINDINGS.c.steps + steps}
    )
    step: int = connection.execute(upsert.returning(_FINDINGS.c.steps)).scalar_one()
    return step


def _annotate(connection: Connection, uid: str, *, at: int, by: str, note: str | None) -> int:
    values = {"acknowledged_at": at, "acknowledged_by": by, "steps": _FINDINGS.c.steps + 1}
    if note is not None:
        values["note"] = note
    statement = update(_FINDINGS).where(_FINDINGS.c.uid == uid).values(values)
    step: int = connection.execute(statement.returning(_FINDINGS.c.steps)).scalar_one()
    return step


def _append(
    connection: Connection,
    finding: Finding,
    step: int,
    activity: Activity,
    time: int,
    *,
    send: bool,
    by: str | None = None,
    note: str | None = None,
) -> None:
    common = {"uid": finding.uid, "step": step, "activity": activity.value, "event_time": time}
    text = finding_json.encode(finding)
    connection.execute(insert(_HISTORY).values(**common, finding=text, by=by, note=note))
    if send:
        connection.execute(insert(_OUTBOX).values(**common, payload=text))


def _moment_columns(name: str, moment: Moment | None) -> dict[str, object]:
    return {
        f"{name}_time": None if moment is None else moment.time,
        f"{name}_queries": None if moment is None else moment.queries,
        f"{name}_event": None if moment is None else moment.event_id,
    }


def _moment(time: int | None, queries: int | None, event_id: str | None) -> Moment | None:
    if time is None or queries is None or event_id is None:
        return None
    return Moment(time, queries, event_id)


def _record(row: Row[*tuple[object, ...]]) -> FindingRecord:
    return FindingRecord(
        finding=Finding(
            uid=row.uid,
            endpoint=row.endpoint,
            subject=SubjectKey(row.kind, row.value),
            sequence=row.sequence,
            state=FindingState(row.state),
            severity=Severity(row.severity),
            suspected_at=Moment(row.suspected_time, row.suspected_queries, row.suspected_event),
            alerted_at=_moment(row.alerted_time, row.alerted_queries, row.alerted_event),
            closed_at=_moment(row.closed_time, row.closed_queries, row.closed_event),
            evidence=row.evidence,
            exposure=row.exposure,
            queries=row.queries,
            baseline=row.baseline,
            signals=finding_json.decode_signals(row.signals),
        ),
        steps=row.steps,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        note=row.note,
    )
