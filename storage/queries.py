"""Judged queries: written by the batch, read back to rebuild the query index and to look at a client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from sqlalchemy import Connection, func, insert, select

from storage import schema
from storage.records import NovelQuery, Occurrence, QueryRecord, StoredQuery
from storage.statements import chunks

__all__ = ["add", "existing", "novel_count", "novel_since", "page", "scores", "take_turn"]

_QUERIES = schema.queries
_FIELDS = tuple(field.name for field in fields(QueryRecord))
_TURN = 0x62616E6B656E  # "banken", among the advisory locks of the database


def add(connection: Connection, records: Sequence[QueryRecord]) -> None:
    """Append queries, in the order given.

    Args:
        connection: inside a transaction.
        records: none of them stored already (see :func:`existing`).
    """
    if records:
        connection.execute(insert(_QUERIES), [_parameters(record) for record in records])


def existing(connection: Connection, endpoint: str, event_ids: Sequence[str]) -> dict[str, Occurrence]:
    """Those of the event ids that the endpoint has stored already, and of what record each is."""
    columns = _QUERIES.c
    statement = select(
        columns.event_id,
        columns.source,
        columns.partition,
        columns.offset,
        columns.item,
        columns.client,
        columns.embedding,
    ).where(columns.endpoint == endpoint)
    return {
        event_id: Occurrence((source, partition, offset, item), client, embedding)
        for chunk in chunks(event_ids)
        for event_id, source, partition, offset, item, client, embedding in connection.execute(
            statement.where(columns.event_id.in_(chunk))
        )
    }


def take_turn(connection: Connection) -> int:
    """Wait until no other worker is in the middle of a batch, and say which query was stored last.

    A worker that hears of another query than it stored last itself has to read its subjects again. On SQLite
    the transaction's own write lock does the waiting.

    Returns:
        the query's id; 0 before the first.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_TURN)))
    return connection.scalar(select(func.max(_QUERIES.c.id))) or 0


def novel_count(connection: Connection, endpoint: str) -> int:
    """How many novel foreign queries the endpoint has: the number that the next one gets."""
    latest = connection.scalar(select(func.max(_QUERIES.c.novel)).where(_QUERIES.c.endpoint == endpoint))
    return 0 if latest is None else latest + 1


def novel_since(connection: Connection, endpoint: str, first: int) -> Iterator[NovelQuery]:
    """Stream the novel foreign queries numbered ``first`` and above, in order, in bounded memory.

    Args:
        connection: stays in use until the iterator is exhausted.
        endpoint: whose queries.
        first: smallest number wanted.

    Yields:
        what the query index keeps of each.
    """
    columns = _QUERIES.c
    statement = (
        select(
            columns.novel,
            columns.client,
            columns.event_id,
            columns.event_time,
            columns.content,
            columns.fingerprint,
            columns.embedding,
            columns.encoder,
            columns.groups,
        )
        .where(columns.endpoint == endpoint, columns.novel >= first)
        .order_by(columns.novel)
        .execution_options(yield_per=1000)
    )
    for row in connection.execute(statement):
        yield NovelQuery(*row)


def page(
    connection: Connection, endpoint: str, client: str, *, before: int | None = None, limit: int = 50
) -> list[StoredQuery]:
    """List a client's queries, the latest first.

    Args:
        connection: any.
        endpoint: the model asked.
        client: who asked.
        before: the last id of the page before this one.
        limit: at most so many.
    """
    statement = select(_QUERIES).where(_QUERIES.c.endpoint == endpoint, _QUERIES.c.client == client)
    if before is not None:
        statement = statement.where(_QUERIES.c.id < before)
    rows = connection.execute(statement.order_by(_QUERIES.c.id.desc()).limit(limit))
    # The columns after the id come in the order of the record's fields; a test holds that.
    return [StoredQuery(row_id, QueryRecord(*row)) for row_id, *row in rows]


def scores(connection: Connection, endpoint: str) -> Iterator[tuple[str, float]]:
    """Stream every query's event id and out-of-domain score, in the order of arrival."""
    statement = select(_QUERIES.c.event_id, _QUERIES.c.score).where(_QUERIES.c.endpoint == endpoint)
    for row in connection.execute(statement.order_by(_QUERIES.c.id).execution_options(yield_per=1000)):
        yield row.event_id, row.score


def _parameters(record: QueryRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in _FIELDS}
