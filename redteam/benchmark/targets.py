"""What the detector has to reach, and whether it did. A missed target is printed as missed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from detector.evidence import EvidenceRule
from redteam.benchmark.runs import BANKEN
from redteam.benchmark.statistics import exceeds
from redteam.benchmark.summary import Figures, Summary

__all__ = ["Check", "checks_of"]

ALPHA = EvidenceRule().alpha
SIGNIFICANT = 0.05
"""Level of the exact test that honest clients are suspected more often than promised."""

MOST_LEAKED = 0.4
"""Agreement at the alert over final agreement, of out-of-domain attacks with a share of half or more."""


@dataclass(frozen=True, slots=True)
class Check:
    """One target held against the figures.

    Attributes:
        text: the target in words.
        met: whether it was reached.
    """

    text: str
    met: bool

    def __str__(self) -> str:
        return f"{self.text}: {'met' if self.met else '**missed**'}"


@dataclass(frozen=True, slots=True)
class Delays:
    """Most queries to suspected and to alerted, as (median, 95th percentile); None where none is set."""

    suspected: tuple[int, int | None] | None
    alerted: tuple[int, int | None]


_DRAWINGS = Delays((4, 8), (28, 32))
_SYNTHETIC = Delays((15, 40), (50, 90))
_KNOCKOFF = {
    "tiny-imagenet": Delays((5, 9), (32, 36)),
    "cifar100": Delays((12, 30), (50, 65)),
    "openclipart": _DRAWINGS,
    "drawings": _DRAWINGS,
}
_SHARES = {
    0.5: Delays((13, None), (60, None)),
    0.25: Delays((45, None), (125, None)),
    0.1: Delays((330, None), (360, None)),
}
_THIN = (0.05, 0.6, 3_000)  # share, of runs alerted, within queries
_BY_NAME = {
    "data-free-early": _DRAWINGS,
    "data-free-late": _DRAWINGS,
    "jbda": _SYNTHETIC,
    "t-rnd": _SYNTHETIC,
    "turncoat": Delays((12, 20), (28, 36)),
}
_POOLED = {True: 100, False: 500}  # pooled queries to the alert, with and without a common network
_LISTED = 0.95
_NO_PROMISE = ("detector-aware",)
_SCATTERED = 2  # queries of an account that is too small for any promise but the alert
_QUIET = ("health check", "junk on day one", "near-duplicate bursts")


_GUARDS = {
    "knockoff": Delays(None, (30, 60)),
    "data-free-early": Delays(None, (30, 60)),
    "turncoat": Delays(None, (40, 80)),
    "jbda": Delays(None, (60, 120)),
}
"""What the quick size is held to. A tenth of the pictures in five runs says whether something broke, not how
good it is."""

_GUARDED = ("i.i.d.", "class skew", "drift", *_QUIET)


def checks_of(summary: Summary, *, represented: frozenset[str], guards: bool = False) -> list[Check]:
    """Hold a summary of Banken's runs against its targets; empty where there are none.

    Args:
        summary: of one stream.
        represented: honest families whose like is in the trusted history.
        guards: hold it against the quick size's wide guards instead.
    """
    if summary.detector != BANKEN:
        return []
    if guards:
        return list(_guards(summary))
    kind = {"attack": _attack, "campaign": _campaign}.get(summary.group)
    return list(kind(summary) if kind else _honest(summary, represented))


def _guards(summary: Summary) -> Iterator[Check]:
    if summary.group == "campaign":
        yield from _campaign(summary)
    elif summary.group == "honest" and summary.name in _GUARDED:
        yield Check("none alerted", summary.alerted.found == 0)
    elif summary.name in _GUARDS and summary.share == 1:
        yield _delay("alerted", summary.alerted, *_GUARDS[summary.name].alerted)


def _attack(summary: Summary) -> Iterator[Check]:
    target = _BY_NAME.get(summary.name)
    if summary.name == "knockoff":
        target = _KNOCKOFF.get(summary.pool)
        if summary.share < 1:
            target = _SHARES.get(summary.share) if summary.pool == "tiny-imagenet" else None
    if target is not None:
        if target.suspected is not None:
            yield _delay("suspected", summary.suspected, *target.suspected)
        yield _delay("alerted", summary.alerted, *target.alerted)
    share, runs, within = _THIN
    if (summary.name, summary.pool, summary.share) == ("knockoff", "tiny-imagenet", share):
        found = summary.alerted_within(within) / len(summary.runs)
        yield Check(f"{runs:.0%} alerted within {within:,}", found >= runs)
    leaked = summary.median("agreement_at_alert", "agreement_final")
    out_of_domain = bool(summary.pool) or summary.name.startswith("data-free")
    if out_of_domain and summary.name not in _NO_PROMISE and summary.share >= 0.5 and not math.isnan(leaked):
        yield Check(f"agreement at the alert ≤ {MOST_LEAKED:g} of the final one", leaked <= MOST_LEAKED)


def _campaign(summary: Summary) -> Iterator[Check]:
    if summary.share < 1:
        return
    each = summary.runs[0].queries // summary.accounts
    if each <= _SCATTERED:
        yield Check("alerted", summary.alerted.found == len(summary.runs))
        return
    within = _POOLED[summary.network]
    yield Check(f"alerted within {within} pooled queries", summary.alerted.high <= within)
    for column in ("recall", "precision"):
        yield Check(f"{column} ≥ {_LISTED:g}", summary.median(column) >= _LISTED)


def _honest(summary: Summary, represented: frozenset[str]) -> Iterator[Check]:
    suspected, alerted = summary.suspected, summary.alerted
    if summary.name in represented:
        chance = exceeds(suspected.found, suspected.runs, ALPHA)
        yield Check(f"suspected ≤ α = {ALPHA:g} (exact test, p = {chance:.2g})", chance >= SIGNIFICANT)
    if summary.name in represented or summary.name in _QUIET:
        yield Check("none alerted", alerted.found == 0)


def _delay(event: str, figures: Figures, median: int, high: int | None) -> Check:
    if high is None:
        return Check(f"{event} ≤ {median} (median)", figures.median <= median)
    return Check(f"{event} ≤ {median} / {high}", figures.median <= median and figures.high <= high)
