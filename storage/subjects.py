"""Subjects' states: loaded and saved many at a time, listed by how much they matter."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, and_, false, func, literal, select

from detector.subjects import CLIENT, SubjectKey, SubjectRow
from storage import schema
from storage.statements import insert_into, one_of

__all__ = ["SubjectOrder", "at_least", "count", "linking_at_least", "load", "page", "save"]

_SUBJECTS = schema.subjects
_PROGRESS = schema.progress
_ROW = [
    _SUBJECTS.c[name]
    for name in (
        "kind",
        "value",
        "queries",
        "evidence",
        "exposure",
        "linking",
        "stage",
        "first_seen",
        "last_seen",
        "state",
    )
]


class SubjectOrder(StrEnum):
    """What a list of subjects is sorted by, largest first."""

    EVIDENCE = "evidence"
    EXPOSURE = "exposure"
    LINKING = "linking"
    PROGRESS = "progress"
    QUERIES = "queries"
    FIRST_SEEN = "first_seen"
    LAST_SEEN = "last_seen"


# Both databases use an index with a condition only where the query repeats it with the number written out.
_NOTABLE = {
    SubjectOrder.EVIDENCE: _SUBJECTS.c.evidence >= literal(schema.NOTABLE_EVIDENCE, literal_execute=True),
    SubjectOrder.EXPOSURE: _SUBJECTS.c.exposure >= literal(schema.NOTABLE_EXPOSURE, literal_execute=True),
    SubjectOrder.LINKING: _SUBJECTS.c.linking >= literal(schema.NOTABLE_LINKING, literal_execute=True),
    SubjectOrder.PROGRESS: _PROGRESS.c.strong.is_not(None),
}


def load(connection: Connection, endpoint: str, keys: Iterable[SubjectKey]) -> list[SubjectRow]:
    """Load those of the subjects that are known, in no particular order."""
    return [
        SubjectRow(SubjectKey(kind, value), *rest)
        for condition in one_of(_SUBJECTS, endpoint, keys)
        for kind, value, *rest in connection.execute(select(*_ROW).where(condition))
    ]


def save(connection: Connection, endpoint: str, rows: Iterable[SubjectRow]) -> None:
    """Write subjects over their earlier states, if any."""
    parameters = [
        {
            "endpoint": endpoint,
            "kind": row.key.kind,
            "value": row.key.value,
            "queries": row.queries,
            "evidence": row.evidence,
            "exposure": row.exposure,
            "linking": row.linking,
            "stage": row.stage,
            "first_seen": row.first_seen,
            "last_seen": row.last_seen,
            "state": row.state,
        }
        # One order for all workers: rows locked in different orders deadlock in PostgreSQL.
        for row in sorted(rows, key=lambda row: row.key)
    ]
    if not parameters:
        return
    statement = insert_into(connection, _SUBJECTS)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["endpoint", "kind", "value"],
            set_={column.name: statement.excluded[column.name] for column in _ROW[2:]},
        ),
        parameters,
    )


def page(
    connection: Connection,
    endpoint: str,
    *,
    kind: str | None = None,
    search: str | None = None,
    order: SubjectOrder = SubjectOrder.EVIDENCE,
    limit: int = 50,
    offset: int = 0,
) -> list[SubjectRow]:
    """List an endpoint's subjects, the largest first; ties by exposure or evidence, then by key.

    Args:
        connection: any.
        endpoint: whose subjects.
        kind: only ``client`` or one kind of group.
        search: only subjects whose value contains this, upper and lower case alike.
        order: what to sort by.
        limit: at most so many.
        offset: after so many.
    """
    tie = _SUBJECTS.c.evidence if order is SubjectOrder.EXPOSURE else _SUBJECTS.c.exposure
    progress = order is SubjectOrder.PROGRESS
    first = _PROGRESS.c.strong.desc().nulls_last() if progress else _SUBJECTS.c[order.value].desc()
    statement = (
        select(_SUBJECTS.c.kind, _SUBJECTS.c.value)
        .where(*_where(endpoint, kind, search))
        .order_by(first, tie.desc(), _SUBJECTS.c.kind, _SUBJECTS.c.value)
        .limit(limit)
        .offset(offset)
    )
    notable = statement.where(_NOTABLE.get(order, false()))
    if progress:
        same = and_(*(_PROGRESS.c[name] == _SUBJECTS.c[name] for name in ("endpoint", "kind", "value")))
        # SQLite answers an outer join from the subjects, all of them.
        statement, notable = statement.outerjoin(_PROGRESS, same), notable.join(_PROGRESS, same)
    # The notable come first in the whole list too: a page that they fill is the page, straight from an index.
    rows = connection.execute(notable).all() if order in _NOTABLE else []
    if len(rows) < limit:
        rows = connection.execute(statement).all()
    # Keys are sorted, perhaps all of the endpoint's; states are read of the page alone.
    keys = [SubjectKey(*row) for row in rows]
    found = {row.key: row for row in load(connection, endpoint, keys)}
    return [found[key] for key in keys]


def at_least(connection: Connection, endpoint: str, *, kind: str, evidence: float) -> list[SubjectRow]:
    """Every subject of one kind with at least this much evidence, the most first, then by value."""
    statement = (
        select(*_ROW)
        .where(*_where(endpoint, kind, None), _SUBJECTS.c.evidence >= evidence)
        .order_by(_SUBJECTS.c.evidence.desc(), _SUBJECTS.c.value)
    )
    if evidence >= schema.NOTABLE_EVIDENCE:
        statement = statement.where(_NOTABLE[SubjectOrder.EVIDENCE])
    return [
        SubjectRow(SubjectKey(kind, value), *rest) for kind, value, *rest in connection.execute(statement)
    ]


def linking_at_least(connection: Connection, endpoint: str, linking: float) -> list[SubjectRow]:
    """Every client whose linking half has at least this much evidence, a number >= 1, by value."""
    statement = select(*_ROW).where(
        *_where(endpoint, CLIENT, None), _SUBJECTS.c.linking >= linking, _NOTABLE[SubjectOrder.LINKING]
    )
    rows = connection.execute(statement.order_by(_SUBJECTS.c.value))
    return [SubjectRow(SubjectKey(kind, value), *rest) for kind, value, *rest in rows]


def count(
    connection: Connection, endpoint: str, *, kind: str | None = None, search: str | None = None
) -> int:
    """How many subjects :func:`page` would list in all; with no search, e-BH's K for that kind."""
    statement = select(func.count()).select_from(_SUBJECTS).where(*_where(endpoint, kind, search))
    return connection.execute(statement).scalar_one()


def _where(endpoint: str, kind: str | None, search: str | None) -> list[ColumnElement[bool]]:
    conditions = [_SUBJECTS.c.endpoint == endpoint]
    if kind is not None:
        conditions.append(_SUBJECTS.c.kind == kind)
    if search is not None:
        conditions.append(_SUBJECTS.c.value.icontains(search, autoescape=True))
    return conditions
