"""Campaigns: many accounts that steal as one, found by one half of their queries and judged by the other.

A client's odd-numbered queries (its 1st, 3rd, 5th …) *link*: they decide which accounts are worth a look and
which of those belong together. Its even-numbered ones *judge*. As nothing about the judging half decides who
is in, the merged evidence of the judging halves is an e-value at each look (docs/campaigns.md has the proof).

`CampaignWatch` in `detector.campaign_watch` does this over a log, with or without a database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from detector.errors import DetectorError
from detector.evidence import GRID, evidence, run_bucket
from detector.links import Content, Link, LinkKind, Pool, complementary_slices, shared_duplicates
from detector.recursion import Null
from detector.signals import LEVELS

__all__ = [
    "Account",
    "CampaignRule",
    "Joined",
    "Judged",
    "Linked",
    "half_evidence",
    "judge",
    "link_accounts",
]

_ROUNDS = 32  # after which accounts that still do not fit one pool are none: nobody can make a look endless
_UNCAPPED = 1e290  # an e-value at one moment need not lapse; levels and grid sum to a float


@dataclass(frozen=True, slots=True)
class CampaignRule:
    """When campaigns are looked for and what makes one.

    Attributes:
        fdr: bound on the false discovery rate of the accounts that may be linked, in (0, 1].
        every: events between two looks, at least: linking queries, and judging queries of linked accounts.
            With many suspects, or after many looks, they are rarer.
        least: accounts that make a campaign, at least 2.
        excused: accounts, those with the most hits, that exposure leaves out. Some integrators' junk days may
            coincide, and from one source; what no few accounts explain is a campaign.

    Raises:
        DetectorError: a value outside its range.
    """

    fdr: float = 0.25
    every: int = 16
    least: int = 3
    excused: int = 5

    def __post_init__(self) -> None:
        if not (0.0 < self.fdr <= 1.0 and self.every >= 1 and self.least >= 2 and self.excused >= 0):
            raise DetectorError(
                f"campaign rule {self}: fdr must be in (0, 1], every at least 1, least 2, excused 0"
            )


@dataclass(frozen=True, slots=True)
class Account:
    """What is counted of one client.

    Attributes:
        client: its name.
        queries: events seen.
        hits: foreign and novel ones by out-of-domain level.
        linking_hits: those among its odd-numbered queries.
        evidence: the client's own E, which plays no part in finding campaigns.
    """

    client: str
    queries: int
    hits: tuple[int, ...]
    linking_hits: tuple[int, ...]
    evidence: float


@dataclass(frozen=True, slots=True)
class Joined:
    """An account's place in a campaign.

    Attributes:
        client: the account.
        campaign: which, by the name of its earliest account.
        link: what holds it there.
        look: number of the look at which it was linked.
    """

    client: str
    campaign: str
    link: Link
    look: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A campaign at one look.

    Attributes:
        queries: of all accounts.
        hits: foreign and novel ones by level, shape (levels,).
        trials: queries of the judging halves.
        evidence: w·E, the e-value of the judging halves times what the look may spend, in [0, cap/α].
        exposure: foreign, novel queries above the benign rate, estimated as twice the judging half's, without
            the accounts that are excused.
    """

    queries: int
    hits: npt.NDArray[np.int64]
    trials: int
    evidence: float
    exposure: float


def half_evidence(
    null: Null, hits: npt.NDArray[np.int64], trials: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """E-values of counts that are looked at once: ``Σ_l λ_l·mean_q LR_q(1)^h·LR_q(0)^(n − h)``.

    Args:
        null: the bounds and the levels' weights.
        hits: by level, shape (m, levels).
        trials: shape (m,).

    Returns:
        Shape (m,); 1 where there is nothing.
    """
    m = len(trials)
    start = np.zeros((m, len(LEVELS), len(GRID)))
    bound = null.bound[: len(LEVELS)]
    ratios = run_bucket(start, np.ones(m), hits, trials, bound, _UNCAPPED)
    return evidence(ratios, np.zeros(m), null.group_weights)


def judge(
    null: Null, rule: CampaignRule, accounts: Sequence[Account], *, look: int, campaigns: int
) -> Judged:
    """Judge one campaign by its accounts' even-numbered queries.

    Look k may spend 1/(k(k + 1)) of α, which sums to 1, and divides it evenly among the campaigns that there
    are then: α bounds the probability that the endpoint *ever* suspects a campaign of benign accounts.

    Args:
        null: what is tested against.
        rule: whose hits are excused.
        accounts: the campaign's.
        look: number of the look, from 1.
        campaigns: how many are judged at it.
    """
    hits = np.array([account.hits for account in accounts], np.int64)
    judging = hits - np.array([account.linking_hits for account in accounts], np.int64)
    trials = np.array([account.queries // 2 for account in accounts], np.int64)
    value = half_evidence(null, judging.sum(axis=0, keepdims=True), trials.sum(keepdims=True))[0]
    excess = np.sort(judging[:, 0] - null.allowance[0] * trials)[::-1]
    return Judged(
        queries=sum(account.queries for account in accounts),
        hits=hits.sum(axis=0),
        trials=int(trials.sum()),
        evidence=min(float(value) / (look * (look + 1) * campaigns), null.rule.ceiling),
        exposure=max(0.0, 2.0 * float(excess[rule.excused :].sum())),
    )


@dataclass(frozen=True, slots=True)
class Linked:
    """What linking changed.

    Attributes:
        joined: accounts that have a campaign now, and why.
        merged: campaigns that became part of an older one, by name.
    """

    joined: Mapping[str, tuple[str, Link]]
    merged: Mapping[str, str]


def link_accounts(
    content: Content,
    names: Sequence[str],
    joined: Mapping[str, str],
    campaigns: Sequence[str],
    origin: npt.NDArray[np.float64],
    *,
    near: float,
    least: int,
) -> Linked:
    """Link accounts by what they ask.

    1. Who shares near duplicates belongs together, and with the campaign of whoever it shares them with.
    2. An account, or a younger campaign, that draws on an older campaign's pool joins that.
    3. Accounts that divide the classes or cells among themselves are one campaign.
    4. Of those that are left, all begin as one pool; who does not fit leaves, until all that are left do.

    Args:
        content: foreign linking-half queries of the accounts; owners are places in ``names``.
        names: the accounts, the one whose queries began first being first: it names a new campaign.
        joined: campaigns of those that have one.
        campaigns: all campaigns, the oldest first.
        origin: mean of other clients' foreign queries, shape (d,).
        near: cosine similarity from which two queries may be near duplicates.
        least: accounts that make a new campaign.
    """
    linking = _Linking(content, names, joined, campaigns, least)
    linking.by_duplicates(near)
    linking.by_known_pools(origin)
    linking.by_slices()
    linking.by_common_pool(origin)
    return linking.result()


class _Linking:
    """Accounts on their way into campaigns; ``of`` is each one's place in ``campaigns``, or −1."""

    def __init__(
        self,
        content: Content,
        names: Sequence[str],
        joined: Mapping[str, str],
        campaigns: Sequence[str],
        least: int,
    ) -> None:
        self.campaigns = list(campaigns)
        place = {name: number for number, name in enumerate(campaigns)}
        self.of = np.array([place[joined[name]] if name in joined else -1 for name in names], np.int64)
        self._content = content
        self._names = names
        self._least = least
        self._near = np.zeros(len(names), np.bool_)  # a known pool
        self._links: dict[int, Link] = {}
        self._merged: dict[int, int] = {}

    def result(self) -> Linked:
        joined = {
            self._names[account]: (self.campaigns[int(self.of[account])], link)
            for account, link in sorted(self._links.items())
        }
        merged = {self.campaigns[young]: self.campaigns[old] for young, old in self._merged.items()}
        return Linked(joined, merged)

    def by_duplicates(self, near: float) -> None:
        free = self._free()
        found = shared_duplicates(self._content.of(free), self._content, near)
        if not found:
            return
        unit = self._units()
        pairs = unit[np.array(list(found))]
        ones = np.ones(len(pairs))
        size = int(unit.max()) + 1
        component = connected_components(coo_array((ones, (pairs[:, 0], pairs[:, 1])), (size, size)))[1][unit]
        shared = dict.fromkeys(free.tolist(), 0)
        for (mine, other), count in found.items():
            shared[mine] = max(shared[mine], count)
            shared[other] = max(shared.get(other, 0), count)
        for number in np.unique(component[np.array(list(found))]).tolist():
            together = np.flatnonzero(component == number)
            accounts = [account for account in together.tolist() if self.of[account] < 0 and shared[account]]
            known = np.unique(self.of[together][self.of[together] >= 0]).tolist()
            for young in known[1:]:
                self._merge(young, known[0])
            links = {account: Link(LinkKind.DUPLICATES, float(shared[account])) for account in accounts}
            self._join(links, known[0] if known else None)

    def by_known_pools(self, origin: npt.NDArray[np.float64]) -> None:
        """Accounts and younger campaigns that fit an older campaign's pool become part of it."""
        for campaign in range(len(self.campaigns)):
            unit = self._units()
            content = replace(self._content, owners=unit[self._content.owners])
            units = max(len(self.campaigns), int(unit.max()) + 1)
            fit = Pool.of(content, units, origin).fit(np.arange(units) == campaign)
            for young in np.flatnonzero(fit.fits[campaign + 1 : len(self.campaigns)]).tolist():
                self._merge(campaign + 1 + young, campaign)
            free = self._free()
            self._near[free[fit.near[unit[free]]]] = True
            joining = free[fit.fits[unit[free]]].tolist()
            self._join({one: Link(LinkKind.POOL, float(fit.along[unit[one]])) for one in joining}, campaign)

    def by_slices(self) -> None:
        found = complementary_slices(self._content.of(self._free()), len(self._names))
        self._join({account: Link(LinkKind.SLICES, share) for account, share in found.items()})

    def by_common_pool(self, origin: npt.NDArray[np.float64]) -> None:
        """Possible outliers of a known pool found no other; they wait until they have asked more."""
        free = np.flatnonzero((self.of < 0) & ~self._near)
        pool = Pool.of(self._content.of(free), len(self._names), origin)
        members = pool.counts > 0
        for _ in range(_ROUNDS):
            if members.sum() < self._least:
                return
            fit = pool.fit(members)
            if not (members & ~fit.fits).any():
                found = np.flatnonzero(members).tolist()
                self._join({account: Link(LinkKind.POOL, float(fit.along[account])) for account in found})
                return
            members &= fit.fits

    def _free(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self.of < 0)

    def _units(self) -> npt.NDArray[np.int64]:
        """Each account's unit: its campaign, or one of its own."""
        own = len(self.campaigns) + np.cumsum(self.of < 0) - 1
        return np.where(self.of < 0, own, self.of)

    def _join(self, links: Mapping[int, Link], campaign: int | None = None) -> None:
        """Put accounts into a campaign, or where they are enough into a new one."""
        if campaign is None:
            if len(links) < self._least:
                return
            campaign = len(self.campaigns)
            self.campaigns.append(self._names[min(links)])
        self.of[list(links)] = campaign
        self._links |= links

    def _merge(self, young: int, old: int) -> None:
        self.of[self.of == young] = old
        self._merged = {one: old if into == young else into for one, into in self._merged.items()}
        self._merged[young] = old
