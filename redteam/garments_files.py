"""The demo's Parquet files: how they are written, read and turned into native log lines."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from redteam.garments_images import decode_png

__all__ = [
    "LOG_SCHEMA",
    "REFERENCE_SCHEMA",
    "STATISTICS",
    "TRUTH_SCHEMA",
    "PixelAuroc",
    "native_line",
    "pixel_auroc",
    "pixel_statistics",
    "write_native",
    "write_parquet",
]

REFERENCE_SCHEMA = pa.schema([("image", pa.binary()), ("label", pa.string())])
LOG_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("time", pa.string()),
        ("client", pa.string()),
        ("endpoint", pa.string()),
        ("image", pa.binary()),
        ("label", pa.string()),
        ("scores", pa.string()),
        ("org", pa.string()),
        ("ip", pa.string()),
        ("user_agent", pa.string()),
    ]
)
TRUTH_SCHEMA = pa.schema(
    [
        ("client", pa.string()),
        ("role", pa.string()),
        ("honest", pa.bool_()),
        ("org", pa.string()),
        ("network", pa.string()),
        ("queries", pa.int32()),
        ("foreign", pa.list_(pa.string())),
        ("turned_after", pa.int32()),
    ]
)
_ATTRIBUTES = ("org", "ip", "user_agent")
STATISTICS = ("mean", "deviation", "share above background", "edge strength")


@dataclass(frozen=True, slots=True)
class PixelAuroc:
    """How well plain pixel statistics tell thieves' drawings from garments in the shipped log.

    Each is an area under the ROC curve in [0, 1] with drawings as positives; 0.5 says nothing at all.

    Attributes:
        mean: the mean grey value.
        mean_distance: the distance of the mean grey value from that of the reference (two-sided).
        deviation: the standard deviation of the grey values.
        deviation_distance: its distance from that of the reference.
        foreground: the share of pixels above the background.
        edges: the mean step between neighbouring pixels: a statistic of shape, not of contrast, and not
            matched.
        garments: how many garments were compared.
        drawings: how many drawings were compared.
    """

    mean: float
    mean_distance: float
    deviation: float
    deviation_distance: float
    foreground: float
    edges: float
    garments: int
    drawings: int


def write_parquet(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows in their order, compressed with zstd."""
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path, compression="zstd", compression_level=19, row_group_size=1024)


def native_line(row: Mapping[str, Any]) -> str:
    """Turn one row of ``log.parquet`` or ``trusted.parquet`` into one line of native JSONL.

    Args:
        row: the columns of ``LOG_SCHEMA``. The picture's bytes stay as they are, in base64.

    Returns:
        One line, without the line feed; attributes that are null are left out.
    """
    record = {
        **{name: row[name] for name in ("id", "time", "client", "endpoint")},
        "image": {"b64": base64.b64encode(row["image"]).decode("ascii")},
        "response": {"label": row["label"], "scores": json.loads(row["scores"])},
        "attributes": {name: row[name] for name in _ATTRIBUTES if row[name] is not None},
    }
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def write_native(log: Path, target: Path) -> int:
    """Write a Parquet log as native JSONL, in the order of its rows.

    Args:
        log: file with the columns of ``LOG_SCHEMA``.
        target: file to write; replaced if it exists.

    Returns:
        The number of lines.
    """
    lines = 0
    with pq.ParquetFile(log) as source, target.open("w", encoding="utf-8", newline="\n") as sink:
        for batch in source.iter_batches():
            sink.writelines(f"{native_line(row)}\n" for row in batch.to_pylist())
            lines += batch.num_rows
    return lines


def pixel_statistics(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Statistics of each picture that need no model.

    Args:
        images: grey values, uint8, shape (n, height, width).

    Returns:
        The columns named in ``STATISTICS``, shape (n, 4).
    """
    values = images.astype(np.float64)
    steps = np.abs(np.diff(values, axis=1)).mean(axis=(1, 2)) + np.abs(np.diff(values, axis=2)).mean(
        axis=(1, 2)
    )
    return np.column_stack(
        [values.mean(axis=(1, 2)), values.std(axis=(1, 2)), (values > 0).mean(axis=(1, 2)), steps]
    )


def pixel_auroc(folder: Path) -> PixelAuroc:
    """Measure the pixel detectors on the shipped files: thieves' drawings against all garments of the log.

    Args:
        folder: holds ``reference.parquet``, ``log.parquet`` and ``truth.parquet``.
    """
    log = pq.read_table(folder / "log.parquet", columns=["id", "image"]).to_pylist()
    truth = pq.read_table(folder / "truth.parquet").to_pylist()
    reference = pq.read_table(folder / "reference.parquet", columns=["image"])["image"].to_pylist()
    normal = pixel_statistics(np.stack([decode_png(image) for image in reference])).mean(axis=0)
    foreign = {query for row in truth for query in row["foreign"]}
    stolen = {query for row in truth if not row["honest"] for query in row["foreign"]}
    compared = [row for row in log if row["id"] in stolen or row["id"] not in foreign]
    drawn = np.array([row["id"] in stolen for row in compared])
    found = pixel_statistics(np.stack([decode_png(row["image"]) for row in compared]))
    apart = np.abs(found - normal)
    return PixelAuroc(
        mean=float(roc_auc_score(drawn, found[:, 0])),
        mean_distance=float(roc_auc_score(drawn, apart[:, 0])),
        deviation=float(roc_auc_score(drawn, found[:, 1])),
        deviation_distance=float(roc_auc_score(drawn, apart[:, 1])),
        foreground=float(roc_auc_score(drawn, found[:, 2])),
        edges=float(roc_auc_score(drawn, found[:, 3])),
        garments=int((~drawn).sum()),
        drawings=int(drawn.sum()),
    )
