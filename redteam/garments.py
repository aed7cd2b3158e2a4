"""Make the demo data: a garments endpoint, its honest clients and the thieves who want it.

Run ``python -m redteam.garments --fashion DIR --clipart DIR --out console/demo``. The same sources, the
same machine and the same versions of the libraries give the same files, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from torch import nn

from redteam.garments_answers import answer, train_classifier
from redteam.garments_clients import Client, Shot, log_cast, play, trusted_cast
from redteam.garments_drawings import dress, read_drawings
from redteam.garments_files import (
    LOG_SCHEMA,
    REFERENCE_SCHEMA,
    TRUTH_SCHEMA,
    native_line,
    pixel_auroc,
    write_native,
    write_parquet,
)
from redteam.garments_habits import Stock
from redteam.garments_images import LABELS, Garments, encode_png, read_garments, split
from redteam.garments_page import demo_page

__all__ = ["ENDPOINT", "FILES", "main", "make", "native_line", "pixel_auroc", "write_native"]

ENDPOINT = "garments"
FILES = ("reference.parquet", "trusted.parquet", "log.parquet", "truth.parquet")
_SEED = 28
_DRAWINGS = 1_200
_DRAWINGS_OF_TRUSTED = 20
_TRUSTED_BEGINS = datetime(2026, 10, 19, tzinfo=UTC)
_LOG_BEGINS = datetime(2026, 11, 2, tzinfo=UTC)
_TOP = 3


def make(fashion: Path, clipart: Path, out: Path, *, epochs: int = 3) -> None:
    """Write the four Parquet files and ``DATA.md``.

    Args:
        fashion: folder of the gzipped IDX files of Fashion-MNIST.
        clipart: folder of PNG drawings; the held-out half by content hash is used.
        out: folder to write to; made if missing.
        epochs: of the classifier.

    Raises:
        SourceDataError: a source is missing, malformed or too small.
    """
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(_SEED)
    garments = read_garments(fashion)
    parts = split(garments, rng)
    model = train_classifier(
        garments.images[parts.classifier], garments.labels[parts.classifier], seed=_SEED, epochs=epochs
    )
    accuracy = _accuracy(model, garments)

    donors = garments.images[rng.choice(parts.donors, _DRAWINGS, replace=False)]
    drawings = dress(read_drawings(clipart), donors)
    earlier = Stock(
        garments.images[parts.trusted], garments.labels[parts.trusted], drawings[:_DRAWINGS_OF_TRUSTED]
    )
    later = Stock(garments.images[parts.log], garments.labels[parts.log], drawings[_DRAWINGS_OF_TRUSTED:])
    trusted = play(trusted_cast(earlier, rng), rng)
    cast = log_cast(later, rng)
    shots = play(cast, rng)

    reference = [
        {"image": encode_png(garments.images[index]), "label": LABELS[garments.labels[index]]}
        for index in parts.reference
    ]
    write_parquet(out / "reference.parquet", reference, REFERENCE_SCHEMA)
    write_parquet(out / "trusted.parquet", _rows(trusted, model, "t", _TRUSTED_BEGINS), LOG_SCHEMA)
    log = _rows(shots, model, "q", _LOG_BEGINS)
    write_parquet(out / "log.parquet", log, LOG_SCHEMA)
    truth = [_truth(client, shots, log) for client in cast]
    write_parquet(out / "truth.parquet", truth, TRUTH_SCHEMA)
    digests = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in FILES}
    sizes = {name: (pq.read_metadata(out / name).num_rows, (out / name).stat().st_size) for name in FILES}
    page = demo_page(truth, trusted, accuracy=accuracy, auroc=pixel_auroc(out), digests=digests, sizes=sizes)
    (out / "DATA.md").write_text(page, encoding="utf-8")


def _accuracy(model: nn.Module, garments: Garments) -> float:
    answers = answer(model, garments.images[garments.test]).argmax(axis=1)
    return float((answers == garments.labels[garments.test]).mean())


def _rows(shots: list[Shot], model: nn.Module, prefix: str, begins: datetime) -> list[dict[str, Any]]:
    """Answer the queries and lay them out in the columns of ``LOG_SCHEMA``."""
    answers = answer(model, np.stack([shot.picture.image for shot in shots]))
    rows = []
    for number, (shot, probabilities) in enumerate(zip(shots, answers, strict=True), start=1):
        best = np.argsort(-probabilities, kind="stable")[:_TOP]
        scores = {LABELS[label]: round(float(probabilities[label]), 4) for label in best}
        moment = begins + timedelta(milliseconds=shot.time)
        rows.append(
            {
                "id": f"{prefix}-{number:05d}",
                "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "client": shot.client.name,
                "endpoint": ENDPOINT,
                "image": encode_png(shot.picture.image),
                "label": LABELS[best[0]],
                "scores": json.dumps(scores, separators=(",", ":")),
                "org": shot.client.org,
                "ip": shot.ip,
                "user_agent": shot.client.agent,
            }
        )
    return rows


def _truth(client: Client, shots: list[Shot], log: list[dict[str, Any]]) -> dict[str, Any]:
    """Say what one client really is, in the columns of ``TRUTH_SCHEMA``."""
    own = [(row["id"], shot) for row, shot in zip(log, shots, strict=True) if shot.client is client]
    turned = None
    if client.role == "stolen key":
        turned = next(number for number, (_, shot) in enumerate(own) if shot.picture.foreign)
    return {
        "client": client.name,
        "role": client.role,
        "honest": client.honest,
        "org": client.org,
        "network": own[-1][1].ip.rpartition(".")[0] + ".0/24",
        "queries": len(own),
        "foreign": [query for query, shot in own if shot.picture.foreign],
        "turned_after": turned,
    }


def main() -> None:
    """Take the folders from the command line, make the data and print the page about it."""
    parser = argparse.ArgumentParser(prog="python -m redteam.garments", description="Make the demo data.")
    parser.add_argument("--fashion", type=Path, required=True, help="gzipped IDX files of Fashion-MNIST")
    parser.add_argument("--clipart", type=Path, required=True, help="folder of PNG drawings (openclipart)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the demo data to")
    given = parser.parse_args()
    make(given.fashion, given.clipart, given.out)
    page = (given.out / "DATA.md").read_text(encoding="utf-8")
    print(page.partition("## Clients of the log")[0])


if __name__ == "__main__":
    main()
