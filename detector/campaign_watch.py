"""Looks for campaigns as a log goes by, the same way however it is cut into batches.

```
watch = CampaignWatch(baseline, rule)
for batch in batches:
    seen = monitor.observe(batch)
    rows = [monitor.subject(SubjectKey(CLIENT, client)) for client in set(batch.clients)]
    steps = watch.observe(batch, seen, rows)     # (place in the batch, FindingChange), in order
    monitor.saved()
watch.parts()                                    # who is in which campaign, and why
```

That is all that a harness without a database needs. With one, `changes` is stored with the batch, `saved`
says that it is, and `restore` puts it back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from detector.baseline import Baseline
from detector.campaigns import (
    Account,
    CampaignRule,
    Joined,
    half_evidence,
    judge,
    link_accounts,
)
from detector.episodes import Episodes, next_stage
from detector.evidence import EvidenceRule
from detector.findings import Finding, FindingChange, Moment, SignalFigures
from detector.groups import CAMPAIGN
from detector.linking_queries import PER_CLIENT, LinkingQueries, LinkingQuery
from detector.monitor import Batch, Observation
from detector.ranking import e_bh
from detector.recursion import Null
from detector.signals import LEVELS, Signal
from detector.subjects import CLIENT, STATE, SubjectKey, SubjectRow

__all__ = ["CampaignChanges", "CampaignWatch", "WatchState"]

_PRIOR = 50
"""Images of the domain that are weighed against other clients' foreign queries, for when these are few."""


@dataclass(frozen=True, slots=True)
class WatchState:
    """Where the watch of an endpoint stands.

    Attributes:
        queries: linking queries so far: foreign, novel, odd-numbered, of each client the first `PER_CLIENT`.
        events: what brings looks nearer: linking queries, and judging queries of joined accounts whatever
            they show. Nothing that a judging half shows decides when it is looked at.
        looks: looks so far.
        due: number of events at which the next look is.
        clients: clients ever judged.
    """

    queries: int = 0
    events: int = 0
    looks: int = 0
    due: int = 0
    clients: int = 0


@dataclass(frozen=True, slots=True)
class CampaignChanges:
    """What is to be stored with a batch.

    Attributes:
        state: where the watch stands now.
        queries: new linking queries.
        joined: accounts with a new place.
        campaigns: those that were judged, as subjects.
        accounts: of each campaign whose finding took a step, as they were at its latest one.
    """

    state: WatchState
    queries: tuple[LinkingQuery, ...]
    joined: tuple[Joined, ...]
    campaigns: tuple[SubjectRow, ...]
    accounts: Mapping[str, tuple[str, ...]]


class CampaignWatch:
    """The campaigns of one endpoint.

    It keeps the accounts that could be linked (those whose linking half has an e-value of at least 1/fdr),
    the members of campaigns, and the latest linking queries. A look happens at an exact query, so
    what it finds is independent of how the log is cut into batches.

    Args:
        baseline: the one in force.
        rule: when evidence suspects and exposure alerts.
        campaigns: when campaigns are looked for and what makes one.
    """

    def __init__(
        self,
        baseline: Baseline,
        rule: EvidenceRule | None = None,
        campaigns: CampaignRule | None = None,
    ) -> None:
        self.rule = campaigns or CampaignRule()
        self.state = WatchState(due=self.rule.every)
        self._null = Null.of(rule or EvidenceRule(), baseline.rates)
        self._near = baseline.near_duplicate
        images = baseline.held_out if len(baseline.held_out) else baseline.domain.centroids
        self._centre = images.astype(np.float64).mean(axis=0)
        self._episodes = Episodes(baseline.endpoint, baseline.content_hash)
        self._recent = LinkingQueries(len(self._centre))
        self._accounts: dict[str, tuple[Account, float]] = {}
        self._joined: dict[str, Joined] = {}
        self._campaigns: dict[str, SubjectRow] = {}
        self.saved()

    def restore(
        self,
        state: WatchState,
        *,
        queries: Iterable[LinkingQuery],
        joined: Iterable[Joined],
        accounts: Iterable[SubjectRow],
        campaigns: Iterable[SubjectRow],
        findings: Iterable[Finding],
    ) -> None:
        """Put back what was stored.

        Args:
            state: where the watch stood.
            queries: the latest `detector.linking_queries.RECENT` linking queries.
            joined: the accounts of all campaigns.
            accounts: the rows of those, and of clients whose linking half has evidence of at least 1/fdr.
            campaigns: as they were judged last.
            findings: their latest ones.
        """
        self.state = state
        for query in queries:
            self._recent.add(query)
        self._joined = {one.client: one for one in joined}
        self._keep(_Figures.of(list(accounts)))
        self._campaigns = {row.key.value: row for row in campaigns}
        open_ = {key for key, row in self._campaigns.items() if row.stage > 0}
        self._episodes.insert(finding for finding in findings if finding.subject.value in open_)

    def parts(self) -> list[tuple[Joined, Account]]:
        """Every account of every campaign: its place there and its counts, by name."""
        return [(one, self._accounts[client][0]) for client, one in sorted(self._joined.items())]

    def changes(self) -> CampaignChanges:
        """What has changed since :meth:`saved`."""
        return CampaignChanges(
            self.state,
            tuple(self._new),
            tuple(self._joined[client] for client in sorted(self._moved)),
            tuple(self._campaigns[name] for name in sorted(self._judged)),
            dict(self._stepped),
        )

    def saved(self) -> None:
        """Say that :meth:`changes` are stored."""
        self._new: list[LinkingQuery] = []
        self._moved: set[str] = set()
        self._judged: set[str] = set()
        self._stepped: dict[str, tuple[str, ...]] = {}

    def observe(
        self,
        batch: Batch,
        seen: Observation,
        rows: Iterable[SubjectRow],
        answers: Sequence[str] | None = None,
    ) -> list[tuple[int, FindingChange]]:
        """Take a batch that the monitor has observed.

        Args:
            batch: the queries.
            seen: what the monitor said of them.
            rows: subjects as they stand after it, all of the batch's clients among them.
            answers: the class that each query was answered with, empty where the log does not say.

        Returns:
            Steps in campaigns' findings, each with the place of the query at which the look was.
        """
        steps: list[tuple[int, FindingChange]] = []
        counts = _Counts(batch, seen, rows)
        before = self.state.clients
        for event, (linking, judging) in enumerate(zip(counts.linking, counts.judging, strict=True)):
            client = batch.clients[event]
            if linking:
                query = LinkingQuery(
                    number=self.state.queries,
                    client=client,
                    event_id=batch.ids[event],
                    embedding=batch.embeddings[event],
                    fingerprint=int(batch.fingerprints[event]),
                    cell=int(seen.verdict.cells[event]),
                    answer=answers[event] if answers else "",
                )
                self._recent.add(query)
                self._new.append(query)
                self.state = replace(self.state, queries=self.state.queries + 1)
            elif not (judging and client in self._joined):
                continue
            self.state = replace(self.state, events=self.state.events + 1)
            if self.state.events >= self.state.due:
                self.state = replace(self.state, clients=before + counts.new_clients(event + 1))
                self._keep(counts.at(event + 1))
                moment = Moment(int(batch.times[event]), 0, batch.ids[event])
                steps += [(event, step) for step in self._look(moment)]
        self.state = replace(self.state, clients=before + counts.new_clients(len(batch)))
        self._keep(counts.at(len(batch)))
        return steps

    def _keep(self, figures: _Figures) -> None:
        """Remember accounts that could be linked or are, and forget those that could be no longer."""
        values = half_evidence(self._null, figures.linking_hits, (figures.queries + 1) // 2)
        some = values >= 1 / self.rule.fdr
        for i, name in enumerate(figures.names):
            if some[i] or name in self._joined:
                self._accounts[name] = figures.account(i), float(values[i])
            else:
                self._accounts.pop(name, None)

    def _look(self, at: Moment) -> list[FindingChange]:
        """Link what can be linked, then judge every campaign.

        1. e-BH lists accounts by their linking halves, over all clients ever judged.
        2. Those with no campaign yet are linked by content (`detector.campaigns.link_accounts`).
        3. Each campaign is judged by the judging halves, and its finding moves.
        """
        names = list(self._accounts)
        values = np.array([self._accounts[name][1] for name in names])
        suspects = e_bh(values, self.rule.fdr, judged=max(self.state.clients, len(names)))
        listed = {name for name, suspect in zip(names, suspects, strict=True) if suspect}
        look = self.state.looks + 1
        changes = self._link(listed, look, at)
        campaigns: defaultdict[str, list[str]] = defaultdict(list)
        for client, one in sorted(self._joined.items()):
            campaigns[one.campaign].append(client)
        for name, clients in sorted(campaigns.items()):
            accounts = [self._accounts[client][0] for client in clients]
            judged = judge(self._null, self.rule, accounts, look=look, campaigns=len(campaigns))
            moment = replace(at, queries=judged.queries)
            changes += self._move(
                name, moment, judged.evidence, judged.exposure, clients=clients, hits=judged.hits
            )
        # With many accounts, or after many looks, a look more or less makes no difference but costs as much.
        interval = max(self.rule.every, len(listed) // 4, min(look // 4, 4 * self.rule.every))
        self.state = replace(self.state, looks=look, due=self.state.events + interval)
        return changes

    def _link(self, listed: set[str], look: int, at: Moment) -> list[FindingChange]:
        """Give listed accounts their campaigns; campaigns that became part of an older one close."""
        recent = self._recent.clients()
        names = [name for name in recent if name in listed or name in self._joined]
        if all(name in self._joined for name in names):
            return []
        content, others = self._recent.split(names)
        origin = (others.sum(axis=0, dtype=np.float64) + _PRIOR * self._centre) / (len(others) + _PRIOR)
        linked = link_accounts(
            content,
            names,
            {client: one.campaign for client, one in self._joined.items()},
            sorted({one.campaign for one in self._joined.values()}, key=self._age),
            origin,
            near=self._near,
            least=self.rule.least,
        )
        for client, (campaign, link) in linked.joined.items():
            self._joined[client] = Joined(client, campaign, link, look)
        for client, one in self._joined.items():
            if one.campaign in linked.merged:
                self._joined[client] = replace(one, campaign=linked.merged[one.campaign])
                self._moved.add(client)
        self._moved |= linked.joined.keys()
        return [
            change
            for young, row in sorted(self._campaigns.items())
            if young in linked.merged
            for change in self._move(young, replace(at, queries=row.queries), 0.0, 0.0)
        ]

    def _age(self, campaign: str) -> tuple[int, str]:
        """Sorts campaigns by the look that found them; each is named after one of its accounts."""
        return self._joined[campaign].look, campaign

    def _move(
        self,
        name: str,
        at: Moment,
        evidence: float,
        exposure: float,
        *,
        clients: Sequence[str] = (),
        hits: npt.NDArray[np.int64] | None = None,
    ) -> list[FindingChange]:
        """Move a campaign's subject and, where its stage changes, its finding."""
        key = SubjectKey(CAMPAIGN, name)
        old = self._campaigns.get(name)
        state = np.zeros((), STATE) if old is None else np.frombuffer(old.state, STATE)[0].copy()
        was = int(state["stage"])
        stage = int(
            next_stage(self._null.rule, np.array([evidence]), np.array([exposure]), np.array([was]))[0]
        )
        state["episodes"] += was == 0 and stage > 0
        state["stage"], state["bucket"], state["queries"] = stage, -1, at.queries
        state["evidence"], state["exposure"] = evidence, exposure
        if hits is not None:
            state["hits"][: len(LEVELS)] = hits
        first = at.time if old is None else old.first_seen
        self._campaigns[name] = SubjectRow(
            key, at.queries, evidence, exposure, 0.0, stage, first, at.time, state.tobytes()
        )
        self._judged.add(name)
        if stage == was:
            return []
        self._stepped[name] = tuple(clients)
        figures = SignalFigures(Signal.OUT_OF_DOMAIN, evidence, exposure, int(state["hits"][0]))
        sequence = int(state["episodes"])
        return [self._episodes.move(key, sequence, stage, at=at, evidence=evidence, signals=(figures,))]


@dataclass(frozen=True, slots=True)
class _Figures:
    """Counts of some clients; hits by level, shape (m, levels), the others of shape (m,)."""

    names: Sequence[str]
    queries: npt.NDArray[np.int64]
    hits: npt.NDArray[np.int64]
    linking_hits: npt.NDArray[np.int64]
    evidence: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rows: Sequence[SubjectRow]) -> _Figures:
        states = np.frombuffer(b"".join(row.state for row in rows), STATE)
        hits, linking_hits = states["hits"][:, : len(LEVELS)], states["linking_hits"]
        return cls([row.key.value for row in rows], states["queries"], hits, linking_hits, states["evidence"])

    def account(self, i: int) -> Account:
        return Account(
            self.names[i],
            int(self.queries[i]),
            tuple(self.hits[i].tolist()),
            tuple(self.linking_hits[i].tolist()),
            float(self.evidence[i]),
        )


class _Counts:
    """What a batch adds to its clients' counts, query by query.

    Attributes:
        linking: which are linking queries: foreign, novel, odd-numbered, the client's first `PER_CLIENT`.
        judging: which are even-numbered.
    """

    def __init__(self, batch: Batch, seen: Observation, rows: Iterable[SubjectRow]) -> None:
        by_client = {row.key.value: row for row in rows if row.key.kind == CLIENT}
        place = {name: number for number, name in enumerate(dict.fromkeys(batch.clients))}
        self._client = np.fromiter(map(place.__getitem__, batch.clients), np.int64, len(batch))
        self._after = _Figures.of([by_client[name] for name in place])

        turn = self._after.queries[self._client] - _later(self._client)
        self._new = turn == 1
        self._hit = seen.hits[:, : len(LEVELS)]
        self._linking_hit = self._hit & (turn % 2 == 1)[:, None]
        events = np.flatnonzero(self._linking_hit[:, 0])
        mine = self._client[events]
        number = self._after.linking_hits[mine, 0] - _later(mine)
        linking = np.zeros(len(batch), np.bool_)
        linking[events] = number <= PER_CLIENT
        self.linking: list[bool] = linking.tolist()
        self.judging: list[bool] = (turn % 2 == 0).tolist()

    def new_clients(self, stop: int) -> int:
        """Clients whose first query ever is before ``stop``."""
        return int(self._new[:stop].sum())

    def at(self, stop: int) -> _Figures:
        """The batch's clients as they stood before the query at ``stop``."""
        after, later = self._after, self._client[stop:]
        hits, linking_hits = after.hits.copy(), after.linking_hits.copy()
        np.subtract.at(hits, later, self._hit[stop:])
        np.subtract.at(linking_hits, later, self._linking_hit[stop:])
        queries = after.queries - np.bincount(later, minlength=len(after.names))
        return replace(after, queries=queries, hits=hits, linking_hits=linking_hits)


def _later(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many equal values come after each one, shape (n,)."""
    order = np.argsort(values, kind="stable")
    ends = np.searchsorted(values[order], values[order], side="right")
    later = np.empty(len(values), np.int64)
    later[order] = ends - 1 - np.arange(len(values))
    return later
