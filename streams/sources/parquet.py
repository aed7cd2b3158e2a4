"""A Parquet file, row by row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streams.errors import StreamError
from streams.sources.lines import Line

__all__ = ["ParquetFile"]

# Columns that are read whatever their type; of the others only strings are.
_COLUMNS = frozenset(
    {"id", "time", "client", "endpoint", "image", "embedding", "encoder", "label", "scores", "attributes"}
)
_BATCH_BYTES = 4 * 1024 * 1024
_BATCH_ROWS = 1024
_T = TypeVar("_T")


class ParquetFile:
    """An open Parquet file, read forward in batches of a few megabytes, so that no row group is held whole.

    Rows come as mappings of column to value: timestamps with a zone as integer milliseconds, lists of numbers
    as arrays, maps and structs as dictionaries without their nulls. Columns that are neither strings nor
    named like a field of a query are not read.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be opened.
        StreamError: it is no Parquet file, or damaged.
    """

    final = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        with path.open("rb") as raw:
            raw.seek(-min(1024, path.stat().st_size), 2)
            self._identity = hashlib.sha256(raw.read(1024)).hexdigest()[:16]
        self._file = self._guarded(lambda: pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20))
        self._batches: Iterator[list[Line]] = self._read(0)

    @property
    def identity(self) -> str:
        """A hash of the footer's end, where the file's statistics are."""
        return self._identity

    def reaches(self, offset: int) -> bool:
        """Whether the file has this many rows."""
        return bool(self._file.metadata.num_rows >= offset)

    def seek(self, offset: int) -> None:
        """Go to a row."""
        self.offset = offset
        self._batches = self._read(offset)

    def read(self) -> list[Line] | None:
        """Read the next batch of rows; None at the end.

        Raises:
            StreamError: the file is damaged from here on.
        """
        lines = self._guarded(lambda: next(self._batches, None))
        if lines:
            self.offset = lines[-1].end
        return lines

    def truncated(self) -> bool:
        """Parquet files are written once."""
        return False

    def finish(self) -> list[Line]:
        """Nothing is left over at the end."""
        return []

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, offset: int) -> Iterator[list[Line]]:
        schema = self._file.schema_arrow
        columns = [field.name for field in schema if field.name in _COLUMNS or _is_string(field.type)]
        first = 0
        for index in range(self._file.num_row_groups):
            group = self._file.metadata.row_group(index)
            begin, first = first, first + group.num_rows
            if first <= offset:
                continue
            rows = min(_BATCH_ROWS, max(1, _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)))
            for batch in self._file.iter_batches(rows, row_groups=[index], columns=columns):
                skip = min(batch.num_rows, max(0, offset - begin))
                begin += batch.num_rows
                if skip < batch.num_rows:
                    yield _rows(batch.slice(skip), begin - batch.num_rows + skip)

    def _guarded(self, act: Callable[[], _T]) -> _T:
        try:
            return act()
        except (pa.ArrowException, OSError) as error:
            raise StreamError(
                f"{self.path} is no Parquet file, or damaged after row {self.offset}: {error}"
            ) from error


def _rows(batch: Any, begin: int) -> list[Line]:
    names = batch.schema.names
    columns = [_values(column) for column in batch.columns]
    rows = (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
    return [Line(index, row, index + 1) for index, row in enumerate(rows, begin)]


def _values(column: Any) -> list[object]:
    """Turn a column into what formats understand."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("ms", kind.tz), safe=False)
        return list((column.cast(pa.int64()) if kind.tz else column).to_pylist())
    if pa.types.is_map(kind) or pa.types.is_struct(kind):
        return [None if cell is None else _without_nulls(cell) for cell in column.to_pylist()]
    if _is_list(kind) and _is_number(kind.value_type):
        numbers = column.flatten().to_numpy(zero_copy_only=False)
        ends = np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False))
        arrays = np.split(numbers, ends[:-1])
        return [
            array if valid else None
            for array, valid in zip(arrays, column.is_valid().to_pylist(), strict=True)
        ]
    return list(column.to_pylist())


def _without_nulls(cell: Mapping[str, object] | list[tuple[str, object]]) -> dict[str, object]:
    return {name: value for name, value in dict(cell).items() if value is not None}


def _is_string(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
