"""From runs to figures: one line for each stream and detector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from redteam.benchmark.runs import Run
from redteam.benchmark.statistics import NEVER, quantile

__all__ = ["Figures", "Summary", "summarise"]


@dataclass(frozen=True, slots=True)
class Figures:
    """A distribution of query counts, in which never is infinite.

    Attributes:
        median: of all runs.
        high: 95th percentile of all runs.
        found: runs in which it happened.
        runs: all of them.
    """

    median: float
    high: float
    found: int
    runs: int

    @classmethod
    def of(cls, counts: Sequence[int | None]) -> Figures:
        """Figures of counts in which None is never."""
        values = [NEVER if count is None else float(count) for count in counts]
        found = sum(count is not None for count in counts)
        return cls(quantile(values, 0.5), quantile(values, 0.95), found, len(counts))

    @property
    def rate(self) -> float:
        """Share of runs in which it happened."""
        return self.found / self.runs

    def __str__(self) -> str:
        """``32 / 36``, and the share of runs where it was not all of them."""
        if not self.found:
            return "never"
        text = f"{_count(self.median)} / {_count(self.high)}"
        return text if self.found == self.runs else f"{text} ({self.rate:.0%} of runs)"


@dataclass(frozen=True, slots=True)
class Summary:
    """All runs of one detector on one stream; the identifying fields are those of `Run`."""

    domain: str
    group: str
    name: str
    pool: str
    share: float
    accounts: int
    network: bool
    detector: str
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        """The stream in words."""
        text = f"{self.name} ← {self.pool}" if self.pool else self.name
        if self.accounts > 1:
            dealt = self.runs[0].queries // self.accounts
            text += f", {self.accounts:,} accounts × {dealt}, " + (
                "one network" if self.network else "no network"
            )
        return text if self.share in (0.0, 1.0) else f"{text}, share {self.share:.0%}"

    @property
    def slicing(self) -> str:
        """What sets the replicates apart."""
        return ", ".join(sorted({run.slicing for run in self.runs}))

    @property
    def suspected(self) -> Figures:
        """Queries to suspected; of a campaign pooled."""
        if self.group == "campaign":
            return Figures.of([run.suspected_pooled for run in self.runs])
        return Figures.of([run.suspected_at for run in self.runs])

    @property
    def alerted(self) -> Figures:
        """Queries to alerted; of a campaign pooled."""
        if self.group == "campaign":
            return Figures.of([run.alerted_pooled for run in self.runs])
        return Figures.of([run.alerted_at for run in self.runs])

    def median(self, *columns: str) -> float:
        """Median of a column, or of the ratio of two, over the runs that have it; NaN if none has."""
        rows = [[getattr(run, column) for column in columns] for run in self.runs]
        known = [row for row in rows if None not in row and 0 not in row[1:]]
        return quantile([row[0] / row[1] if len(row) > 1 else row[0] for row in known], 0.5)

    def alerted_within(self, queries: int) -> int:
        """Runs that were alerted within so many queries."""
        return sum(run.alerted_at is not None and run.alerted_at <= queries for run in self.runs)


_IDENTITY = ("domain", "group", "name", "pool", "share", "accounts", "network", "detector")


def summarise(runs: Iterable[Run]) -> list[Summary]:
    """One summary for each stream and detector, in the order in which they first occur."""
    grouped: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        key = tuple(getattr(run, name) for name in _IDENTITY)
        grouped.setdefault(key, []).append(run)
    return [
        Summary(**{name: getattr(same[0], name) for name in _IDENTITY}, runs=tuple(same))
        for same in grouped.values()
    ]


def _count(value: float) -> str:
    return "never" if value == NEVER else f"{value:,.0f}"
