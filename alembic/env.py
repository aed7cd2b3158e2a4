"""Run the migrations on the connection that `storage.upgrade` hands over, inside its transaction."""

from __future__ import annotations

from alembic import context
from storage.schema import metadata

# SQLite alters tables by copying them ("batch" mode); harmless elsewhere.
context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
