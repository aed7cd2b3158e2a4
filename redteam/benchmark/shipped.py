"""A small domain out of the demo's files, so that the quick benchmark needs nothing that does not ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from redteam.errors import SourceDataError

__all__ = ["DOMAIN", "DRAWINGS", "unpack"]

DOMAIN, DRAWINGS = "garments", "drawings"

_SCHEMA = pa.schema(
    [(name, pa.binary() if name == "image" else pa.string()) for name in ("image", "label", "split")]
)
_PLAIN = ("even range", "narrow range", "skewed range", "seasonal drift")
"""Roles of honest clients who ask different pictures of garments and nothing else."""


def unpack(demo: Path, target: Path) -> None:
    """Write the demo's garments as a domain and its drawings as a foreign pool.

    The reference becomes the split ``train``. The garments that honest clients of the log asked become
    ``test``, labelled with the victim's answers.

    Args:
        demo: holds ``reference.parquet``, ``log.parquet`` and ``truth.parquet``.
        target: folder for ``garments.parquet`` and ``drawings.parquet``; made if missing.

    Raises:
        SourceDataError: a file of the demo is missing.
    """
    try:
        reference, log, truth = (
            pq.read_table(demo / f"{name}.parquet").to_pylist() for name in ("reference", "log", "truth")
        )
    except FileNotFoundError as error:
        raise SourceDataError(
            f"{demo} does not hold the demo's pictures ({error}); install Banken again"
        ) from error
    plain = {row["client"] for row in truth if row["role"].split(":")[0] in _PLAIN}
    drawn = {query for row in truth if not row["honest"] for query in row["foreign"]}
    garments = [_row(row, "train") for row in reference] + [
        _row(row, "test") for row in log if row["client"] in plain
    ]
    target.mkdir(parents=True, exist_ok=True)
    for name, rows in (
        (DOMAIN, garments),
        (DRAWINGS, [_row(row, "pool") for row in log if row["id"] in drawn]),
    ):
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), target / f"{name}.parquet")


def _row(row: dict[str, Any], split: str) -> dict[str, Any]:
    return {"image": row["image"], "label": row["label"], "split": split}
