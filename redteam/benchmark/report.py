"""The benchmark's tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from redteam.benchmark.runs import BANKEN
from redteam.benchmark.statistics import clopper_pearson, exceeds
from redteam.benchmark.summary import Figures, Summary
from redteam.benchmark.targets import ALPHA, Check, checks_of

__all__ = ["report", "table"]


Verdicts = Mapping[Summary, list[Check]]


def report(
    domain: str,
    summaries: Sequence[Summary],
    represented: frozenset[str],
    facts: Iterable[str],
    *,
    guards: bool = False,
) -> str:
    """Everything that was found on one domain.

    Args:
        domain: its name.
        summaries: of all streams and detectors on it.
        represented: honest families whose like is in the trusted history.
        facts: about the domain and the run, one sentence each.
        guards: hold the figures against the quick size's guards instead of the targets.
    """
    verdicts = {summary: checks_of(summary, represented=represented, guards=guards) for summary in summaries}
    ours = [summary for summary in summaries if summary.detector == BANKEN]
    sections = {
        "Attacks by one client": _attacks([s for s in ours if s.group == "attack"], verdicts),
        "Campaigns over many accounts": _campaigns([s for s in ours if s.group == "campaign"], verdicts),
        "Honest clients": _honest([s for s in ours if s.group == "honest"], verdicts, represented),
        "Published detectors on the same streams": _rivals(summaries),
        "Targets": _targets(verdicts),
    }
    parts = [f"# {domain}", "\n".join(f"- {fact}" for fact in (*facts, *_NOTES))]
    parts += [f"## {title}\n\n{body}" for title, body in sections.items() if body]
    return "\n\n".join(parts) + "\n"


_NOTES = (
    "Counts are of the client's own queries, median / 95th percentile over runs; a run in which it never "
    "happened counts as infinitely long. Of a turncoat, JBDA and T-RND: queries after the turn or the seeds.",
    "The headline is *alerted*: certain, and enough was taken to matter.",
    "*Replicates* says what sets runs apart: disjoint pictures (overlapping where a run went beyond its part "
    "of the pool), a bootstrap of the whole pool for each run, or pictures made anew. Intervals are exact "
    "(Clopper and Pearson), at 95 %, over those runs.",
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; empty where it has no rows."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *lines])


def _attacks(summaries: list[Summary], verdicts: Verdicts) -> str:
    return table(
        ("stream", "suspected", "alerted", "mostly by", "agreement at the alert", "final", "ratio",
         "progress", "runs", "replicates", "target"),
        (
            (
                summary.title,
                str(summary.suspected),
                f"**{summary.alerted}**",
                _mostly(summary),
                _share(summary.median("agreement_at_alert")),
                _share(summary.median("agreement_final")),
                _plain(summary.median("agreement_at_alert", "agreement_final")),
                _share(summary.median("progress_at_alert")),
                str(len(summary.runs)),
                summary.slicing,
                _verdict(verdicts[summary]),
            )
            for summary in summaries
        ),
    )  # fmt: skip


def _campaigns(summaries: list[Summary], verdicts: Verdicts) -> str:
    return table(
        ("campaign", "suspected, pooled", "alerted, pooled", "first by", "recall", "precision", "runs",
         "replicates", "target"),
        (
            (
                summary.title,
                str(summary.suspected),
                f"**{summary.alerted}**",
                _mostly(summary),
                _plain(summary.median("recall")),
                _plain(summary.median("precision")),
                str(len(summary.runs)),
                summary.slicing,
                _verdict(verdicts[summary]),
            )
            for summary in summaries
        ),
    )  # fmt: skip


def _honest(summaries: list[Summary], verdicts: Verdicts, represented: frozenset[str]) -> str:
    return table(
        ("family", "in the trusted history", "queries of each", "ever suspected", "p", "ever alerted", "by",
         "clients", "replicates", "target"),
        (
            (
                summary.title,
                "yes" if summary.name in represented else "no",
                f"{summary.runs[0].queries:,}",
                _ever(summary.suspected),
                f"{exceeds(summary.suspected.found, summary.suspected.runs, ALPHA):.2g}",
                f"**{_ever(summary.alerted)}**",
                _mostly(summary),
                str(len(summary.runs)),
                summary.slicing,
                _verdict(verdicts[summary]),
            )
            for summary in summaries
        ),
    )  # fmt: skip


def _rivals(summaries: Sequence[Summary]) -> str:
    """Alerts of each detector by stream; of an honest family the share of clients with one."""
    detectors = list(dict.fromkeys(summary.detector for summary in summaries))
    if len(detectors) == 1:
        return ""
    by_stream: dict[str, dict[str, Summary]] = {}
    for summary in summaries:
        by_stream.setdefault(f"{summary.group}: {summary.title}", {})[summary.detector] = summary
    return table(
        ("stream", *detectors),
        (
            (stream, *(_alarm(found[detector]) if detector in found else "" for detector in detectors))
            for stream, found in by_stream.items()
            if len(found) > 1
        ),
    )


def _alarm(summary: Summary) -> str:
    if summary.group == "honest":
        return f"{summary.alerted.rate:.1%} of {summary.alerted.runs}"
    if summary.group == "campaign":
        return f"recall {_plain(summary.median('recall'))}, precision {_plain(summary.median('precision'))}"
    return str(summary.alerted)


def _targets(verdicts: Verdicts) -> str:
    checks = [
        (f"{summary.group}: {summary.title}", check) for summary, found in verdicts.items() for check in found
    ]
    if not checks:
        return ""
    missed = [(stream, check.text) for stream, check in checks if not check.met]
    counted = f"{len(checks) - len(missed)} of {len(checks)} met."
    return "\n\n".join(part for part in (counted, table(("stream", "missed"), missed)) if part)


def _verdict(checks: list[Check]) -> str:
    return "; ".join(map(str, checks))


def _mostly(summary: Summary) -> str:
    """What led most alerts."""
    named = [run.alerted_by for run in summary.runs if run.alerted_by]
    return max(sorted(set(named)), key=named.count) if named else ""


def _ever(figures: Figures) -> str:
    low, high = clopper_pearson(figures.found, figures.runs)
    return f"{figures.found} ({low:.2%} to {high:.2%})"


def _plain(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1%}"
