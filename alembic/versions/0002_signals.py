"""Signals beside out of domain: a larger subject state, the linking evidence, figures in findings.

What was out-of-domain evidence at two levels goes on as the first two of six channels. The others begin
empty: their start weight is spent, which is cautious.
"""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SAME = [
    ("starts", "<i8"),
    ("queries", "<i8"),
]
_MOMENTS = [
    ("first_seen", "<i8"),
    ("last_seen", "<i8"),
    ("stage", "<i8"),
    ("episodes", "<i8"),
]
OLD = np.dtype(
    [
        *_SAME,
        ("hits", "<i8", (2,)),
        ("S", "<f8", (2, 12)),
        ("G", "<f8"),
        ("bucket", "<i8"),
        ("trials", "<i8"),
        ("bucket_hits", "<i8", (2,)),
        ("bucket_queries", "<i8"),
        ("bucket_foreign", "<i8"),
        ("recent", "<u8", (8,)),
        ("evidence", "<f8"),
        ("exposure", "<f8"),
        *_MOMENTS,
    ]
)
NEW = np.dtype(
    [
        *_SAME,
        ("hits", "<i8", (6,)),
        ("linking_hits", "<i8", (3,)),
        ("S", "<f8", (6, 12)),
        ("G", "<f8", (4,)),
        ("bucket", "<i8"),
        ("trials", "<i8"),
        ("bucket_hits", "<i8", (3,)),
        ("bucket_queries", "<i8"),
        ("bucket_foreign", "<i8"),
        ("recent", "<u8", (8,)),
        ("visited", "<u8", (4,)),
        ("prints", "<u8", (64,)),
        ("marks", "<u2", (64,)),
        ("kept", "<i8"),
        ("evidence", "<f8"),
        ("linking", "<f8"),
        ("exposure", "<f8"),
        *_MOMENTS,
    ]
)

SUBJECTS = sa.table(
    "subjects",
    sa.column("endpoint", sa.Text),
    sa.column("kind", sa.Text),
    sa.column("value", sa.Text),
    sa.column("state", sa.LargeBinary),
)


def upgrade() -> None:
    with op.batch_alter_table("subjects") as table:
        table.add_column(sa.Column("linking", sa.Double, nullable=False, server_default="0"))
    with op.batch_alter_table("subjects") as table:
        table.alter_column("linking", server_default=None)
    op.create_index(
        "ix_subjects_endpoint_linking",
        "subjects",
        ["endpoint", "linking"],
        sqlite_where=sa.text("linking >= 1.0"),
        postgresql_where=sa.text("linking >= 1.0"),
    )
    with op.batch_alter_table("findings") as table:
        table.add_column(sa.Column("signals", sa.Text, nullable=False, server_default="[]"))
    with op.batch_alter_table("findings") as table:
        table.alter_column("signals", server_default=None)
    _convert(OLD, NEW)


def downgrade() -> None:
    _convert(NEW, OLD)
    with op.batch_alter_table("findings") as table:
        table.drop_column("signals")
    op.drop_index("ix_subjects_endpoint_linking", "subjects")
    with op.batch_alter_table("subjects") as table:
        table.drop_column("linking")


def _convert(old: np.dtype, new: np.dtype) -> None:
    """Write every subject's state anew, a thousand at a time, in the order of the key."""
    connection = op.get_bind()
    key = (SUBJECTS.c.endpoint, SUBJECTS.c.kind, SUBJECTS.c.value)
    after: tuple[str, ...] | None = None
    while True:
        page = sa.select(*key, SUBJECTS.c.state).order_by(*key).limit(1000)
        if after is not None:
            page = page.where(sa.tuple_(*key) > sa.tuple_(*(sa.literal(part) for part in after)))
        rows = connection.execute(page).all()
        if not rows:
            return
        for endpoint, kind, value, state in rows:
            connection.execute(
                sa.update(SUBJECTS)
                .where(key[0] == endpoint, key[1] == kind, key[2] == value)
                .values(state=converted(bytes(state), old, new))
            )
        after = tuple(rows[-1][:3])


def converted(state: bytes, old: np.dtype, new: np.dtype) -> bytes:
    """One state in the other layout: what both have is kept as far as it fits."""
    before, after = np.frombuffer(state, old)[0], np.zeros((), new)
    for name in set(old.names or ()) & set(new.names or ()):
        source, target = np.atleast_1d(before[name]), after[name]
        if target.ndim == 0:
            after[name] = source.flat[0]
        else:
            place = tuple(slice(0, min(a, b)) for a, b in zip(source.shape, target.shape, strict=True))
            target[place] = source[place]
    if "linking_hits" not in (old.names or ()):
        # Which half hit is not known any more. As many as can be are linking ones: none judges falsely.
        hits, linking = after["hits"], after["linking_hits"]
        linking[:] = np.minimum(hits[: len(linking)], (int(after["queries"]) + 1) // 2)
    return after.tobytes()
