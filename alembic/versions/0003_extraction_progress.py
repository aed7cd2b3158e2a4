"""Extraction progress: what each subject could reproduce of its endpoint, as last measured."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NAME = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "progress",
        sa.Column("endpoint", NAME, nullable=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("value", NAME, nullable=False),
        sa.Column("queries", sa.BigInteger, nullable=False),
        sa.Column("answered", sa.Integer),
        sa.Column("skipped", sa.Integer),
        sa.Column("strong", sa.Double),
        sa.Column("low", sa.Double),
        sa.Column("high", sa.Double),
        sa.Column("weak", sa.Double),
        sa.Column("visited", sa.Double),
        sa.Column("unseen", sa.Double, nullable=False),
        sa.Column("prdc", sa.Double),
        sa.PrimaryKeyConstraint("endpoint", "kind", "value", name="pk_progress"),
    )
    op.create_index("ix_progress_endpoint_strong", "progress", ["endpoint", "strong"])
    op.create_index("ix_queries_endpoint_id", "queries", ["endpoint", "id"])


def downgrade() -> None:
    op.drop_index("ix_queries_endpoint_id", "queries")
    op.drop_table("progress")
