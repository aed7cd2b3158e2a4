"""What one run of the benchmark found, and the small Parquet files that make the benchmark resumable."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from redteam.errors import RedteamError

__all__ = ["BANKEN", "RUN_SCHEMA", "Run", "read_runs", "write_runs"]

BANKEN = "banken"
"""Banken's name among the detectors."""


@dataclass(frozen=True, slots=True)
class Run:
    """One detector on one replicate of one stream.

    Counts are of the client's own queries from 1, and for a turncoat, JBDA and T-RND of those after the turn
    or the seeds: 0 means before them. None means never, or that it does not apply.

    Attributes:
        domain: protected domain.
        group: attack, honest or campaign.
        name: thief or honest family.
        pool: where its pictures come from, or empty.
        share: of the thief's own among the client's queries; 0 for honest clients.
        accounts: over which the queries are dealt.
        network: whether those share one.
        replicate: number, from 0.
        slicing: what sets replicates apart: see `redteam.benchmark.slices.Slicing`.
        detector: `banken`, or a rival.
        queries: that were judged; of a campaign its own.
        suspected_at: of the client.
        alerted_at: of the client; of a rival its alarm.
        suspected_pooled: of a campaign's pooled queries, to the first suspicion of any group of it.
        alerted_pooled: the same to the first alert.
        alerted_by: the signal with the largest exposure at the alert, or the kind of group, or empty.
        recall: share of a campaign's accounts that e-BH lists at the end, at a false discovery rate of 5 %;
            of a rival: that it alarms on.
        precision: share of a campaign's accounts in that list.
        recall_members: share of a campaign's accounts among the members of campaign findings.
        precision_members: share of a campaign's accounts among those members.
        agreement_at_alert: of a thief trained on what was answered by the alert, with the victim, in [0, 1].
        agreement_final: the same of all that was answered.
        progress_at_alert: agreement that the detector estimates at the alert; at the end if there was none.
        seconds: the detector's own time.
    """

    domain: str
    group: str
    name: str
    pool: str
    share: float
    accounts: int
    network: bool
    replicate: int
    slicing: str
    detector: str
    queries: int
    suspected_at: int | None = None
    alerted_at: int | None = None
    suspected_pooled: int | None = None
    alerted_pooled: int | None = None
    alerted_by: str = ""
    recall: float | None = None
    precision: float | None = None
    recall_members: float | None = None
    precision_members: float | None = None
    agreement_at_alert: float | None = None
    agreement_final: float | None = None
    progress_at_alert: float | None = None
    seconds: float = 0.0


_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
RUN_SCHEMA = pa.schema(
    [
        pa.field(name, _TYPES[str(kind).removesuffix(" | None")], nullable="None" in str(kind))
        for name, kind in Run.__annotations__.items()
    ]
)


def write_runs(path: Path, runs: Iterable[Run]) -> None:
    """Write runs all or nothing, so that an interrupted benchmark leaves no half file."""
    table = pa.Table.from_pylist([asdict(run) for run in runs], schema=RUN_SCHEMA)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    pq.write_table(table, unfinished, compression="zstd")
    unfinished.replace(path)


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read what :func:`write_runs` wrote.

    Raises:
        RedteamError: a file is damaged or of another version.
    """
    runs = []
    for path in paths:
        try:
            runs += [Run(**row) for row in pq.read_table(path).to_pylist()]
        except (pa.ArrowInvalid, TypeError, OSError) as error:
            raise RedteamError(
                f"{path} cannot be read as runs of this version ({error}); remove it, and it is run again"
            ) from error
    return runs
