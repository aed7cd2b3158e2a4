"""The benchmark's pictures. matplotlib is an extra: without it the tables are made all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from redteam.benchmark.runs import BANKEN
from redteam.benchmark.statistics import NEVER, clopper_pearson
from redteam.benchmark.summary import Summary
from redteam.benchmark.targets import ALPHA
from redteam.errors import RedteamError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PlotsError", "draw"]

_SUSPECTED, _ALERTED = "#c9a227", "#b02a30"
_ROW = 0.32  # inches


class PlotsError(RedteamError):
    """Plots cannot be drawn, as matplotlib is not installed."""


def draw(folder: Path, domain: str, summaries: Sequence[Summary]) -> list[Path]:
    """Draw one domain's plots as PNG.

    Args:
        folder: to write to; made if missing.
        domain: begins the files' names.
        summaries: of all streams and detectors on the domain.

    Returns:
        The files that were written: those for which there was something to draw.

    Raises:
        PlotsError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise PlotsError(
            "plots need matplotlib: pip install 'banken[redteam]', then run the same command again; "
            "finished runs are kept"
        ) from error
    ours = [summary for summary in summaries if summary.detector == BANKEN]
    attacks = [s for s in ours if s.group == "attack"]
    plots: dict[str, tuple[list[Summary], Callable[[Axes, list[Summary]], None]]] = {
        "delays": (attacks, _delays),
        "honest": ([s for s in ours if s.group == "honest"], _honest),
        "agreement": ([s for s in attacks if s.median("agreement_at_alert") >= 0], _agreement),
        "shares": (_grid(ours), _shares),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (chosen, plot) in plots.items():
        if not chosen:
            continue
        figure = Figure(figsize=(9, 1.6 + _ROW * max(len(chosen), 5)), layout="constrained")
        axes = figure.subplots()
        plot(axes, chosen)
        path = folder / f"{domain}-{name}.png"
        figure.savefig(path, dpi=110, metadata={"Software": None})
        written.append(path)
    return written


def _delays(axes: Axes, summaries: list[Summary]) -> None:
    """Queries to suspected and alerted: median, and a line to the 95th percentile."""
    rows = np.arange(len(summaries))
    for offset, colour, event in ((-0.15, _SUSPECTED, "suspected"), (0.15, _ALERTED, "alerted")):
        figures = [getattr(summary, event) for summary in summaries]
        ends = max(summary.runs[0].queries for summary in summaries)
        middle = [min(max(figure.median, 1), ends) for figure in figures]
        high = [min(max(figure.high, 1), ends) for figure in figures]
        axes.hlines(rows + offset, middle, high, color=colour, linewidth=1.5)
        axes.scatter(
            [at if figure.median < NEVER else np.nan for at, figure in zip(middle, figures, strict=True)],
            rows + offset,
            color=colour,
            s=18,
            label=f"{event}: median to 95th percentile",
        )
        never = [row for row, figure in zip(rows, figures, strict=True) if figure.high == NEVER]
        axes.scatter([ends] * len(never), np.array(never) + offset, color=colour, marker=">", s=30)
    axes.set_xscale("log")
    axes.set_xlabel("the client's queries; an arrow where more than 5 % of runs never got there")
    _name_rows(axes, summaries)


def _honest(axes: Axes, summaries: list[Summary]) -> None:
    """Ever suspected and ever alerted with exact intervals, against the promise."""
    rows = np.arange(len(summaries))
    for offset, colour, event in ((-0.15, _SUSPECTED, "suspected"), (0.15, _ALERTED, "alerted")):
        figures = [getattr(summary, event) for summary in summaries]
        bounds = np.array([clopper_pearson(figure.found, figure.runs) for figure in figures])
        axes.hlines(rows + offset, bounds[:, 0], bounds[:, 1], color=colour, linewidth=1.5)
        axes.scatter([f.rate for f in figures], rows + offset, color=colour, s=18, label=f"ever {event}")
    axes.axvline(ALPHA, color="black", linestyle=":", label=f"α = {ALPHA:g}")
    axes.set_xscale("symlog", linthresh=ALPHA)
    axes.set_xlim(left=0)
    axes.set_xlabel("share of clients, with its exact 95 % interval")
    _name_rows(axes, summaries)


def _agreement(axes: Axes, summaries: list[Summary]) -> None:
    """What a thief holds at the alert, and what it would have held."""
    rows = np.arange(len(summaries))
    for column, colour, label in (
        ("agreement_final", "0.75", "if nobody had noticed"),
        ("agreement_at_alert", _ALERTED, "at the alert"),
    ):
        axes.barh(
            rows, [summary.median(column) for summary in summaries], color=colour, label=label, height=0.6
        )
    axes.set_xlim(0, 1)
    axes.set_xlabel("agreement with the victim (median)")
    _name_rows(axes, summaries)


def _grid(summaries: Sequence[Summary]) -> list[Summary]:
    """Streams of one thief and pool that were run over several shares and numbers of accounts."""
    campaigns = [s for s in summaries if s.group == "campaign" and not s.network]
    if not campaigns:
        return []
    name, pool = campaigns[0].name, campaigns[0].pool
    return [
        s for s in summaries if (s.name, s.pool, s.network) == (name, pool, False) and s.group != "honest"
    ]


def _shares(axes: Axes, summaries: list[Summary]) -> None:
    """Pooled queries to the alert, by attacker share and number of accounts."""
    shares = sorted({summary.share for summary in summaries}, reverse=True)
    accounts = sorted({summary.accounts for summary in summaries})
    median = np.full((len(shares), len(accounts)), np.nan)
    for summary in summaries:
        place = shares.index(summary.share), accounts.index(summary.accounts)
        median[place] = summary.alerted.median
    shown = np.where(np.isinf(median), np.nan, np.log10(np.maximum(median, 1)))
    axes.imshow(shown, cmap="YlOrRd", aspect="auto", vmin=1, vmax=4)
    for row, column in np.ndindex(*median.shape):
        value = median[row, column]
        text = "" if np.isnan(value) else "never" if np.isinf(value) else f"{value:,.0f}"
        axes.text(column, row, text, ha="center", va="center")
    axes.set_xticks(range(len(accounts)), [f"{count:,}" for count in accounts])
    axes.set_yticks(range(len(shares)), [f"{share:.0%}" for share in shares])
    axes.set_xlabel("accounts, without a common network")
    axes.set_ylabel("attacker share")
    axes.set_title(f"pooled queries to the alert (median): {summaries[0].name} ← {summaries[0].pool}")


def _name_rows(axes: Axes, summaries: list[Summary]) -> None:
    axes.set_yticks(range(len(summaries)), [summary.title for summary in summaries])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize="small")
