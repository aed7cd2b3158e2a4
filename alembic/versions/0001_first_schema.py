"""First schema: baselines, subjects, members, queries, findings, outbox, offsets, dead letters."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A migration is history: it spells its types out and takes none from storage.schema, which moves on.
ID = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
NAME = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "baselines",
        sa.Column("id", ID, nullable=False),
        sa.Column("endpoint", NAME, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("content_hash", NAME, nullable=False),
        sa.Column("encoder_name", sa.Text, nullable=False),
        sa.Column("encoder_weights", sa.Text, nullable=False),
        sa.Column("dim", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("archive", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_baselines"),
        sa.UniqueConstraint("endpoint", "version", name="uq_baselines_endpoint_version"),
        sa.UniqueConstraint("endpoint", "content_hash", name="uq_baselines_endpoint_content_hash"),
    )
    op.create_index(
        "uq_baselines_active",
        "baselines",
        ["endpoint"],
        unique=True,
        sqlite_where=sa.text("active IS 1"),
        postgresql_where=sa.text("active IS true"),
    )
    op.create_table(
        "subjects",
        sa.Column("endpoint", NAME, nullable=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("value", NAME, nullable=False),
        sa.Column("queries", sa.BigInteger, nullable=False),
        sa.Column("evidence", sa.Double, nullable=False),
        sa.Column("exposure", sa.Double, nullable=False),
        sa.Column("stage", sa.SmallInteger, nullable=False),
        sa.Column("first_seen", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "kind", "value", name="pk_subjects"),
    )
    for measure, notable in (("evidence", "1.0"), ("exposure", "5.0")):
        op.create_index(
            f"ix_subjects_endpoint_{measure}",
            "subjects",
            ["endpoint", measure],
            sqlite_where=sa.text(f"{measure} >= {notable}"),
            postgresql_where=sa.text(f"{measure} >= {notable}"),
        )
    op.create_table(
        "members",
        sa.Column("endpoint", NAME, nullable=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("value", NAME, nullable=False),
        sa.Column("client", NAME, nullable=False),
        sa.Column("queries", sa.BigInteger, nullable=False),
        sa.Column("foreign", sa.BigInteger, nullable=False),
        sa.Column("first_seen", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "kind", "value", "client", name="pk_members"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "queries",
        sa.Column("id", ID, nullable=False),
        sa.Column("endpoint", NAME, nullable=False),
        sa.Column("client", NAME, nullable=False),
        sa.Column("event_id", NAME, nullable=False),
        sa.Column("event_time", sa.BigInteger, nullable=False),
        sa.Column("source", NAME, nullable=False),
        sa.Column("partition", NAME, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("item", sa.Integer, nullable=False),
        sa.Column("content", sa.LargeBinary),
        sa.Column("fingerprint", sa.BigInteger),
        sa.Column("embedding", sa.LargeBinary, nullable=False),
        sa.Column("encoder", sa.Text, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("p_value", sa.Double, nullable=False),
        sa.Column("cell", sa.Integer, nullable=False),
        sa.Column("hits", sa.SmallInteger, nullable=False),
        sa.Column("duplicate", sa.Boolean, nullable=False),
        sa.Column("novel", sa.BigInteger),
        sa.Column("groups", sa.Text, nullable=False),
        sa.Column("response", sa.Text),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_queries"),
        sa.UniqueConstraint("endpoint", "event_id", name="uq_queries_endpoint_event_id"),
    )
    op.create_index("ix_queries_endpoint_client_id", "queries", ["endpoint", "client", "id"])
    op.create_index(
        "ix_queries_endpoint_novel",
        "queries",
        ["endpoint", "novel"],
        sqlite_where=sa.text("novel IS NOT NULL"),
        postgresql_where=sa.text("novel IS NOT NULL"),
    )
    op.create_table(
        "findings",
        sa.Column("uid", NAME, nullable=False),
        sa.Column("endpoint", NAME, nullable=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("value", NAME, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("severity", sa.SmallInteger, nullable=False),
        sa.Column("suspected_time", sa.BigInteger, nullable=False),
        sa.Column("suspected_queries", sa.BigInteger, nullable=False),
        sa.Column("suspected_event", sa.Text, nullable=False),
        sa.Column("alerted_time", sa.BigInteger),
        sa.Column("alerted_queries", sa.BigInteger),
        sa.Column("alerted_event", sa.Text),
        sa.Column("closed_time", sa.BigInteger),
        sa.Column("closed_queries", sa.BigInteger),
        sa.Column("closed_event", sa.Text),
        sa.Column("evidence", sa.Double, nullable=False),
        sa.Column("exposure", sa.Double, nullable=False),
        sa.Column("queries", sa.BigInteger, nullable=False),
        sa.Column("baseline", sa.Text, nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("acknowledged_at", sa.BigInteger),
        sa.Column("acknowledged_by", sa.Text),
        sa.Column("note", sa.Text),
        sa.PrimaryKeyConstraint("uid", name="pk_findings"),
        sa.UniqueConstraint(
            "endpoint", "kind", "value", "sequence", name="uq_findings_endpoint_kind_value_sequence"
        ),
    )
    op.create_table(
        "finding_history",
        sa.Column("uid", NAME, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("activity", sa.Text, nullable=False),
        sa.Column("event_time", sa.BigInteger, nullable=False),
        sa.Column("finding", sa.Text, nullable=False),
        sa.Column("by", sa.Text),
        sa.Column("note", sa.Text),
        sa.PrimaryKeyConstraint("uid", "step", name="pk_finding_history"),
        sa.ForeignKeyConstraint(["uid"], ["findings.uid"], name="fk_finding_history_uid"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", ID, nullable=False),
        sa.Column("uid", NAME, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("activity", sa.Text, nullable=False),
        sa.Column("event_time", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("delivered_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.ForeignKeyConstraint(["uid"], ["findings.uid"], name="fk_outbox_uid"),
        sa.UniqueConstraint("uid", "step", name="uq_outbox_uid_step"),
    )
    op.create_index(
        "ix_outbox_pending",
        "outbox",
        ["id"],
        sqlite_where=sa.text("delivered_at IS NULL"),
        postgresql_where=sa.text("delivered_at IS NULL"),
    )
    op.create_table(
        "source_offsets",
        sa.Column("consumer", NAME, nullable=False),
        sa.Column("source", NAME, nullable=False),
        sa.Column("partition", NAME, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.Column("cursor", sa.Text),
        sa.PrimaryKeyConstraint("consumer", "source", "partition", name="pk_source_offsets"),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", ID, nullable=False),
        sa.Column("endpoint", NAME),
        sa.Column("source", NAME, nullable=False),
        sa.Column("partition", NAME, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("item", sa.Integer, nullable=False),
        sa.Column("stage", NAME, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sa.Column("event_id", sa.Text),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dead_letters"),
        sa.UniqueConstraint(
            "source",
            "partition",
            "offset",
            "item",
            "stage",
            "digest",
            name="uq_dead_letters_source_partition_offset_item_stage_digest",
        ),
    )


def downgrade() -> None:
    for table in (
        "dead_letters",
        "source_offsets",
        "outbox",
        "finding_history",
        "findings",
        "queries",
        "members",
        "subjects",
        "baselines",
    ):
        op.drop_table(table)
