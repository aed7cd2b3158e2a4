"""Campaigns: the accounts of each, how far the watch of an endpoint has looked, and what it compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

import numpy as np
from sqlalchemy import Connection, delete, select

from detector.campaign_watch import CampaignChanges, WatchState
from detector.campaigns import Joined
from detector.linking_queries import RECENT, LinkingQuery
from detector.links import Link, LinkKind
from detector.progress import label_of
from storage import schema
from storage.records import answer_of
from storage.statements import chunks, insert_into

__all__ = ["joined", "linking_queries", "save", "slices", "state"]

_WATCHES = schema.campaign_watches
_MEMBERS = schema.campaign_members
_LINKING = schema.linking_queries
_QUERIES = schema.queries


def save(connection: Connection, endpoint: str, changes: CampaignChanges) -> None:
    """Store what a batch changed; the campaigns' subjects are stored with the others.

    Args:
        connection: inside the batch's transaction.
        endpoint: which.
        changes: as the watch tells them.
    """
    now = changes.state
    figures = asdict(now)
    statement = insert_into(connection, _WATCHES).values(endpoint=endpoint, **figures)
    connection.execute(statement.on_conflict_do_update(index_elements=["endpoint"], set_=figures))
    if changes.queries:
        connection.execute(
            insert_into(connection, _LINKING),
            [
                {"endpoint": endpoint, "number": one.number, "event_id": one.event_id}
                for one in changes.queries
            ],
        )
        # Only the latest are ever read again.
        connection.execute(
            delete(_LINKING).where(_LINKING.c.endpoint == endpoint, _LINKING.c.number < now.queries - RECENT)
        )
    if changes.joined:
        statement = insert_into(connection, _MEMBERS)
        new = {name: statement.excluded[name] for name in ("campaign", "link", "strength", "look")}
        connection.execute(
            statement.on_conflict_do_update(index_elements=["endpoint", "client"], set_=new),
            [_values(endpoint, one) for one in changes.joined],
        )


def state(connection: Connection, endpoint: str) -> WatchState | None:
    """Where the endpoint's watch stands; None before its first batch."""
    row = connection.execute(select(_WATCHES).where(_WATCHES.c.endpoint == endpoint)).one_or_none()
    return None if row is None else WatchState(row.queries, row.events, row.looks, row.due, row.clients)


def joined(connection: Connection, endpoint: str, campaign: str | None = None) -> list[Joined]:
    """The accounts of one campaign, or of all of the endpoint's, by name."""
    statement = select(_MEMBERS).where(_MEMBERS.c.endpoint == endpoint).order_by(_MEMBERS.c.client)
    if campaign is not None:
        statement = statement.where(_MEMBERS.c.campaign == campaign)
    return [
        Joined(row.client, row.campaign, Link(LinkKind(row.link), row.strength), row.look)
        for row in connection.execute(statement)
    ]


def linking_queries(connection: Connection, endpoint: str, encoder: str) -> list[LinkingQuery]:
    """The latest linking queries, in order; those of another encoder are like nothing and are left out.

    Args:
        connection: any.
        endpoint: whose.
        encoder: hash of the weights in use.
    """
    columns = _QUERIES.c
    statement = (
        select(
            _LINKING.c.number,
            columns.client,
            columns.event_id,
            columns.embedding,
            columns.fingerprint,
            columns.cell,
            columns.response,
        )
        .join(_QUERIES, (columns.endpoint == _LINKING.c.endpoint) & (columns.event_id == _LINKING.c.event_id))
        .where(_LINKING.c.endpoint == endpoint, columns.encoder == encoder)
        .order_by(_LINKING.c.number)
    )
    return [
        LinkingQuery(
            number=row.number,
            client=row.client,
            event_id=row.event_id,
            embedding=np.frombuffer(row.embedding, "<f2").astype(np.float16),
            fingerprint=row.fingerprint or 0,
            cell=row.cell,
            answer=label_of(answer_of(row.response)) or "",
        )
        for row in connection.execute(statement)
    ]


def slices(connection: Connection, endpoint: str, clients: Iterable[str]) -> dict[str, Counter[str]]:
    """What each account's foreign queries were answered with; where the log does not say, their cells."""
    columns = _QUERIES.c
    foreign = columns.hits.bitwise_and(1) == 1  # the other bits are of other levels and signals
    found: dict[str, Counter[str]] = {}
    statement = select(columns.client, columns.response, columns.cell).where(
        columns.endpoint == endpoint, foreign
    )
    for chunk in chunks(sorted(clients)):
        part = statement.where(columns.client.in_(chunk)).execution_options(yield_per=1000)
        for client, response, cell in connection.execute(part):
            place = label_of(answer_of(response)) or f"cell {cell}"
            found.setdefault(client, Counter())[place] += 1
    return found


def _values(endpoint: str, one: Joined) -> dict[str, object]:
    return {
        "endpoint": endpoint,
        "client": one.client,
        "campaign": one.campaign,
        "link": one.link.kind.value,
        "strength": one.link.strength,
        "look": one.look,
    }
