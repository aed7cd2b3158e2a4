"""Banken over a log, exactly as the pipeline uses it: what it found, when, and about whom."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from detector.baseline import Baseline
from detector.campaign_watch import CampaignWatch
from detector.findings import FindingChange, FindingState
from detector.groups import CAMPAIGN, groups_of
from detector.monitor import Batch, Monitor
from detector.subjects import CLIENT, SubjectKey, SubjectRow
from redteam.traffic import Traffic

__all__ = ["Step", "Watched", "batches_of", "watch"]

_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Step:
    """A step in the life of a subject's finding.

    Attributes:
        row: of the log, from 0, that caused it.
        queries: that the subject had sent by then.
        state: of the finding from then on.
        leading: the signal with the largest exposure at that moment, or empty.
    """

    row: int
    queries: int
    state: FindingState
    leading: str


@dataclass(slots=True)
class Watched:
    """What a log showed.

    Attributes:
        steps: of each subject that was ever suspected, in order.
        members: clients of each group, and of each campaign that was found.
        evidence: of every client at the end of the log.
        seconds: spent in the detector.
    """

    steps: dict[SubjectKey, list[Step]] = field(default_factory=dict)
    members: defaultdict[SubjectKey, set[str]] = field(default_factory=lambda: defaultdict(set))
    evidence: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def first(self, subject: SubjectKey, *states: FindingState, since: int = 0) -> Step | None:
        """The step that first brought a subject's finding into one of some states.

        Args:
            subject: whose.
            states: that count.
            since: of the subject's own queries. What it was in before is the answer if it was in it still.
        """
        latest: Step | None = None
        for step in self.steps.get(subject, []):
            if step.queries > since and latest is not None and latest.state in states:
                return latest
            if step.queries > since and step.state in states:
                return step
            latest = step
        return latest if latest is not None and latest.state in states else None


def batches_of(traffic: Traffic, groups: Sequence[str] = ()) -> Iterator[Batch]:
    """A log as the detector takes it, about a thousand queries at a time.

    Args:
        traffic: the log.
        groups: kinds of groups that are judged beside clients.
    """
    margins = traffic.pictures.margins
    for first in range(0, len(traffic), _ROWS):
        rows = slice(first, first + _ROWS)
        yield Batch(
            ids=[str(row) for row in range(first, min(first + _ROWS, len(traffic)))],
            times=traffic.times[rows],
            clients=traffic.clients[rows],
            groups=[groups_of(said, groups) for said in traffic.attributes[rows]],
            embeddings=traffic.pictures.embeddings[rows],
            fingerprints=traffic.pictures.fingerprints[rows],
            margins=margins[rows],
        )


def watch(
    baseline: Baseline, traffic: Traffic, *, groups: Sequence[str] = (), classes: Sequence[str] | None = None
) -> Watched:
    """Run Banken over a log from its first query, with the default rule.

    Args:
        baseline: with the benign rates of the trusted history.
        traffic: the log.
        groups: kinds of groups that are judged beside clients.
        classes: the endpoint's, in the order of its scores; given, campaigns are looked for too.
    """
    monitor, watched = Monitor(baseline, groups=groups), Watched()
    campaigns = CampaignWatch(baseline) if classes else None
    for number, batch in enumerate(batches_of(traffic, groups)):
        first = number * _ROWS
        began = time.perf_counter()
        seen = monitor.observe(batch)
        steps = list(zip(seen.causes, seen.changes, strict=True))
        if campaigns is not None and classes:
            rows = [_row(monitor, client) for client in set(batch.clients)]
            told = traffic.pictures.answers[first : first + len(batch)].argmax(axis=1)
            steps += campaigns.observe(batch, seen, rows, [classes[best] for best in told])
            campaigns.saved()
        monitor.saved()
        watched.seconds += time.perf_counter() - began
        for cause, change in steps:
            _note(watched, change, first + cause)
        for client, keys in zip(batch.clients, batch.groups, strict=True):
            for key in keys:
                if key is not None:
                    watched.members[key].add(client)
    for joined, _ in campaigns.parts() if campaigns is not None else []:
        watched.members[SubjectKey(CAMPAIGN, joined.campaign)].add(joined.client)
    watched.evidence = {client: _row(monitor, client).evidence for client in set(traffic.clients)}
    return watched


def _row(monitor: Monitor, client: str) -> SubjectRow:
    row = monitor.subject(SubjectKey(CLIENT, client))
    assert row is not None  # no log of the benchmark has more clients than the monitor has room for
    return row


def _note(watched: Watched, change: FindingChange, row: int) -> None:
    finding = change.finding
    leading = max(finding.signals, key=lambda figures: figures.exposure, default=None)
    step = Step(row, change.at.queries, finding.state, "" if leading is None else leading.signal.value)
    watched.steps.setdefault(finding.subject, []).append(step)
