"""A log of many accounts, watched for campaigns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detector.campaign_watch import CampaignWatch
from detector.campaigns import CampaignRule
from detector.findings import FindingChange, FindingState
from detector.groups import CAMPAIGN
from detector.linking_queries import PER_CLIENT, LinkingQuery
from detector.monitor import Monitor
from detector.subjects import CLIENT, SubjectKey, SubjectRow
from tests.detector.world import START, Query, baseline, batch, foreign, native, queries

Steps = list[tuple[str, FindingChange]]


class Watch:
    """A monitor and a campaign watch, with the storage that their owner would have."""

    def __init__(self, rule: CampaignRule | None = None) -> None:
        self.rule = rule
        self.monitor = Monitor(baseline(), groups=())
        self.watch = CampaignWatch(baseline(), campaigns=rule)
        self.count = 0
        self.steps: Steps = []
        self.queries: list[LinkingQuery] = []
        self.rows: dict[SubjectKey, SubjectRow] = {}

    def run(self, log: list[Query], size: int = 64, *, restart: bool = False) -> Watch:
        for first in range(0, len(log), size):
            part = batch(log[first : first + size], self.count, ())
            self.count += len(part)
            seen = self.monitor.observe(part)
            rows = self.monitor.changed()
            steps = self.watch.observe(part, seen, rows)
            self.steps += [(part.ids[place], step) for place, step in steps]
            changes = self.watch.changes()
            self.queries += changes.queries
            self.rows |= {row.key: row for row in (*rows, *changes.campaigns)}
            self.monitor.saved()
            self.watch.saved()
            if restart:
                self.restart()
        return self

    def restart(self) -> None:
        """A new watch from what is stored."""
        old, fdr = self.watch, self.watch.rule.fdr
        joined = [one for one, _ in old.parts()]
        members = {one.client for one in joined}
        campaigns = {SubjectKey(CAMPAIGN, one.campaign) for one in joined}
        latest = {change.finding.subject: change.finding for _, change in self.steps}
        self.watch = CampaignWatch(baseline(), campaigns=self.rule)
        self.watch.restore(
            old.state,
            queries=self.queries[-4096:],
            joined=joined,
            accounts=[
                row
                for key, row in self.rows.items()
                if key.kind == CLIENT and (row.linking >= 1 / fdr or key.value in members)
            ],
            campaigns=[self.rows[key] for key in sorted(campaigns)],
            findings=[latest[key] for key in sorted(campaigns) if key in latest],
        )

    def campaigns(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for one, _ in self.watch.parts():
            found.setdefault(one.campaign, set()).add(one.client)
        return found

    def states(self) -> set[FindingState]:
        return {step.finding.state for _, step in self.steps}


def log(accounts: int, each: int, *, honest: int = 30, seed: int = 0) -> list[Query]:
    """Accounts of one thief, round robin, among honest clients with forty queries each."""
    stolen = foreign(accounts * each, seed=seed + 50)
    mules = [Query(f"mule-{i % accounts:02d}", vector, i + 1) for i, vector in enumerate(stolen)]
    others = [one for i in range(honest) for one in queries(f"honest-{i:02d}", native(40, seed=seed + i))]
    rng = np.random.default_rng(seed)
    places = np.concatenate([np.sort(rng.random(len(mules))), rng.random(len(others))])
    # Fingerprints apart: what is drawn here has no picture.
    both = [replace(one, fingerprint=0) for one in (*mules, *others)]
    order = np.argsort(places, kind="stable").tolist()
    return [replace(both[place], time=START + 1000 * i) for i, place in enumerate(order)]


def test_many_small_accounts_are_one_campaign() -> None:
    watch = Watch().run(log(20, 12))
    ((name, members),) = watch.campaigns().items()
    assert members == {f"mule-{i:02d}" for i in range(20)}
    assert name in members
    assert {step.finding.subject for _, step in watch.steps} == {SubjectKey(CAMPAIGN, name)}
    alerted = watch.steps[-1][1].finding
    assert alerted.state is FindingState.ALERTED
    assert alerted.alerted_at is not None
    assert alerted.alerted_at.queries <= 100
    assert 0 < alerted.exposure < 12 * 20


def test_honest_clients_are_no_campaign() -> None:
    watch = Watch().run(log(0, 0, honest=60))
    assert watch.watch.state.looks > 0
    assert watch.campaigns() == {}
    assert watch.steps == []


def test_a_few_integrators_junk_days_are_not_alerted() -> None:
    """Five, on one day and from one source: nothing tells them from a thief but how few they are."""
    watch = Watch().run(log(5, 18))
    assert FindingState.ALERTED not in watch.states()


def test_the_batches_make_no_difference() -> None:
    events = log(20, 12)
    whole = Watch().run(events, size=len(events))
    assert whole.steps
    for size, restart in ((1, False), (37, False), (64, True)):
        other = Watch().run(events, size, restart=restart)
        assert other.steps == whole.steps
        assert other.watch.parts() == whole.watch.parts()
        assert other.watch.state == whole.watch.state
        assert {key: row for key, row in other.rows.items() if key.kind == CAMPAIGN} == {
            key: row for key, row in whole.rows.items() if key.kind == CAMPAIGN
        }


def test_the_name_stays_while_a_campaign_grows() -> None:
    watch = Watch().run(log(10, 12))
    (name,) = watch.campaigns()
    more = [replace(one, client=one.client.replace("mule", "late")) for one in log(10, 12, honest=0, seed=9)]
    watch.run(more)
    ((same, members),) = watch.campaigns().items()
    assert same == name
    assert len(members) >= 18
    assert {step.finding.uid for _, step in watch.steps} == {watch.steps[0][1].finding.uid}


def test_a_campaign_closes_when_its_accounts_turn_honest() -> None:
    watch = Watch(CampaignRule(every=4)).run(log(8, 6))
    assert FindingState.SUSPECTED in watch.states()
    later = [one for i in range(8) for one in queries(f"mule-{i:02d}", native(600, seed=70 + i))]
    watch.run([replace(one, fingerprint=0) for one in later])
    assert watch.steps[-1][1].finding.state is FindingState.CLOSED
    assert watch.steps[-1][1].finding.closed_at is not None


def test_a_lone_thief_does_not_crowd_the_others_out() -> None:
    watch = Watch().run([Query("thief", vector) for vector in foreign(400, seed=1)])
    assert len(watch.queries) == PER_CLIENT
    assert watch.watch.state.looks == PER_CLIENT // watch.watch.rule.every
    assert watch.campaigns() == {}


@pytest.mark.parametrize("answer", ["", "coat"])
def test_linking_queries_are_odd_foreign_and_new(answer: str) -> None:
    events = [Query("a", vector) for vector in (*foreign(3, seed=1), *native(1, seed=2), *foreign(1, seed=3))]
    monitor, watch = Monitor(baseline(), groups=()), CampaignWatch(baseline())
    part = batch(events, 0, ())
    watch.observe(part, monitor.observe(part), monitor.changed(), [answer] * len(part))
    found = watch.changes().queries
    assert [one.event_id for one in found] == ["q-0", "q-2", "q-4"]
    assert [one.number for one in found] == [0, 1, 2]
    assert {one.answer for one in found} == {answer}
    assert watch.state.clients == 1
