"""What the demo's findings are worth, held against who really is a thief."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from rich.table import Table
from sklearn.metrics import roc_auc_score
from sqlalchemy import Connection

import storage.findings
import storage.queries
from detector.findings import Finding
from detector.groups import NETWORK
from detector.subjects import CLIENT, SubjectKey
from redteam.garments_files import pixel_auroc

__all__ = ["scoreboard"]

_CAMPAIGN = "campaign account"


def scoreboard(connection: Connection, data: Path, endpoint: str = "garments") -> Iterator[Table | str]:
    """When each thief was found, what honest clients saw, and how a pixel-mean detector does beside ours.

    Args:
        connection: to the demo's database.
        data: the directory of the demo's Parquet files.
        endpoint: the demo's endpoint.
    """
    truth = pq.read_table(data / "truth.parquet").to_pylist()
    records = storage.findings.page(connection, endpoint=endpoint, limit=10_000)
    first: dict[SubjectKey, Finding] = {}
    for record in records:
        known = first.get(record.finding.subject)
        if known is None or record.finding.sequence < known.sequence:
            first[record.finding.subject] = record.finding

    table = Table("who", "role", "suspected after", "alerted after", header_style="bold")
    for row in truth:
        if not row["honest"] and row["role"] != _CAMPAIGN:
            turned = row["turned_after"] or 0
            table.add_row(
                row["client"], row["role"], *_delays(first.get(SubjectKey(CLIENT, row["client"])), turned)
            )
    accounts = [row for row in truth if row["role"] == _CAMPAIGN]
    network = SubjectKey(NETWORK, accounts[0]["network"])
    table.add_row(network.value, f"campaign of {len(accounts)} accounts", *_delays(first.get(network), 0))
    yield table

    honest = [first.get(SubjectKey(CLIENT, row["client"])) for row in truth if row["honest"]]
    suspected = [found for found in honest if found is not None]
    alerted = [found for found in suspected if found.alerted_at is not None]
    yield f"Honest clients: {len(honest)}; suspected {len(suspected)}, alerted {len(alerted)}."

    foreign = {event for row in truth if not row["honest"] for event in row["foreign"]}
    odd = {event for row in truth if row["honest"] for event in row["foreign"]}
    scored = [
        (event, score) for event, score in storage.queries.scores(connection, endpoint) if event not in odd
    ]
    ours = roc_auc_score([event in foreign for event, _ in scored], [score for _, score in scored])
    pixels = pixel_auroc(data)
    yield (
        f"Telling thieves' pictures from garments, one picture at a time (AUROC): Banken {ours:.3f}, "
        f"pixel mean {pixels.mean:.3f}."
    )


def _delays(finding: Finding | None, turned: int) -> tuple[str, str]:
    """Queries to suspected and to alerted, counted from when the client turned."""
    if finding is None:
        return "never", "never"
    alerted = finding.alerted_at
    return (
        f"{finding.suspected_at.queries - turned:,} queries",
        "never" if alerted is None else f"{alerted.queries - turned:,} queries",
    )
