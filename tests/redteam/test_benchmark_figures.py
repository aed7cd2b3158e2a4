"""Slices, quantiles with "never" in them, exact intervals, targets and tables."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from redteam.benchmark.report import report
from redteam.benchmark.runs import RUN_SCHEMA, read_runs, write_runs
from redteam.benchmark.slices import bootstrap, disjoint, rng_of
from redteam.benchmark.statistics import NEVER, clopper_pearson, exceeds, quantile
from redteam.benchmark.summary import Figures, summarise
from redteam.benchmark.targets import checks_of
from redteam.errors import RedteamError
from tests.redteam.counting import ATTACK

PROMISED = frozenset({"i.i.d."})

HONEST = replace(
    ATTACK, group="honest", name="i.i.d.", pool="", share=0.0, suspected_at=None, alerted_at=None
)
CAMPAIGN = replace(
    ATTACK,
    group="campaign",
    accounts=100,
    suspected_at=None,
    alerted_at=None,
    suspected_pooled=40,
    alerted_pooled=90,
    recall=0.99,
    precision=1.0,
)


def test_replicates_share_no_picture_of_their_own_part() -> None:
    own = [disjoint(1_000, number, 8, name="pool")[:125] for number in range(8)]
    assert len(np.unique(np.concatenate(own))) == 1_000
    assert sorted(disjoint(1_000, 3, 8, name="pool")) == list(range(1_000)), "a long attack has all of it"


def test_a_bootstrap_holds_no_picture_twice() -> None:
    rows = bootstrap(2_000, rng_of("bootstrap"))
    assert len(np.unique(rows)) == len(rows)
    assert 0.60 < len(rows) / 2_000 < 0.66


def test_chance_depends_on_the_name_alone() -> None:
    first, again, other = (rng_of("stream", number).integers(1 << 60) for number in (1, 1, 2))
    assert first == again != other


def test_never_is_a_count_too() -> None:
    assert quantile([3.0, 9.0, NEVER], 0.5) == 9
    assert quantile([3.0, 9.0, NEVER], 0.95) == NEVER
    assert math.isnan(quantile([], 0.5))
    assert str(Figures.of([30, 32, 36])) == "32 / 36"
    assert str(Figures.of([30, None, 36])) == "36 / never (67% of runs)"
    assert str(Figures.of([None])) == "never"


def test_intervals_are_exact() -> None:
    low, high = clopper_pearson(0, 100)
    assert low == 0
    assert (1 - high) ** 100 == pytest.approx(0.025)
    assert clopper_pearson(100, 100)[1] == 1
    assert exceeds(1, 100, 0.001) == pytest.approx(1 - 0.999**100)


def test_runs_survive_the_disk_and_damage_is_named(tmp_path: Path) -> None:
    runs = [ATTACK, HONEST, CAMPAIGN]
    write_runs(tmp_path / "one.parquet", runs)
    assert read_runs([tmp_path / "one.parquet"]) == runs
    assert [path.name for path in tmp_path.iterdir()] == ["one.parquet"], "nothing half-written is left"
    assert RUN_SCHEMA.field("alerted_at").nullable
    assert not RUN_SCHEMA.field("queries").nullable
    (tmp_path / "two.parquet").write_bytes(b"PAR1")
    with pytest.raises(RedteamError, match=r"two\.parquet cannot be read.*remove it"):
        read_runs([tmp_path / "two.parquet"])


def test_targets_are_met_or_missed() -> None:
    (met,) = summarise([replace(ATTACK, replicate=number) for number in range(20)])
    assert [str(check) for check in checks_of(met, represented=PROMISED)] == [
        "suspected ≤ 5 / 9: met",
        "alerted ≤ 32 / 36: met",
    ]
    late = [replace(ATTACK, replicate=number, alerted_at=37 if number < 2 else 31) for number in range(20)]
    (missed,) = summarise(late)
    assert [check.met for check in checks_of(missed, represented=PROMISED)] == [True, False]


def test_a_thief_must_hold_little_at_the_alert() -> None:
    (leaky,) = summarise([replace(ATTACK, agreement_at_alert=0.4, agreement_final=0.8)])
    assert not checks_of(leaky, represented=PROMISED)[-1].met
    (tight,) = summarise([replace(ATTACK, agreement_at_alert=0.2, agreement_final=0.8)])
    assert checks_of(tight, represented=PROMISED)[-1].met


@pytest.mark.parametrize(("suspected", "kept"), [(0, True), (1, True), (5, False)])
def test_the_promise_to_honest_clients_is_tested_exactly(suspected: int, kept: bool) -> None:
    runs = [
        replace(HONEST, replicate=number, suspected_at=9 if number < suspected else None)
        for number in range(1_000)
    ]
    (summary,) = summarise(runs)
    checks = checks_of(summary, represented=PROMISED)
    assert [check.met for check in checks] == [kept, True]
    assert not checks_of(summary, represented=frozenset()), "no promise is made to others"


def test_campaigns_have_targets_by_their_network() -> None:
    (apart,) = summarise([replace(CAMPAIGN, alerted_pooled=300)])
    assert all(check.met for check in checks_of(apart, represented=PROMISED))
    (together,) = summarise([replace(CAMPAIGN, alerted_pooled=300, network=True)])
    assert not checks_of(together, represented=PROMISED)[0].met


def test_the_report_puts_the_figures_beside_their_targets() -> None:
    rival = replace(ATTACK, detector="prada", suspected_at=None, alerted_at=None)
    runs = [ATTACK, replace(HONEST, alerted_at=7), CAMPAIGN, rival]
    text = report("cifar10", summarise(runs), PROMISED, ["a fact"])
    assert "- a fact" in text
    assert "| knockoff ← tiny-imagenet | 4 / 4 | **31 / 31** |" in text
    assert "| i.i.d. | yes | 5,000 | 0 (0.00% to 97.50%) | 1 | **1 (2.50% to 100.00%)** |" in text
    assert "| honest: i.i.d. | none alerted |" in text, "a missed target is listed"
    assert "| stream | banken | prada |" in text
    assert "| attack: knockoff ← tiny-imagenet | 31 / 31 | never |" in text
