"""Which clients a group consists of, and how much each contributed."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, case, select

import storage.campaigns
from detector.groups import CAMPAIGN
from detector.subjects import SubjectKey
from storage import schema
from storage.records import Member
from storage.statements import insert_into

__all__ = ["add", "clients", "page"]

_MEMBERS = schema.members


def add(connection: Connection, endpoint: str, increments: Iterable[Member]) -> None:
    """Add a batch's contributions to the totals.

    Args:
        connection: inside a transaction.
        endpoint: whose subjects.
        increments: queries and foreign are added; the moments widen what is known.
    """
    parameters = [
        {
            "endpoint": endpoint,
            "kind": member.key.kind,
            "value": member.key.value,
            "client": member.client,
            "queries": member.queries,
            "foreign": member.foreign,
            "first_seen": member.first_seen,
            "last_seen": member.last_seen,
        }
        # One order for all workers: rows locked in different orders deadlock in PostgreSQL.
        for member in sorted(increments, key=lambda member: (member.key, member.client))
    ]
    if not parameters:
        return
    statement = insert_into(connection, _MEMBERS)
    old, new = _MEMBERS.c, statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["endpoint", "kind", "value", "client"],
            set_={
                "queries": old.queries + new.queries,
                "foreign": old.foreign + new.foreign,
                "first_seen": case((new.first_seen < old.first_seen, new.first_seen), else_=old.first_seen),
                "last_seen": case((new.last_seen > old.last_seen, new.last_seen), else_=old.last_seen),
            },
        ),
        parameters,
    )


def clients(connection: Connection, endpoint: str, key: SubjectKey) -> list[str]:
    """The names of all clients of a group or campaign, in order."""
    if key.kind == CAMPAIGN:
        return [one.client for one in storage.campaigns.joined(connection, endpoint, key.value)]
    columns = _MEMBERS.c
    statement = select(columns.client).where(
        columns.endpoint == endpoint, columns.kind == key.kind, columns.value == key.value
    )
    return list(connection.scalars(statement.order_by(columns.client)))


def page(
    connection: Connection, endpoint: str, key: SubjectKey, *, limit: int = 50, offset: int = 0
) -> list[Member]:
    """List a group's clients: the most foreign queries first, then the most queries, then by name."""
    columns = _MEMBERS.c
    statement = (
        select(columns.client, columns.queries, columns.foreign, columns.first_seen, columns.last_seen)
        .where(columns.endpoint == endpoint, columns.kind == key.kind, columns.value == key.value)
        .order_by(columns.foreign.desc(), columns.queries.desc(), columns.client)
        .limit(limit)
        .offset(offset)
    )
    return [Member(key, *row) for row in connection.execute(statement)]
