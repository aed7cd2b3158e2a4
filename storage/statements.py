"""Statements that SQLite and PostgreSQL share but SQLAlchemy keeps in two dialects, and long key lists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, Table, and_
from sqlalchemy.dialects import postgresql, sqlite

from detector.subjects import SubjectKey

__all__ = ["chunks", "insert_into", "one_of"]

# Well below SQLite's 32,766 parameters and PostgreSQL's 65,535.
_CHUNK = 1000


def insert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT in the connection's dialect."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut a list into pieces that one statement can carry."""
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))


def one_of(table: Table, endpoint: str, keys: Iterable[SubjectKey]) -> Iterator[ColumnElement[bool]]:
    """Conditions that together select the rows of these subjects, each answered by the table's key.

    Args:
        table: one with columns ``endpoint``, ``kind`` and ``value``.
        endpoint: whose subjects.
        keys: which subjects.

    Yields:
        one condition per kind and chunk of values; no row meets two of them.
    """
    by_kind: defaultdict[str, set[str]] = defaultdict(set)
    for kind, value in keys:
        by_kind[kind].add(value)
    for kind, values in sorted(by_kind.items()):
        for chunk in chunks(sorted(values)):
            yield and_(table.c.endpoint == endpoint, table.c.kind == kind, table.c.value.in_(chunk))
