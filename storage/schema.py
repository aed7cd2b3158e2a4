"""The tables, as SQLAlchemy sees them; `alembic/versions` builds the same ones step by step.

Times are milliseconds since the epoch, UTC, and come from the log, never from a clock, so that a
replay writes the same rows.
"""

from __future__ import annotations

import json
from functools import lru_cache

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql, sqlite

from detector.subjects import SubjectKey

__all__ = [
    "NOTABLE_EVIDENCE",
    "NOTABLE_EXPOSURE",
    "NOTABLE_LINKING",
    "baselines",
    "campaign_members",
    "campaign_watches",
    "dead_letters",
    "finding_history",
    "findings",
    "linking_queries",
    "members",
    "metadata",
    "outbox",
    "progress",
    "queries",
    "source_offsets",
    "subjects",
]


class UnsignedBigInteger(TypeDecorator[int]):
    """An unsigned 64-bit integer, kept as the signed one with the same bits."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """Wrap [2⁶³, 2⁶⁴) to the negative half."""
        return value - 2**64 if value is not None and value >= 2**63 else value

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:
        """Unwrap the negative half."""
        return value + 2**64 if value is not None and value < 0 else value


class Bytes(LargeBinary):
    """Bytes that go to the driver as they are: wrapping each one costs more than SQLite takes to store it."""

    def bind_processor(self, dialect: Dialect) -> None:
        """Both drivers take ``bytes``."""


# One client's queries nearly all have the same groups.
@lru_cache(maxsize=4096)
def _keys_text(keys: tuple[SubjectKey, ...]) -> str:
    return json.dumps(keys, ensure_ascii=False, separators=(",", ":"))


class SubjectKeys(TypeDecorator[tuple[SubjectKey, ...]]):
    """Group subjects, kept as the JSON text ``[["network","203.0.113.0/24"],…]``."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[SubjectKey, ...] | None, dialect: Dialect) -> str:
        """Write the list."""
        return _keys_text(value or ())

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[SubjectKey, ...]:
        """Read the list."""
        return tuple(SubjectKey(kind, name) for kind, name in json.loads(value or "[]"))


# SQLite numbers rows by itself only where the key is spelt INTEGER.
_Id = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")

# Bytewise order, as SQLite has it, so that lists come in one order from both databases.
_Name = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

baselines = Table(
    "baselines",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("endpoint", _Name, nullable=False),
    Column("version", Integer, nullable=False),
    Column("content_hash", _Name, nullable=False),
    Column("encoder_name", Text, nullable=False),
    Column("encoder_weights", Text, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("summary", Text, nullable=False),
    Column("archive", Bytes, nullable=False),
    UniqueConstraint("endpoint", "version"),
    UniqueConstraint("endpoint", "content_hash"),
)
Index(
    "uq_baselines_active",
    baselines.c.endpoint,
    unique=True,
    sqlite_where=baselines.c.active.is_(True),
    postgresql_where=baselines.c.active.is_(True),
)

subjects = Table(
    "subjects",
    metadata,
    Column("endpoint", _Name, primary_key=True),
    Column("kind", _Name, primary_key=True),
    Column("value", _Name, primary_key=True),
    Column("queries", BigInteger, nullable=False),
    Column("evidence", Double, nullable=False),
    Column("exposure", Double, nullable=False),
    Column("stage", SmallInteger, nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("state", Bytes, nullable=False),
    Column("linking", Double, nullable=False),
)
# Every query moves its subject's evidence, but lists begin with the few large values: only those are in
# an index, and saving the others costs nothing more.
NOTABLE_EVIDENCE = 1.0
NOTABLE_EXPOSURE = 5.0
NOTABLE_LINKING = 1.0
Index(
    "ix_subjects_endpoint_linking",
    subjects.c.endpoint,
    subjects.c.linking,
    sqlite_where=subjects.c.linking >= NOTABLE_LINKING,
    postgresql_where=subjects.c.linking >= NOTABLE_LINKING,
)
Index(
    "ix_subjects_endpoint_evidence",
    subjects.c.endpoint,
    subjects.c.evidence,
    sqlite_where=subjects.c.evidence >= NOTABLE_EVIDENCE,
    postgresql_where=subjects.c.evidence >= NOTABLE_EVIDENCE,
)
Index(
    "ix_subjects_endpoint_exposure",
    subjects.c.endpoint,
    subjects.c.exposure,
    sqlite_where=subjects.c.exposure >= NOTABLE_EXPOSURE,
    postgresql_where=subjects.c.exposure >= NOTABLE_EXPOSURE,
)

members = Table(
    "members",
    metadata,
    Column("endpoint", _Name, primary_key=True),
    Column("kind", _Name, primary_key=True),
    Column("value", _Name, primary_key=True),
    Column("client", _Name, primary_key=True),
    Column("queries", BigInteger, nullable=False),
    Column("foreign", BigInteger, nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

queries = Table(
    "queries",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("endpoint", _Name, nullable=False),
    Column("client", _Name, nullable=False),
    Column("event_id", _Name, nullable=False),
    Column("event_time", BigInteger, nullable=False),
    Column("source", _Name, nullable=False),
    Column("partition", _Name, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("item", Integer, nullable=False),
    Column("content", Bytes),
    Column("fingerprint", UnsignedBigInteger),
    Column("embedding", Bytes, nullable=False),
    Column("encoder", Text, nullable=False),
    Column("score", Double, nullable=False),
    Column("p_value", Double, nullable=False),
    Column("cell", Integer, nullable=False),
    Column("hits", SmallInteger, nullable=False),
    Column("duplicate", Boolean, nullable=False),
    Column("novel", BigInteger),
    Column("groups", SubjectKeys, nullable=False),
    Column("response", Text),
    Column("attributes", Text, nullable=False),
    # Places are not unique: of a file that was replaced by another, both have a row 0.
    UniqueConstraint("endpoint", "event_id"),
    Index(None, "endpoint", "client", "id"),
    Index(None, "endpoint", "id"),
)
# Few queries are novel: only those are in the index that rebuilds the query index.
Index(
    "ix_queries_endpoint_novel",
    queries.c.endpoint,
    queries.c.novel,
    sqlite_where=queries.c.novel.is_not(None),
    postgresql_where=queries.c.novel.is_not(None),
)

findings = Table(
    "findings",
    metadata,
    Column("uid", _Name, primary_key=True),
    Column("endpoint", _Name, nullable=False),
    Column("kind", _Name, nullable=False),
    Column("value", _Name, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("severity", SmallInteger, nullable=False),
    Column("suspected_time", BigInteger, nullable=False),
    Column("suspected_queries", BigInteger, nullable=False),
    Column("suspected_event", Text, nullable=False),
    Column("alerted_time", BigInteger),
    Column("alerted_queries", BigInteger),
    Column("alerted_event", Text),
    Column("closed_time", BigInteger),
    Column("closed_queries", BigInteger),
    Column("closed_event", Text),
    Column("evidence", Double, nullable=False),
    Column("exposure", Double, nullable=False),
    Column("queries", BigInteger, nullable=False),
    Column("baseline", Text, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("acknowledged_at", BigInteger),
    Column("acknowledged_by", Text),
    Column("note", Text),
    Column("signals", Text, nullable=False),
    UniqueConstraint("endpoint", "kind", "value", "sequence"),
)

finding_history = Table(
    "finding_history",
    metadata,
    Column("uid", _Name, ForeignKey("findings.uid"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("activity", Text, nullable=False),
    Column("event_time", BigInteger, nullable=False),
    Column("finding", Text, nullable=False),
    Column("by", Text),
    Column("note", Text),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("uid", _Name, ForeignKey("findings.uid"), nullable=False),
    Column("step", Integer, nullable=False),
    Column("activity", Text, nullable=False),
    Column("event_time", BigInteger, nullable=False),
    Column("payload", Text, nullable=False),
    Column("delivered_at", BigInteger),
    UniqueConstraint("uid", "step"),
)
Index(
    "ix_outbox_pending",
    outbox.c.id,
    sqlite_where=outbox.c.delivered_at.is_(None),
    postgresql_where=outbox.c.delivered_at.is_(None),
)

source_offsets = Table(
    "source_offsets",
    metadata,
    Column("consumer", _Name, primary_key=True),
    Column("source", _Name, primary_key=True),
    Column("partition", _Name, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("cursor", Text),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("endpoint", _Name),
    Column("source", _Name, nullable=False),
    Column("partition", _Name, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("item", Integer, nullable=False),
    Column("stage", _Name, nullable=False),
    Column("reason", Text, nullable=False),
    Column("raw", Bytes, nullable=False),
    Column("event_id", Text),
    Column("digest", Bytes, nullable=False),
    UniqueConstraint("source", "partition", "offset", "item", "stage", "digest"),
)

progress = Table(
    "progress",
    metadata,
    Column("endpoint", _Name, primary_key=True),
    Column("kind", _Name, primary_key=True),
    Column("value", _Name, primary_key=True),
    Column("queries", BigInteger, nullable=False),
    Column("answered", Integer),
    Column("skipped", Integer),
    Column("strong", Double),
    Column("low", Double),
    Column("high", Double),
    Column("weak", Double),
    Column("visited", Double),
    Column("unseen", Double, nullable=False),
    Column("prdc", Double),
)
Index("ix_progress_endpoint_strong", progress.c.endpoint, progress.c.strong)

campaign_watches = Table(
    "campaign_watches",
    metadata,
    Column("endpoint", _Name, primary_key=True),
    Column("queries", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("looks", BigInteger, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("clients", BigInteger, nullable=False),
)

campaign_members = Table(
    "campaign_members",
    metadata,
    Column("endpoint", _Name, primary_key=True),
    Column("client", _Name, primary_key=True),
    Column("campaign", _Name, nullable=False),
    Column("link", Text, nullable=False),
    Column("strength", Double, nullable=False),
    Column("look", BigInteger, nullable=False),
    Index(None, "endpoint", "campaign", "client"),
)

linking_queries = Table(
    "linking_queries",
    metadata,
    Column("endpoint", _Name, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("event_id", _Name, nullable=False),
)
