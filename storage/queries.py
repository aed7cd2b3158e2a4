"""Judged queries: written by the batch, read back to rebuild the query index and to look at a client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import islice
from operator import attrgetter

from sqlalchemy import Connection, func, insert, select

from detector.subjects import SubjectKey
from storage import schema
from storage.records import AskedQuery, NovelQuery, Occurrence, QueryRecord, StoredQuery
from storage.statements import chunks

__all__ = [
    "add",
    "asked",
    "existing",
    "id_of",
    "id_of_nth",
    "novel_count",
    "novel_since",
    "page",
    "scores",
    "take_turn",
]

_QUERIES = schema.queries
_FIELDS = tuple(field.name for field in fields(QueryRecord))
_TURN = 0x62616E6B656E  # "banken", among the advisory locks of the database
_LOOKED_AT = 4  # queries of a client that are looked at, for each that is wanted of a group


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


def id_of(connection: Connection, endpoint: str, event_id: str) -> int | None:
    """The id of the stored query that the log calls so."""
    columns = _QUERIES.c
    statement = select(columns.id).where(columns.endpoint == endpoint, columns.event_id == event_id)
    return connection.scalar(statement)


def id_of_nth(connection: Connection, endpoint: str, client: str, n: int) -> int | None:
    """The id of a client's n-th stored query, counted from 1; None where it has fewer."""
    columns = _QUERIES.c
    statement = select(columns.id).where(columns.endpoint == endpoint, columns.client == client)
    return connection.scalar(statement.order_by(columns.id).offset(n - 1).limit(1))


def asked(
    connection: Connection,
    endpoint: str,
    clients: Sequence[str] | None,
    *,
    group: SubjectKey | None = None,
    until: int,
    limit: int,
) -> list[AskedQuery]:
    """The latest queries of some clients up to one of them, in the order of arrival.

    Args:
        connection: any.
        endpoint: the model asked.
        clients: who asked; None for everyone.
        group: only queries that count for this group, found among each client's latest :data:`_LOOKED_AT`
            times ``limit``.
        until: id of the last query that may be among them.
        limit: at most so many.
    """
    columns = _QUERIES.c
    most = limit if group is None else _LOOKED_AT * limit
    found: list[AskedQuery] = []
    for part in [None] if clients is None else chunks(clients):
        ids = select(columns.id).where(columns.endpoint == endpoint, columns.id <= until)
        if part is not None:
            ids = ids.where(columns.client.in_(part))
        if len(found) == limit:
            ids = ids.where(columns.id > found[0].id)
        if part is None or len(part) == 1:
            ids = ids.order_by(columns.id.desc()).limit(most)
        else:
            # Each client's own latest: no planner walks everyone's history for these, and for a group nothing
            # changes with clients that become members only later in the batch.
            turn = func.row_number().over(partition_by=columns.client, order_by=columns.id.desc())
            latest = ids.add_columns(turn.label("turn")).subquery()
            ids = select(latest.c.id).where(latest.c.turn <= most)
            if group is None:
                ids = ids.order_by(latest.c.id.desc()).limit(limit)
        chosen = ids.subquery()
        statement = (
            select(columns.id, columns.embedding, columns.encoder, columns.groups, columns.response)
            .join(chosen, chosen.c.id == columns.id)
            .order_by(columns.id.desc())
            .execution_options(yield_per=1000)
        )
        # A group's are told from its members' others only here, so they are streamed until there are enough.
        rows = connection.execute(statement)
        queries = (AskedQuery(*row) for row in rows)
        kept = (query for query in queries if group is None or group in query.groups)
        # Cut after each part: a group of many thousand clients has as many parts as it fills.
        found = sorted([*found, *islice(kept, limit)], key=attrgetter("id"))[-limit:]
        rows.close()
    return found


def scores(connection: Connection, endpoint: str) -> Iterator[tuple[str, float]]:
    """Stream every query's event id and out-of-domain score, in the order of arrival."""
    statement = select(_QUERIES.c.event_id, _QUERIES.c.score).where(_QUERIES.c.endpoint == endpoint)
    for row in connection.execute(statement.order_by(_QUERIES.c.id).execution_options(yield_per=1000)):
        yield row.event_id, row.score


def _parameters(record: QueryRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in _FIELDS}
