"""Coverage: what is new to a client, what it had left, and whether the null keeps α."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from detector.coverage import MOST_CELLS, enter_cells, unvisited_cells, visited_cells
from detector.evidence import EvidenceRule
from detector.rates import DEFAULT_RATES
from detector.recursion import Null, Turn, advance_clients
from detector.signals import CHANNELS, SIGNALS, Outcomes, Signal
from detector.subjects import CLIENT, SubjectKey, SubjectTable

COVERAGE = next(i for i, channel in enumerate(CHANNELS) if channel.signal is Signal.COVERAGE)
ALPHA = 0.1
RULE = EvidenceRule(alpha=ALPHA, weights=(1e-12, 0.0, 0.0, 1.0, 0.0, 0.0))
"""Coverage alone; groups, of which there are none here, take a share of out of domain."""
WRONG_REFUSAL = 1e-4

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def masses(cells: int, seed: int = 0) -> Ints:
    """Cells of very different weight."""
    return 1 + np.random.default_rng([seed, 7]).integers(0, 40, cells)


def one_by_one(
    visited: list[set[int]], clients: list[int], cells: list[int], inside: list[bool], mass: Ints
) -> tuple[list[bool], list[float]]:
    """The definition, with sets."""
    entered, left = [], []
    for client, cell, native in zip(clients, cells, inside, strict=True):
        left.append(1 - sum(int(mass[seen]) for seen in visited[client]) / int(mass.sum()))
        entered.append(native and cell not in visited[client])
        if native:
            visited[client].add(cell)
    return entered, left


@pytest.mark.parametrize("cells", [1, 37, 64, 65, MOST_CELLS])
def test_entries_and_unvisited_mass_are_those_of_the_definition(cells: int) -> None:
    rng = np.random.default_rng(cells)
    n, mass = 900, masses(cells)
    slots = rng.integers(0, 9, n) * 3
    where, inside = rng.integers(0, cells, n), rng.random(n) < 0.8
    bits = np.zeros((30, 4), np.uint64)
    entered, left = enter_cells(bits, slots, where, inside, mass)
    sets: list[set[int]] = [set() for _ in range(30)]
    expected, expected_left = one_by_one(sets, slots.tolist(), where.tolist(), inside.tolist(), mass)
    assert entered.tolist() == expected
    np.testing.assert_allclose(left, expected_left, rtol=1e-12, atol=1e-12)
    assert [set(np.flatnonzero(row).tolist()) for row in visited_cells(bits, cells)] == sets


def test_the_cut_into_batches_changes_no_bit() -> None:
    rng = np.random.default_rng(1)
    n, mass = 600, masses(200)
    slots, where = rng.integers(0, 5, n), rng.integers(0, 200, n)
    inside = rng.random(n) < 0.9
    whole_bits = np.zeros((5, 4), np.uint64)
    entered, left = enter_cells(whole_bits, slots, where, inside, mass)
    for seed in range(4):
        bits = np.zeros((5, 4), np.uint64)
        at = range(1, n) if seed == 0 else np.random.default_rng(seed).integers(1, n, 12)
        parts = [
            enter_cells(bits, slots[part], where[part], inside[part], mass)
            for part in np.split(np.arange(n), sorted(set(at)))
        ]
        assert np.concatenate([part[0] for part in parts]).tobytes() == entered.tobytes()
        assert np.concatenate([part[1] for part in parts]).tobytes() == left.tobytes()
        assert bits.tobytes() == whole_bits.tobytes()


def test_what_is_foreign_visits_nothing() -> None:
    bits = np.zeros((1, 4), np.uint64)
    slots = np.zeros(3, np.intp)
    entered, left = enter_cells(bits, slots, np.arange(3), np.array([False, True, False]), masses(3))
    assert entered.tolist() == [False, True, False]
    assert left[0] == left[1] == 1.0
    assert visited_cells(bits, 3).tolist() == [[False, True, False]]


def test_an_empty_batch_is_nothing() -> None:
    none = np.zeros(0, np.int64)
    entered, left = enter_cells(np.zeros((1, 4), np.uint64), none, none, none.astype(bool), masses(4))
    assert entered.shape == left.shape == (0,)


def nobody(turn: Turn) -> None:
    """These findings are of no interest."""


@dataclass
class Judge:
    """Clients' coverage evidence as the monitor drives it; mutants override a line.

    Attributes:
        clients: how many.
        factor: c that the bound is set to.
    """

    clients: int
    factor: float
    table: SubjectTable = field(default_factory=SubjectTable)

    def __post_init__(self) -> None:
        self.slots = self.table.slots([SubjectKey(CLIENT, str(i)) for i in range(self.clients)])
        self.null = Null.of(RULE, DEFAULT_RATES)

    def bound(self, left: Floats, left_after: Floats) -> Floats:
        return self.factor * left

    def take(self, cells: Ints, mass: Ints, inside: npt.NDArray[np.bool_] | None = None) -> Floats:
        """One event of every client; their evidence after it."""
        n = self.clients
        native = np.ones(n, np.bool_) if inside is None else inside
        bits = self.table.rows["visited"]
        entered, left = enter_cells(bits, self.slots, cells, native, mass)
        _, left_after = enter_cells(bits, self.slots, cells, np.zeros(n, np.bool_), mass)
        hits, bounds = np.ones((n, len(CHANNELS)), np.bool_), np.ones((n, len(CHANNELS)))
        hits[:, COVERAGE] = entered
        bounds[:, COVERAGE] = np.clip(self.bound(left, left_after), 1e-6, 1.0)
        outcomes = Outcomes(hits, bounds, np.ones((n, len(SIGNALS))))
        advance_clients(self.null, self.table.rows, self.slots, outcomes, nobody)
        evidence: Floats = self.table.rows["evidence"][self.slots]
        return evidence

    def unvisited(self, mass: Ints) -> Floats:
        """Mass of each cell that each client has not visited, shape (clients, cells)."""
        return np.where(visited_cells(self.table.rows["visited"][self.slots], len(mass)), 0, mass)


class HalfTheFactor(Judge):
    """A factor that honest clients exceed."""

    def bound(self, left: Floats, left_after: Floats) -> Floats:
        return 0.5 * self.factor * left


class MassAfterTheEvent(Judge):
    """The bound is settled after the outcome is known: smaller where there was a hit."""

    def bound(self, left: Floats, left_after: Floats) -> Floats:
        return self.factor * left_after


def ever_suspected(judge: Judge, cells: int, events: int = 120) -> npt.NDArray[np.bool_]:
    """Clients that enter a new cell with a probability of exactly min(1, c·U), cells by their mass."""
    rng = np.random.default_rng(20261201)
    mass = masses(cells)
    suspected = np.zeros(judge.clients, np.bool_)
    for _ in range(events):
        new = judge.unvisited(mass)
        share = new.sum(axis=1) / mass.sum()
        enters = rng.random(judge.clients) < np.minimum(1.0, judge.factor * share)
        candidates = np.where(enters[:, None], new, mass - new).astype(np.float64)
        at = candidates.cumsum(axis=1)
        chosen = (at < (rng.random(judge.clients) * at[:, -1])[:, None]).sum(axis=1)
        suspected |= judge.take(np.minimum(chosen, cells - 1), mass) >= 1 / ALPHA
    return suspected


def probability_of(suspected: npt.NDArray[np.bool_]) -> float:
    """Of so many suspects or more, if each is one with probability α."""
    return float(binom.sf(int(suspected.sum()) - 1, len(suspected), ALPHA))


@pytest.mark.parametrize(("factor", "cells"), [(1.0, 60), (1.5, 60), (3.0, 60), (1.0, 5), (1.5, 5)])
def test_clients_at_exactly_the_bound_keep_alpha(factor: float, cells: int) -> None:
    suspected = ever_suspected(Judge(3000, factor), cells)
    assert probability_of(suspected) >= WRONG_REFUSAL


@pytest.mark.parametrize(
    ("mutant", "factor", "cells"), [(HalfTheFactor, 1.5, 60), (MassAfterTheEvent, 1.0, 5)]
)
def test_mutants_of_the_null_are_caught(mutant: type[Judge], factor: float, cells: int) -> None:
    assert probability_of(ever_suspected(mutant(3000, factor), cells)) < WRONG_REFUSAL


def test_a_client_who_maps_the_domain_gains_evidence_and_one_who_draws_from_it_does_not() -> None:
    """As a k-centre thief does, the first client never asks in a cell twice while there is another."""
    mass = masses(100)
    rng = np.random.default_rng(3)
    judge = Judge(21, DEFAULT_RATES.bound[COVERAGE])
    plan = rng.permutation(100)
    highest = np.zeros(21)
    for t in range(100):
        cells = np.append(plan[t], rng.choice(100, 20, p=mass / mass.sum()))
        highest = np.maximum(highest, judge.take(cells, mass))
    assert highest[0] > 50 / ALPHA
    assert highest[1:].max() < 1 / ALPHA


def test_cells_that_nobody_asks_about_are_named() -> None:
    mass = np.array([100, 100, 1, 100])
    assert unvisited_cells(mass, np.array([5000, 4000, 0, 0])).tolist() == [False, False, False, True]
    assert not unvisited_cells(mass, np.array([30, 20, 0, 0])).any(), "too short a history to say"
    assert not unvisited_cells(mass, np.array([5000, 4000, 0, 1])).any()
    assert unvisited_cells(np.zeros(0, np.int64), np.array([7, 0])).tolist() == [False, False]


def test_honest_histories_seldom_name_a_cell() -> None:
    """Clients with habits: each draws from the mass of a random fifth of the cells alone."""
    rng = np.random.default_rng(4)
    mass = masses(80, seed=1)
    named = 0
    for _ in range(200):
        visits = np.zeros(80, np.int64)
        for _ in range(20):
            habit = np.where(rng.random(80) < 0.2, mass, 0).astype(float)
            visits += rng.multinomial(int(rng.integers(10, 200)), habit / habit.sum())
        named += bool(unvisited_cells(mass, visits).any())
    assert named <= 2
