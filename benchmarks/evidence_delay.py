"""How soon the evidence contract suspects and alerts, on simulated streams of outcomes.

No images and no encoder: outcomes are drawn at stated rates, so the table shows what the recursion alone
can do and what it costs. Prints the tables of docs/evidence.md, in about fifteen seconds on one core:

    python -m benchmarks.evidence_delay
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from detector.evidence import GRID, EvidenceRule, evidence, exposure, ratios, start_weight, step, unspent

RULE = EvidenceRule(weights=(0.5, 0.5))
BOUND = np.array([0.12, 0.03])  # π₀ at τ = 0.05 and 0.01: the cautious defaults
MEANS = np.array([[0.05], [0.07]])  # m₀ at τ = 0.05: the honest mean, and the mean with some slack
HONEST = (0.05, 0.01)  # share of an honest client's queries with p <= τ
FOREIGN = (0.95, 0.90)  # the same of foreign queries
SEED = 20261122


@dataclass(frozen=True, slots=True)
class Phase:
    """So many queries, of which ``share`` is foreign and the rest hit at the ``base`` rates."""

    queries: int
    share: float = 0.0
    foreign: tuple[float, float] = FOREIGN
    base: tuple[float, float] = HONEST


@dataclass(frozen=True, slots=True)
class Outcome:
    """Queries until each first happened, counted from 1, or 0 for never; shape (runs,).

    Being alerted and being exposed is counted once for each of MEANS; shape (2, runs).
    """

    suspected: np.ndarray
    lapsed: np.ndarray
    alerted: np.ndarray
    exposed: np.ndarray


def simulate(phases: list[Phase], runs: int, since: int = 0) -> Outcome:
    """Follows ``runs`` independent clients through the phases; the clock starts after ``since`` queries."""
    rng = np.random.default_rng(SEED)
    S, G = np.zeros((runs, 2, GRID.size)), np.zeros((2, runs))
    suspected, lapsed = np.zeros((2, runs), dtype=np.int64)
    alerted, exposed = np.zeros((2, 2, runs), dtype=np.int64)
    one, t = np.ones(runs, dtype=np.int64), 0
    for phase in phases:
        for _ in range(phase.queries):
            t += 1
            is_foreign = rng.random((runs, 1)) < phase.share
            hits = rng.random((runs, 1)) < np.where(is_foreign, phase.foreign, phase.base)
            S = step(S, np.full(runs, start_weight(t)), ratios(hits, BOUND), RULE.ceiling)
            G = exposure(G, hits[:, 0], one, MEANS)
            if t <= since:
                continue
            E = evidence(S, np.full(runs, unspent(t)), RULE.weights)
            sure, much = np.greater_equal(E, RULE.threshold), np.greater_equal(G, RULE.alert_exposure)
            for first, now in ((suspected, sure), (alerted, sure & much), (exposed, much), (lapsed, E < 1.0)):
                first[now & (first == 0)] = t - since
    return Outcome(suspected, lapsed, alerted, exposed)


def delay(at: np.ndarray) -> str:
    """Median and 5–95 % range of the runs that got there, and their share if not all did."""
    reached = at[at > 0]
    if reached.size == 0:
        return "never"
    low, middle, high = np.quantile(reached, [0.05, 0.5, 0.95], method="inverted_cdf")
    share = "" if reached.size == at.size else f" in {reached.size / at.size:.1%}"
    return f"{middle:.0f} ({low:.0f}–{high:.0f}){share}"


def main() -> None:
    began = time.perf_counter()
    print("| stream | suspected after | alerted after, m₀ = 0.05 | m₀ = 0.07 |\n|---|---|---|---|")
    for name, phases, runs, since in (
        ("all foreign", [Phase(400, 1.0)], 500, 0),
        ("half foreign", [Phase(400, 0.5)], 500, 0),
        ("25 % foreign", [Phase(1000, 0.25)], 500, 0),
        ("10 % foreign", [Phase(3000, 0.10)], 500, 0),
        ("5 % foreign", [Phase(3000, 0.05)], 500, 0),
        ("all near the domain (hits 60 % / 35 %)", [Phase(1000, 1.0, (0.6, 0.35))], 500, 0),
        ("all foreign after 20,000 honest", [Phase(20_000), Phase(400, 1.0)], 200, 20_000),
        ("25 % foreign after 20,000 honest", [Phase(20_000), Phase(1000, 0.25)], 200, 20_000),
    ):
        outcome = simulate(phases, runs, since)
        print(f"| {name} | {delay(outcome.suspected)} | " + " | ".join(map(delay, outcome.alerted)) + " |")

    print("\nm₀ = 0.05 and then 0.07 in the last four columns:\n")
    print("| honest stream | suspected | alerted | alerted | exposure ≥ 25 | exposure ≥ 25 |")
    print("|---|---|---|---|---|---|")
    for name, phases in (
        ("5,000 queries at the mean rates", [Phase(5_000)]),
        ("20,000 queries at the mean rates", [Phase(20_000)]),
        ("20,000 queries at exactly π₀", [Phase(20_000, base=(0.12, 0.03))]),
        ("18 foreign, then 5,000 at the mean rates", [Phase(18, 1.0), Phase(5_000)]),
        ("the same after 20,000 at the mean rates", [Phase(20_000), Phase(18, 1.0), Phase(5_000)]),
    ):
        outcome = simulate(phases, runs=500)
        ever = (outcome.suspected, *outcome.alerted, *outcome.exposed)
        print(f"| {name} | " + " | ".join(f"{np.mean(at > 0):.1%}" for at in ever) + " |")

    stopped = simulate([Phase(100, 1.0), Phase(6_000)], runs=200, since=100)
    print(f"\nAfter 100 foreign queries, E < 1 again after {delay(stopped.lapsed)} honest ones.")
    print(f"Took {time.perf_counter() - began:.0f} s.")


if __name__ == "__main__":
    main()
