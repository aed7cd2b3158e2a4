"""One batch of events through the evidence recursion, vectorised over subjects.

A client's evidence moves event by event, in the log's order. A group's moves on event-time buckets,
from counts that have no order (DESIGN §4 item 5). Both give the same bits however the events are cut
into batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detector.episodes import next_stage
from detector.evidence import EvidenceRule, evidence, exposure, run_bucket, start_weight, step, unspent
from detector.rates import BenignRates

__all__ = ["Null", "OnChange", "advance_clients", "advance_groups"]

OnChange = Callable[[int, int, int, int, float, float], None]
"""Called when a subject's finding changes, with: event, slot, the subject's query count, new stage, E, G."""


@dataclass(frozen=True, slots=True)
class Null:
    """What the recursion tests against.

    Attributes:
        rule: α, cap, weights of the levels and the exposure that alerts.
        bound: π₀ by level, shape (levels,).
        allowance: m₀ at the first level, on which exposure is counted.
    """

    rule: EvidenceRule
    bound: npt.NDArray[np.float64]
    allowance: float

    @classmethod
    def of(cls, rule: EvidenceRule, rates: BenignRates) -> Null:
        """The null of a baseline's benign rates."""
        return cls(rule, np.array(rates.bound), rates.allowance[0])


def advance_clients(
    null: Null,
    rows: npt.NDArray[np.void],
    slots: npt.NDArray[np.intp],
    hits: npt.NDArray[np.bool_],
    on_change: OnChange,
) -> npt.NDArray[np.float64]:
    """Take events of clients, in the log's order.

    1. Clients are ordered by how many events they have, most first, so that round r, which takes the
       r-th event of every client that has one, works on a prefix of the arrays.
    2. Each round spends a start weight, moves S and G, and compares E and G with where the client's
       finding stands.
    3. The states are written back.

    Args:
        null: what is tested against.
        rows: table of :data:`~detector.subjects.STATE` records; changed in place.
        slots: row of each event's client, shape (n,).
        hits: outcomes X, duplicates already counted as misses, shape (n, levels).
        on_change: called for each change, in no particular order.

    Returns:
        Each client's evidence before each event, shape (n,).
    """
    before = np.empty(len(slots))
    order = np.argsort(slots, kind="stable")
    first = _run_starts(slots[order])
    counts = np.diff(np.append(first, len(slots)))
    most_first = np.argsort(-counts, kind="stable")
    first, counts = first[most_first], counts[most_first]
    mine = slots[order[first]]

    S, G, queries, starts = (rows[name][mine] for name in ("S", "G", "queries", "starts"))
    stage, episodes, total_hits = (rows[name][mine] for name in ("stage", "episodes", "hits"))
    left = unspent(starts)
    value = rows["evidence"][mine]
    for turn in range(int(counts[0]) if len(counts) else 0):
        m = int(np.count_nonzero(counts > turn))
        event = order[first[:m] + turn]
        before[event] = value[:m]
        outcome = hits[event]
        starts[:m] += 1
        queries[:m] += 1
        total_hits[:m] += outcome
        remaining = unspent(starts[:m])
        S[:m] = step(S[:m], left[:m] - remaining, outcome, null.bound, null.rule.ceiling)
        left[:m] = remaining
        value[:m] = evidence(S[:m], remaining, null.rule.level_weights)
        G[:m] = exposure(G[:m], outcome[:, 0], np.ones(m, np.int64), null.allowance)
        moved = next_stage(null.rule, value[:m], G[:m], stage[:m])
        for i in np.flatnonzero(moved != stage[:m]).tolist():
            episodes[i] += stage[i] == 0
            rows["episodes"][mine[i]] = episodes[i]
            at, slot = int(event[i]), int(mine[i])
            on_change(at, slot, int(queries[i]), int(moved[i]), float(value[i]), float(G[i]))
        stage[:m] = moved

    rows["S"][mine], rows["G"][mine], rows["queries"][mine], rows["starts"][mine] = S, G, queries, starts
    rows["stage"][mine], rows["hits"][mine] = stage, total_hits
    rows["evidence"][mine], rows["exposure"][mine] = value, G
    return before


def advance_groups(  # noqa: PLR0917 - the arguments of advance_clients and two more
    null: Null,
    rows: npt.NDArray[np.void],
    slots: npt.NDArray[np.intp],
    hits: npt.NDArray[np.bool_],
    counted: npt.NDArray[np.bool_],
    buckets: npt.NDArray[np.int64],
    on_change: OnChange,
) -> None:
    """Take events of groups of one kind.

    1. Each group's events are cut into runs of one bucket; a late event goes to the bucket that is open.
    2. Round r takes the r-th run of every group that has one: where the run begins a new bucket, the
       open one is closed into S and G first.
    3. E and G after every event follow from the counts so far; they are compared with where the group's
       finding stands, and the counts are written back.

    Args:
        null: what is tested against.
        rows: table of :data:`~detector.subjects.STATE` records; changed in place.
        slots: row of each event's group, shape (n,).
        hits: outcomes X for the group, shape (n, levels).
        counted: whether an event is evidence about the group, shape (n,); exposure counts all events.
        buckets: number of each event's event-time bucket, shape (n,).
        on_change: called for each change, in no particular order.
    """
    order = np.argsort(slots, kind="stable")
    slots, hits, counted, buckets = slots[order], hits[order], counted[order], buckets[order]
    group_first = _run_starts(slots)
    group_of = np.repeat(np.arange(len(group_first)), np.diff(np.append(group_first, len(slots))))
    buckets = np.maximum(buckets, np.maximum(rows["bucket"][slots], 0))
    lift = group_of * (int(buckets.max(initial=0)) + 1)
    buckets = np.maximum.accumulate(buckets + lift) - lift

    run_first = np.flatnonzero(np.append(True, (np.diff(slots) != 0) | (np.diff(buckets) != 0))[: len(slots)])
    run_length = np.diff(np.append(run_first, len(slots)))
    turn_of_run = np.arange(len(run_first)) - np.searchsorted(run_first, group_first)[group_of[run_first]]
    evidence_hits, trials_so_far, all_hits = (
        _running(hits & counted[:, None]),
        _running(counted),
        _running(hits),
    )
    for turn in range(int(turn_of_run.max(initial=-1)) + 1):
        runs = np.flatnonzero(turn_of_run == turn)
        mine = slots[run_first[runs]]
        _open_buckets(null, rows, mine, buckets[run_first[runs]])
        events = np.flatnonzero(np.repeat(turn_of_run == turn, run_length))
        run_of = np.repeat(np.arange(len(runs)), run_length[runs])
        state = rows[mine]
        start = run_first[runs][run_of]
        bucket_hits = state["bucket_hits"][run_of] + evidence_hits[events + 1] - evidence_hits[start]
        trials = state["trials"][run_of] + trials_so_far[events + 1] - trials_so_far[start]
        foreign = state["bucket_foreign"][run_of] + all_hits[events + 1, 0] - all_hits[start, 0]
        queries = state["bucket_queries"][run_of] + events - start + 1
        left = unspent(state["starts"])[run_of]
        w = start_weight(state["starts"])[run_of]
        S = run_bucket(state["S"][run_of], w, bucket_hits, trials, null.bound, null.rule.ceiling)
        value = evidence(S, left, null.rule.level_weights)
        G = exposure(state["G"][run_of], foreign, queries, null.allowance)
        total = state["queries"][run_of] + events - start + 1

        stage = state["stage"]
        moving = np.zeros(len(runs), np.bool_)
        moving[run_of[next_stage(null.rule, value, G, stage[run_of]) != stage[run_of]]] = True
        for i in np.flatnonzero(moving[run_of]).tolist():
            run = run_of[i]
            moved = next_stage(null.rule, value[i : i + 1], G[i : i + 1], stage[run : run + 1])
            if moved[0] != stage[run]:
                rows["episodes"][mine[run]] += stage[run] == 0
                stage[run] = moved[0]
                at = int(order[events[i]])
                on_change(at, int(mine[run]), int(total[i]), int(moved[0]), float(value[i]), float(G[i]))

        last = np.cumsum(run_length[runs]) - 1
        rows["stage"][mine], rows["evidence"][mine], rows["exposure"][mine] = stage, value[last], G[last]
        rows["bucket_hits"][mine], rows["trials"][mine] = bucket_hits[last], trials[last]
        rows["bucket_foreign"][mine], rows["bucket_queries"][mine] = foreign[last], queries[last]
        rows["queries"][mine] = total[last]
        rows["hits"][mine] += all_hits[events[last] + 1] - all_hits[run_first[runs]]


def _open_buckets(
    null: Null, rows: npt.NDArray[np.void], mine: npt.NDArray[np.intp], buckets: npt.NDArray[np.int64]
) -> None:
    """Close the open bucket of every group whose events have moved on, and open the next one."""
    ahead = rows["bucket"][mine] != buckets
    mine, buckets = mine[ahead], buckets[ahead]
    state = rows[mine]
    begun = state["bucket"] >= 0
    closing, old = mine[begun], state[begun]
    w = start_weight(old["starts"])
    rows["S"][closing] = run_bucket(
        old["S"], w, old["bucket_hits"], old["trials"], null.bound, null.rule.ceiling
    )
    rows["G"][closing] = exposure(old["G"], old["bucket_foreign"], old["bucket_queries"], null.allowance)
    for name in ("bucket_hits", "trials", "bucket_foreign", "bucket_queries"):
        rows[name][mine] = 0
    rows["bucket"][mine] = buckets
    rows["starts"][mine] += 1


def _running(values: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Sums of ``values[:i]`` for every i, shape (n + 1, …)."""
    sums: npt.NDArray[np.int64] = np.zeros((len(values) + 1, *values.shape[1:]), np.int64)
    np.cumsum(values, axis=0, out=sums[1:])
    return sums


def _run_starts(values: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Where each run of equal values starts."""
    return np.flatnonzero(np.append(True, np.diff(values) != 0)[: len(values)])
