"""Benign rates from a trusted history."""

from __future__ import annotations

import numpy as np

from detector.trusted import rates_of
from tests.detector.world import Query, baseline, batch, foreign, native, queries


def history(clients: int, each: int) -> list[Query]:
    log = [query for k in range(clients) for query in queries(f"c{k}", native(each, seed=200 + k), seed=k)]
    return [log[i] for i in np.random.default_rng(0).permutation(len(log)).tolist()]


def test_rates_are_those_of_the_clients_however_the_history_is_cut() -> None:
    log = history(20, 100)
    whole = rates_of(baseline(), [batch(log)])
    cut = rates_of(baseline(), (batch(log[i : i + 37], i) for i in range(0, len(log), 37)))
    assert whole == cut
    assert (whole.clients, whole.queries, whole.source) == (20, 2000, "trusted history")
    verdict = baseline().judge(np.array([query.embedding for query in log]))
    assert abs(whole.mean[0] - verdict.foreign[:, 0].mean()) < 0.02
    assert 0.05 <= whole.bound[0] < 0.15


def test_repeats_are_queries_but_not_hits() -> None:
    odd = foreign(20, seed=1)
    once = history(20, 50) + [Query(f"c{k}", odd[k], k + 1 << 20) for k in range(20)]
    often = once + once[-20:] * 10
    rates = rates_of(baseline(), [batch(often)])
    assert rates.queries == 20 * 50 + 20 * 11
    assert rates.mean[0] <= rates_of(baseline(), [batch(once)]).mean[0]


def test_too_short_a_history_gives_the_defaults() -> None:
    assert "3 clients" in rates_of(baseline(), [batch(history(3, 20))]).source
    assert "0 clients" in rates_of(baseline(), []).source
