"""Records that could not be processed: kept once each, with where they stood and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import astuple, fields
from hashlib import blake2b

from sqlalchemy import ColumnElement, Connection, delete, func, select

from storage import schema
from storage.records import DeadLetterRecord, StoredDeadLetter
from storage.statements import insert_into
from storage.text import escaped

__all__ = ["add", "count", "page", "remove"]

_LETTERS = schema.dead_letters
_FIELDS = tuple(field.name for field in fields(DeadLetterRecord))


def add(connection: Connection, letters: Sequence[DeadLetterRecord]) -> None:
    """Keep dead letters; one that is kept already (same place, stage and content) stays as it is.

    What no database can hold as text is written escaped: bad input ends up here, and must not make its own
    dead letter fail.
    """
    if not letters:
        return
    statement = insert_into(connection, _LETTERS).on_conflict_do_nothing(
        index_elements=["source", "partition", "offset", "item", "stage", "digest"]
    )
    connection.execute(statement, [_parameters(letter) for letter in letters])


def page(
    connection: Connection,
    *,
    endpoint: str | None = None,
    stage: str | None = None,
    after: int = 0,
    limit: int = 50,
) -> list[StoredDeadLetter]:
    """List dead letters in the order of arrival.

    Args:
        connection: any.
        endpoint: only those of one endpoint.
        stage: only those of one stage.
        after: the last id of the page before this one.
        limit: at most so many.
    """
    statement = (
        select(_LETTERS.c.id, *(_LETTERS.c[name] for name in _FIELDS))
        .where(_LETTERS.c.id > after, *_where(endpoint, stage))
        .order_by(_LETTERS.c.id)
        .limit(limit)
    )
    return [
        StoredDeadLetter(row_id, DeadLetterRecord(*row)) for row_id, *row in connection.execute(statement)
    ]


def count(connection: Connection, *, endpoint: str | None = None, stage: str | None = None) -> int:
    """How many dead letters :func:`page` would list in all."""
    statement = select(func.count()).select_from(_LETTERS).where(*_where(endpoint, stage))
    return connection.execute(statement).scalar_one()


def remove(connection: Connection, ids: Collection[int]) -> int:
    """Delete dead letters that a person has dealt with.

    Returns:
        how many there were to delete.
    """
    return connection.execute(delete(_LETTERS).where(_LETTERS.c.id.in_(ids))).rowcount


def _where(endpoint: str | None, stage: str | None) -> list[ColumnElement[bool]]:
    conditions = []
    if endpoint is not None:
        conditions.append(_LETTERS.c.endpoint == endpoint)
    if stage is not None:
        conditions.append(_LETTERS.c.stage == stage)
    return conditions


def _parameters(letter: DeadLetterRecord) -> dict[str, object]:
    """A letter as a row; its digest tells it from another one at the same place, in a file since replaced."""
    row = {
        name: escaped(value) if isinstance(value, str) else value
        for name, value in zip(_FIELDS, astuple(letter), strict=True)
    }
    content = repr((row["reason"], row["raw"], row["event_id"], row["endpoint"]))
    return row | {"digest": blake2b(content.encode(), digest_size=16).digest()}
