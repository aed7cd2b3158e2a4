"""One batch of events through the evidence recursion, vectorised over subjects.

A client's evidence moves event by event, in the log's order. A group's moves on event-time buckets,
from counts that have no order (DESIGN §4 item 5). Both give the same bits however the events are cut
into batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from detector.episodes import next_stage
from detector.evidence import (
    GRID,
    EvidenceRule,
    evidence,
    exposure,
    ratios,
    run_bucket,
    start_weight,
    step,
    unspent,
)
from detector.rates import BenignRates
from detector.signals import FIRST_CHANNEL, LEVELS, Outcomes

__all__ = ["Null", "OnChange", "Turn", "advance_clients", "advance_groups"]


@dataclass(frozen=True, slots=True)
class Turn:
    """A subject's finding is about to change.

    Attributes:
        event: the event that makes it.
        slot: the subject's row.
        queries: its events so far.
        stage: where the finding goes.
        evidence: E.
        S: the recursion by channel, or of a group by out-of-domain level, shape (channels or levels, grid).
        unspent: start weight not spent.
        exposure: G by signal, shape (signals,); of a group out of domain alone.
        hits: outcomes X = 1 so far, in the order of S.
    """

    event: int
    slot: int
    queries: int
    stage: int
    evidence: float
    S: npt.NDArray[np.float64]
    unspent: float
    exposure: npt.NDArray[np.float64]
    hits: npt.NDArray[np.int64]


OnChange = Callable[[Turn], None]


@dataclass(frozen=True, slots=True)
class Null:
    """What the recursion tests against.

    Attributes:
        rule: α, cap, weights of the channels and the exposure that alerts.
        bound: π₀ by channel, shape (channels,).
        allowance: m₀ by signal, shape (signals,).
    """

    rule: EvidenceRule
    bound: npt.NDArray[np.float64]
    allowance: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rule: EvidenceRule, rates: BenignRates) -> Null:
        """The null of a baseline's benign rates."""
        return cls(rule, np.array(rates.bound), np.array(rates.allowance))

    @property
    def group_weights(self) -> tuple[float, ...]:
        """Weights of the out-of-domain levels alone: the only channels whose null holds for a group."""
        weights = self.rule.weights[: len(LEVELS)]
        return tuple(weight / sum(weights) for weight in weights)


def advance_clients(
    null: Null,
    rows: npt.NDArray[np.void],
    slots: npt.NDArray[np.intp],
    outcomes: Outcomes,
    on_change: OnChange,
) -> npt.NDArray[np.float64]:
    """Take events of clients, in the log's order.

    1. Clients are ordered by how many events they have, most first, so that round r, which takes the
       r-th event of every client that has one, works on a prefix of the arrays; events are laid out round
       by round.
    2. Each round spends a start weight and moves S and G: that alone is done one event after the other.
    3. E follows for all events at once, and who may change his finding is looked at client by client.
    4. The states are written back.

    Args:
        null: what is tested against.
        rows: table of :data:`~detector.subjects.STATE` records; changed in place.
        slots: row of each event's client, shape (n,).
        outcomes: of the events, duplicates already counted as misses.
        on_change: called for each change, in no particular order.

    Returns:
        Each client's evidence before each event, shape (n,).
    """
    if len(slots) == 0:
        return np.empty(0)
    order = np.argsort(slots, kind="stable")
    first = _run_starts(slots[order])
    counts = np.diff(np.append(first, len(slots)))
    most_first = np.argsort(-counts, kind="stable")
    mine = slots[order[first[most_first]]]
    counts, rank = counts[most_first], np.repeat(np.argsort(most_first), counts)
    turn = np.arange(len(slots)) - np.repeat(first, np.diff(np.append(first, len(slots))))
    layout = np.lexsort((rank, turn))
    at, client, turn = order[layout], rank[layout], turn[layout]
    rounds = np.append(0, np.cumsum(np.bincount(turn)))
    last = rounds[counts - 1] + np.arange(len(mine))

    starts = rows["starts"][mine][client] + turn
    remaining = unspent(starts + 1)
    S = ratios(outcomes.hits[at], outcomes.bounds[at])
    G = outcomes.hits[at][:, list(FIRST_CHANNEL)] - outcomes.allowances[at]
    _move(null, rows["S"][mine], rows["G"][mine], S, G, unspent(starts) - remaining, rounds)
    value = evidence(S, remaining, null.rule.weights)
    before = np.empty(len(slots))
    earlier = rounds[np.maximum(turn - 1, 0)] + client
    before[at] = np.where(turn == 0, rows["evidence"][mine][client], value[earlier])

    observed = outcomes.observed[at]
    queries = rows["queries"][mine][client] + turn + 1
    stage, exposed = rows["stage"][mine], G.max(axis=1)
    moving = np.zeros(len(mine), np.bool_)
    moving[client[value >= null.rule.threshold]] = True
    for one in np.flatnonzero(moving | (stage > 0)).tolist():
        events = rounds[: counts[one]] + one
        slot = int(mine[one])
        for i, moved in _stages(null.rule, value[events], exposed[events], int(stage[one])):
            event = events[i]
            rows["episodes"][slot] += stage[one] == 0
            stage[one] = moved
            on_change(
                Turn(
                    event=int(at[event]),
                    slot=slot,
                    queries=int(queries[event]),
                    stage=moved,
                    evidence=float(value[event]),
                    S=S[event],
                    unspent=float(remaining[event]),
                    exposure=G[event],
                    hits=rows["hits"][slot] + observed[events[: i + 1]].sum(axis=0),
                )
            )

    rows["S"][mine], rows["G"][mine] = S[last], G[last]
    rows["queries"][mine] += counts
    rows["starts"][mine] += counts
    np.add.at(rows["hits"], mine[client], observed)
    np.add.at(rows["linking_hits"], mine[client], observed[:, : len(LEVELS)] & (queries % 2 == 1)[:, None])
    rows["stage"][mine], rows["evidence"][mine], rows["exposure"][mine] = stage, value[last], exposed[last]
    rows["linking"][mine] = _linking(null, rows["queries"][mine], rows["linking_hits"][mine])
    return before


def _move(  # noqa: PLR0917 - two recursions side by side
    null: Null,
    S: npt.NDArray[np.float64],
    G: npt.NDArray[np.float64],
    ratio: npt.NDArray[np.float64],
    excess: npt.NDArray[np.float64],
    w: npt.NDArray[np.float64],
    rounds: npt.NDArray[np.intp],
) -> None:
    """Run S and G through the rounds, in place of the likelihood ratios and of the events' excess X − m₀."""
    for start, stop in pairwise(rounds.tolist()):
        m = stop - start
        S = step(S[:m], w[start:stop], ratio[start:stop], null.rule.ceiling)
        step_excess = excess[start:stop]
        step_excess += G[:m]
        G = np.maximum(step_excess, 0.0, out=step_excess)


def _stages(
    rule: EvidenceRule, value: npt.NDArray[np.float64], exposed: npt.NDArray[np.float64], stage: int
) -> Iterator[tuple[int, int]]:
    """The changes of one client's finding: which of its events made it, and where it went."""
    first = 0
    while first < len(value):
        moved = next_stage(rule, value[first:], exposed[first:], np.full(len(value) - first, stage))
        changed = np.flatnonzero(moved != stage)
        if len(changed) == 0:
            return
        stage = int(moved[changed[0]])
        first += int(changed[0]) + 1
        yield first - 1, stage


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
        hits: out-of-domain outcomes X for the group by level, shape (n, levels).
        counted: whether an event is evidence about the group, shape (n,); exposure counts all events.
        buckets: number of each event's event-time bucket, shape (n,).
        on_change: called for each change, in no particular order.
    """
    levels, weights = len(LEVELS), null.group_weights
    bound, allowance = null.bound[:levels], null.allowance[0]
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
        S = run_bucket(state["S"][run_of, :levels], w, bucket_hits, trials, bound, null.rule.ceiling)
        value = evidence(S, left, weights)
        G = exposure(state["G"][run_of, 0], foreign, queries, allowance)
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
                slot = int(mine[run])
                seen_hits = rows["hits"][slot, :levels] + all_hits[events[i] + 1] - all_hits[start[i]]
                on_change(
                    Turn(
                        event=int(order[events[i]]),
                        slot=slot,
                        queries=int(total[i]),
                        stage=int(moved[0]),
                        evidence=float(value[i]),
                        S=S[i],
                        unspent=float(left[i]),
                        exposure=G[i : i + 1],
                        hits=seen_hits,
                    )
                )

        last = np.cumsum(run_length[runs]) - 1
        rows["stage"][mine], rows["evidence"][mine], rows["exposure"][mine] = stage, value[last], G[last]
        rows["bucket_hits"][mine], rows["trials"][mine] = bucket_hits[last], trials[last]
        rows["bucket_foreign"][mine], rows["bucket_queries"][mine] = foreign[last], queries[last]
        rows["queries"][mine] = total[last]
        rows["hits"][mine, :levels] += all_hits[events[last] + 1] - all_hits[run_first[runs]]


def _linking(
    null: Null, queries: npt.NDArray[np.int64], hits: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """E-values of clients' odd-numbered queries as if looked at once, shape (m,); 0 where none hit."""
    values = np.zeros(len(queries))
    hit = np.flatnonzero(hits.any(axis=1))
    none = np.zeros((len(hit), hits.shape[1], len(GRID)))
    trials, bound = (queries[hit] + 1) // 2, null.bound[: hits.shape[1]]
    S = run_bucket(none, np.ones(len(hit)), hits[hit], trials, bound, null.rule.ceiling)
    values[hit] = evidence(S, np.zeros(len(hit)), null.group_weights)
    return values


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
    levels = len(LEVELS)
    rows["S"][closing, :levels] = run_bucket(
        old["S"][:, :levels], w, old["bucket_hits"], old["trials"], null.bound[:levels], null.rule.ceiling
    )
    rows["G"][closing, 0] = exposure(
        old["G"][:, 0], old["bucket_foreign"], old["bucket_queries"], null.allowance[0]
    )
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
