"""Baselines: immutable, numbered per endpoint, and exactly one of an endpoint's in force."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select, update

from storage import schema
from storage.errors import StorageError
from storage.records import BaselineDraft, BaselineRecord

__all__ = ["activate", "active", "add", "archive", "get", "listed"]

_BASELINES = schema.baselines
_INFO = [column for column in _BASELINES.c if column is not _BASELINES.c.archive]


def add(connection: Connection, draft: BaselineDraft, *, activate: bool = True) -> BaselineRecord:
    """Store a baseline under the endpoint's next version, or find it where the same fit is stored already.

    Args:
        connection: inside a transaction.
        draft: what was fitted.
        activate: put it in force; an endpoint's first baseline is in force in any case.

    Returns:
        the stored baseline.
    """
    endpoint = draft.endpoint
    same = select(_BASELINES.c.version).where(
        _BASELINES.c.endpoint == endpoint, _BASELINES.c.content_hash == draft.content_hash
    )
    version = connection.scalar(same)
    if version is None:
        latest = connection.scalar(
            select(func.max(_BASELINES.c.version)).where(_BASELINES.c.endpoint == endpoint)
        )
        version = (latest or 0) + 1
        connection.execute(
            insert(_BASELINES).values(
                endpoint=endpoint,
                version=version,
                content_hash=draft.content_hash,
                encoder_name=draft.encoder_name,
                encoder_weights=draft.encoder_weights,
                dim=draft.dim,
                created_at=draft.created_at,
                active=latest is None,
                summary=draft.summary,
                archive=draft.archive,
            )
        )
    return _activate(connection, endpoint, version) if activate else get(connection, endpoint, version)


def activate(connection: Connection, endpoint: str, version: int) -> BaselineRecord:
    """Put a stored baseline in force and retire the one that was.

    Raises:
        StorageError: the endpoint has no such version.
    """
    get(connection, endpoint, version)
    return _activate(connection, endpoint, version)


def _activate(connection: Connection, endpoint: str, version: int) -> BaselineRecord:
    # Two statements, retiring first: at no moment are two baselines of one endpoint in force.
    of_endpoint = update(_BASELINES).where(_BASELINES.c.endpoint == endpoint)
    connection.execute(
        of_endpoint.where(_BASELINES.c.active.is_(True), _BASELINES.c.version != version).values(active=False)
    )
    connection.execute(of_endpoint.where(_BASELINES.c.version == version).values(active=True))
    return get(connection, endpoint, version)


def active(connection: Connection, endpoint: str) -> BaselineRecord | None:
    """The baseline in force, or None for an endpoint that has none."""
    row = connection.execute(
        select(*_INFO).where(_BASELINES.c.endpoint == endpoint, _BASELINES.c.active.is_(True))
    ).one_or_none()
    return None if row is None else BaselineRecord(*row)


def get(connection: Connection, endpoint: str, version: int) -> BaselineRecord:
    """One stored baseline.

    Raises:
        StorageError: the endpoint has no such version.
    """
    row = connection.execute(
        select(*_INFO).where(_BASELINES.c.endpoint == endpoint, _BASELINES.c.version == version)
    ).one_or_none()
    if row is None:
        raise StorageError(
            f"no baseline version {version}",
            place=f"endpoint {endpoint!r}",
            fix="`banken baselines list` shows what is stored",
        )
    return BaselineRecord(*row)


def listed(connection: Connection, endpoint: str | None = None) -> list[BaselineRecord]:
    """All baselines, or one endpoint's, by endpoint and version."""
    statement = select(*_INFO).order_by(_BASELINES.c.endpoint, _BASELINES.c.version)
    if endpoint is not None:
        statement = statement.where(_BASELINES.c.endpoint == endpoint)
    return [BaselineRecord(*row) for row in connection.execute(statement)]


def archive(connection: Connection, baseline: BaselineRecord) -> bytes:
    """The ``.npz`` bytes of a stored baseline."""
    statement = select(_BASELINES.c.archive).where(_BASELINES.c.id == baseline.id)
    stored: bytes = connection.execute(statement).scalar_one()
    return stored
