"""Campaigns: who is in which, how far the watch has looked, and the queries that link accounts."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NAME = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "campaign_watches",
        sa.Column("endpoint", NAME, nullable=False),
        sa.Column("queries", sa.BigInteger, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("looks", sa.BigInteger, nullable=False),
        sa.Column("due", sa.BigInteger, nullable=False),
        sa.Column("clients", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name="pk_campaign_watches"),
    )
    op.create_table(
        "campaign_members",
        sa.Column("endpoint", NAME, nullable=False),
        sa.Column("client", NAME, nullable=False),
        sa.Column("campaign", NAME, nullable=False),
        sa.Column("link", sa.Text, nullable=False),
        sa.Column("strength", sa.Double, nullable=False),
        sa.Column("look", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "client", name="pk_campaign_members"),
    )
    op.create_index(
        "ix_campaign_members_endpoint_campaign_client",
        "campaign_members",
        ["endpoint", "campaign", "client"],
    )
    op.create_table(
        "linking_queries",
        sa.Column("endpoint", NAME, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("event_id", NAME, nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "number", name="pk_linking_queries"),
    )


def downgrade() -> None:
    for table in ("linking_queries", "campaign_members", "campaign_watches"):
        op.drop_table(table)
