"""Extraction progress and coverage of subjects: the latest figures of each.

`storage.subjects.page` lists subjects by them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, select

from detector.coverage_figures import CoverageFigures
from detector.progress import Progress
from detector.subjects import SubjectKey
from storage import schema
from storage.statements import insert_into, one_of

__all__ = ["SubjectProgress", "load", "remove", "save"]

_PROGRESS = schema.progress


@dataclass(frozen=True, slots=True)
class SubjectProgress:
    """What one subject holds of the endpoint, as it was last measured.

    Attributes:
        key: the subject.
        queries: its queries by then.
        progress: agreement that a thief could reach; None where the baseline has no exam.
        coverage: how much of the domain its queries have mapped.
    """

    key: SubjectKey
    queries: int
    progress: Progress | None
    coverage: CoverageFigures


def save(connection: Connection, endpoint: str, measured: Iterable[SubjectProgress]) -> None:
    """Write figures over the subjects' earlier ones, if any.

    Args:
        connection: inside a transaction.
        endpoint: whose subjects.
        measured: one entry a subject.
    """
    # One order for all workers: rows locked in different orders deadlock in PostgreSQL.
    rows = [_values(endpoint, one) for one in sorted(measured, key=lambda one: one.key)]
    if not rows:
        return
    statement = insert_into(connection, _PROGRESS)
    key = {column.name for column in _PROGRESS.primary_key}
    new = {column.name: statement.excluded[column.name] for column in _PROGRESS.c if column.name not in key}
    connection.execute(
        statement.on_conflict_do_update(index_elements=["endpoint", "kind", "value"], set_=new), rows
    )


def remove(connection: Connection, endpoint: str, keys: Iterable[SubjectKey]) -> None:
    """Forget the figures of subjects that are no more."""
    for condition in one_of(_PROGRESS, endpoint, keys):
        connection.execute(delete(_PROGRESS).where(condition))


def load(
    connection: Connection, endpoint: str, keys: Iterable[SubjectKey]
) -> dict[SubjectKey, SubjectProgress]:
    """The figures of those of the subjects that were ever measured."""
    found = (
        _record(row)
        for condition in one_of(_PROGRESS, endpoint, keys)
        for row in connection.execute(select(_PROGRESS).where(condition))
    )
    return {one.key: one for one in found}


def _values(endpoint: str, one: SubjectProgress) -> dict[str, object]:
    progress, coverage = one.progress, one.coverage
    return {
        "endpoint": endpoint,
        "kind": one.key.kind,
        "value": one.key.value,
        "queries": one.queries,
        "answered": None if progress is None else progress.answered,
        "skipped": None if progress is None else progress.skipped,
        "strong": None if progress is None else progress.strong,
        "low": None if progress is None else progress.low,
        "high": None if progress is None else progress.high,
        "weak": None if progress is None else progress.weak,
        "visited": coverage.visited,
        "unseen": coverage.unseen,
        "prdc": coverage.prdc,
    }


def _record(row: Row[*tuple[object, ...]]) -> SubjectProgress:
    progress = None
    if row.strong is not None:
        progress = Progress(row.queries, row.answered, row.skipped, row.strong, row.low, row.high, row.weak)
    coverage = CoverageFigures(row.visited, row.unseen, row.prdc)
    return SubjectProgress(SubjectKey(row.kind, row.value), row.queries, progress, coverage)
