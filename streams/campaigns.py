"""The campaigns of a watched endpoint, kept in step with what is stored."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

import storage.campaigns
import storage.findings
import storage.subjects
from detector.baseline import Baseline
from detector.campaign_watch import CampaignWatch, WatchState
from detector.evidence import EvidenceRule
from detector.groups import CAMPAIGN
from detector.progress import label_of
from detector.subjects import CLIENT, SubjectKey
from streams.events import QueryEvent

__all__ = ["answers_of", "stored_watch"]


def stored_watch(connection: Connection, baseline: Baseline, rule: EvidenceRule) -> CampaignWatch:
    """The endpoint's watch as it was stored last.

    Args:
        connection: to read from.
        baseline: the one in force.
        rule: when evidence suspects and exposure alerts.
    """
    watch, endpoint = CampaignWatch(baseline, rule), baseline.endpoint
    state = storage.campaigns.state(connection, endpoint)
    if state is None:
        judged = storage.subjects.count(connection, endpoint, kind=CLIENT)
        state = WatchState(due=watch.rule.every, clients=judged)
    joined = storage.campaigns.joined(connection, endpoint)
    campaigns = sorted({SubjectKey(CAMPAIGN, one.campaign) for one in joined})
    suspects = storage.subjects.linking_at_least(connection, endpoint, 1 / watch.rule.fdr)
    known = {row.key for row in suspects}
    members = [SubjectKey(CLIENT, one.client) for one in joined]
    watch.restore(
        state,
        queries=storage.campaigns.linking_queries(connection, endpoint, baseline.encoder.weights),
        joined=joined,
        accounts=[
            *suspects,
            *storage.subjects.load(connection, endpoint, [key for key in members if key not in known]),
        ],
        campaigns=storage.subjects.load(connection, endpoint, campaigns),
        findings=storage.findings.load_latest(connection, endpoint, campaigns),
    )
    return watch


def answers_of(events: Sequence[QueryEvent]) -> list[str]:
    """The class that each query was answered with, empty where the log does not say."""
    answers = [event.response for event in events]
    return ["" if one is None else label_of((one.label, one.scores)) or "" for one in answers]
