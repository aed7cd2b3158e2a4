"""What makes a campaign of accounts, and what its evidence promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from detector.campaigns import Account, CampaignRule, half_evidence, judge, link_accounts
from detector.errors import DetectorError
from detector.evidence import EvidenceRule
from detector.links import Content, LinkKind
from detector.rates import DEFAULT_RATES
from detector.recursion import Null
from tests.detector.test_links import NEAR, content, other_pool
from tests.detector.world import foreign, native

RULE = CampaignRule()
NULL = Null.of(EvidenceRule(alpha=0.1), DEFAULT_RATES)
ORIGIN = native(500, seed=1).astype(np.float64).mean(axis=0)


def account(queries: int, foreign_queries: int, client: str = "a", linking: int | None = None) -> Account:
    linking = (foreign_queries + 1) // 2 if linking is None else linking
    return Account(client, queries, (foreign_queries,) * 3, (linking,) * 3, 1.0)


def linked(
    asked: Content, n: int, joined: dict[str, str] | None = None, campaigns: Sequence[str] = ()
) -> tuple[dict[str, str], dict[str, str], set[LinkKind]]:
    names = [f"a{i}" for i in range(n)]
    result = link_accounts(asked, names, joined or {}, campaigns, ORIGIN, near=NEAR, least=3)
    kinds = {link.kind for _, link in result.joined.values()}
    return {name: campaign for name, (campaign, _) in result.joined.items()}, dict(result.merged), kinds


def test_accounts_of_one_pool_are_one_campaign_named_after_the_earliest() -> None:
    found, merged, kinds = linked(content(*(foreign(8, seed=i) for i in range(6))), 6)
    assert found == {f"a{i}": "a0" for i in range(6)}
    assert merged == {}
    assert kinds == {LinkKind.POOL}


def test_two_accounts_are_no_campaign() -> None:
    assert linked(content(foreign(8, seed=1), foreign(8, seed=2)), 2) == ({}, {}, set())


def test_other_pools_stay_out_and_become_one_of_their_own_later() -> None:
    asked = content(*(foreign(16, seed=i) for i in range(8)), *(other_pool(16, seed=i) for i in range(4)))
    first, _, _ = linked(asked, 12)
    assert len(set(first.values())) == 1
    assert len(first) >= 4
    assert first.keys() <= {f"a{i}" for i in range(8)}
    second, merged, _ = linked(asked, 12, first, list(set(first.values())))
    assert {second.get(f"a{i}") for i in range(8, 12)} == {"a8"}
    assert merged == {}


def test_a_pool_that_is_not_found_in_time_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = content(*(foreign(16, seed=i) for i in range(8)), *(other_pool(16, seed=i) for i in range(4)))
    monkeypatch.setattr("detector.campaigns._ROUNDS", 1)
    assert linked(asked, 12) == ({}, {}, set())


def test_a_new_account_joins_the_pool_it_fits() -> None:
    asked = content(*(foreign(8, seed=i) for i in range(6)))
    found, _, kinds = linked(asked, 6, {f"a{i}": "a0" for i in range(5)}, ["a0"])
    assert found == {"a5": "a0"}
    assert kinds == {LinkKind.POOL}


def test_campaigns_of_one_pool_become_the_older() -> None:
    asked = content(*(foreign(16, seed=i) for i in range(9)))
    joined = {"a0": "a4", "a1": "a4", "a4": "a4", "a2": "a2", "a3": "a2", "a5": "a2"}
    found, merged, _ = linked(asked, 9, joined, ["a4", "a2"])
    assert merged == {"a2": "a4"}
    assert set(found.values()) == {"a4"}


def test_shared_pictures_link_what_pools_do_not() -> None:
    pictures = other_pool(4, seed=1)
    accounts = [np.concatenate([pictures, kind(12, seed=5)]) for kind in (foreign, other_pool, native)]
    found, _, kinds = linked(content(*accounts), 3)
    assert found == {"a0": "a0", "a1": "a0", "a2": "a0"}
    assert kinds == {LinkKind.DUPLICATES}


def test_shared_pictures_bring_campaigns_together() -> None:
    pictures = foreign(4, seed=1)
    accounts = [native(9, seed=2), native(9, seed=3), pictures]
    accounts[0][:2], accounts[1][:2] = pictures[:2], pictures[2:]
    found, merged, _ = linked(content(*accounts), 3, {"a0": "a0", "a1": "a1"}, ["a1", "a0"])
    assert (found, merged) == ({"a2": "a1"}, {"a0": "a1"})


def test_slices_are_a_campaign() -> None:
    places = [list(range(10 * i, 10 * i + 10)) * 2 for i in range(4)]
    found, _, kinds = linked(content(*(foreign(20, seed=i) for i in range(4)), places=places), 4)
    assert set(found.values()) == {"a0"}
    assert kinds == {LinkKind.SLICES}


def test_exposure_is_what_no_few_accounts_explain() -> None:
    few = [account(20, 18, f"a{i}") for i in range(5)]
    assert judge(NULL, RULE, few, look=1, campaigns=1).exposure == 0
    many = [account(20, 18, f"a{i}") for i in range(50)]
    expected = 2 * 45 * (9 - 10 * NULL.allowance[0])
    assert judge(NULL, RULE, many, look=1, campaigns=1).exposure == pytest.approx(expected)


def test_the_linking_half_is_no_evidence() -> None:
    accounts = [account(20, 10, linking=10)]
    assert judge(NULL, RULE, accounts, look=1, campaigns=1).evidence < 1
    assert judge(NULL, RULE, [account(20, 10, linking=0)], look=1, campaigns=1).evidence > 100


def test_each_look_and_campaign_spends_its_part() -> None:
    accounts = [account(4, 2) for _ in range(2)]
    first = judge(NULL, RULE, accounts, look=1, campaigns=1)
    later = judge(NULL, RULE, accounts, look=3, campaigns=2)
    assert first.evidence == pytest.approx(12 * later.evidence)
    assert sum(1 / (k * (k + 1)) for k in range(1, 10**5)) <= 1
    assert (first.queries, first.trials, first.hits.tolist()) == (8, 4, [4, 4, 4])


def test_half_evidence_has_mean_one_at_the_bound() -> None:
    """Of a sequence of six outcomes at one level, summed over how many of them hit."""
    level = replace(NULL, rule=EvidenceRule(weights=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)))
    hits = np.arange(7)
    counts = np.repeat(hits[:, None], 3, axis=1)
    values = half_evidence(level, counts, np.full(7, 6))
    assert float(binom.pmf(hits, 6, NULL.bound[0]) @ values) == pytest.approx(1.0)
    assert half_evidence(NULL, np.zeros((1, 3), np.int64), np.zeros(1, np.int64))[0] == pytest.approx(1.0)


def _worlds(
    rng: np.random.Generator, worlds: int, accounts: int, queries: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Hits of benign accounts at exactly the bounds, nested in the levels: linking and judging halves."""
    halves = rng.random((2, worlds, accounts, queries // 2, 1)) < NULL.bound[:3]
    linking, judging = halves.sum(axis=3)
    return linking, judging


@pytest.mark.parametrize("judged_by", ["the other half", "the half that chose them"])
def test_benign_accounts_that_were_chosen_for_one_half_pass_on_the_other(judged_by: str) -> None:
    """The worst linking halves are linked, at ten looks; α = 0.1 holds, and breaks without halves."""
    rng, worlds, looks = np.random.default_rng(3), 100, 10
    suspected = np.zeros(worlds, np.bool_)
    linking = judging = np.zeros((worlds, 200, 3), np.int64)
    for look in range(1, looks + 1):
        more = _worlds(rng, worlds, 200, 6)
        linking, judging = linking + more[0], judging + more[1]
        for world in range(worlds):
            chosen = np.argsort(-linking[world, :, 2], kind="stable")[:20]
            half = judging if judged_by == "the other half" else linking
            # An account's hits are those of both halves; what is no linking hit judges.
            accounts = [
                Account("a", 6 * look, tuple((half + linking)[world, i]), tuple(linking[world, i]), 1.0)
                for i in chosen
            ]
            found = judge(NULL, RULE, accounts, look=look, campaigns=1)
            suspected[world] |= found.evidence >= NULL.rule.threshold
    if judged_by == "the other half":
        assert suspected.mean() <= 0.1
    else:
        assert suspected.mean() > 0.9


@pytest.mark.parametrize("fault", [{"fdr": 0.0}, {"fdr": 1.5}, {"every": 0}, {"least": 1}, {"excused": -1}])
def test_rules_out_of_range_are_refused(fault: dict[str, float]) -> None:
    with pytest.raises(DetectorError, match="campaign rule"):
        CampaignRule(**fault)  # type: ignore[arg-type]
