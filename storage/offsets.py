"""How far each source has been committed, guarded so that two workers never commit the same records."""

from __future__ import annotations

from sqlalchemy import Connection, select, update
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from storage import schema
from storage.errors import FencedError
from storage.records import SourceOffset
from storage.statements import insert_into

__all__ = ["advance", "load"]

_OFFSETS = schema.source_offsets


def load(connection: Connection, consumer: str, source: str) -> list[SourceOffset]:
    """All partitions of a source that this consumer group has committed, by partition."""
    statement = (
        select(_OFFSETS.c.source, _OFFSETS.c.partition, _OFFSETS.c.next_offset, _OFFSETS.c.cursor)
        .where(_OFFSETS.c.consumer == consumer, _OFFSETS.c.source == source)
        .order_by(_OFFSETS.c.partition)
    )
    return [SourceOffset(*row) for row in connection.execute(statement)]


def advance(connection: Connection, consumer: str, position: SourceOffset, *, expected: int | None) -> None:
    """Move a partition's offset from where this worker believes it to be, within the batch's transaction.

    Args:
        connection: the transaction that writes the batch; roll it back on an error.
        consumer: consumer group.
        position: the new offset and cursor.
        expected: the offset that this worker loaded or committed last; None where there was none.

    Raises:
        FencedError: the offset is elsewhere, so another worker owns the partition.
    """
    key = {"consumer": consumer, "source": position.source, "partition": position.partition}
    moved = {"next_offset": position.next_offset, "cursor": position.cursor}
    statement: ReturningInsert[tuple[int]] | ReturningUpdate[tuple[int]]
    if expected is None:
        first = insert_into(connection, _OFFSETS).values(**key, **moved)
        statement = first.on_conflict_do_nothing(index_elements=list(key)).returning(_OFFSETS.c.next_offset)
    else:
        ours = [_OFFSETS.c[name] == value for name, value in key.items()]
        guarded = update(_OFFSETS).where(*ours, _OFFSETS.c.next_offset == expected)
        statement = guarded.values(moved).returning(_OFFSETS.c.next_offset)
    if connection.execute(statement).one_or_none() is None:
        raise FencedError(
            f"the committed offset is not {expected}, as this worker believed",
            place=f"consumer {consumer!r}, {position.source} [{position.partition}]",
            fix="another worker reads this source: let it, or stop it and start this one again",
        )
