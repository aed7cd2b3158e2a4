"""A finding's life: opened, grown, closed, opened again."""

from __future__ import annotations

import numpy as np
import pytest

from detector.episodes import Episodes, next_stage
from detector.evidence import EvidenceRule
from detector.findings import Action, Activity, Finding, FindingState, Moment, Severity, SignalFigures
from detector.signals import Signal
from detector.subjects import CLIENT, SubjectKey

RULE = EvidenceRule(alpha=0.001, alert_exposure=25.0)
THIEF = SubjectKey(CLIENT, "thief")


@pytest.mark.parametrize(
    ("evidence", "exposure", "stage", "then"),
    [
        (999.0, 500.0, 0, 0),  # exposed, but not certain
        (1000.0, 0.0, 0, 1),
        (1000.0, 24.9, 1, 1),
        (1000.0, 25.0, 0, 3),
        (1000.0, 100.0, 3, 4),
        (1e5, 400.0, 1, 5),
        (1000.0, 10.0, 4, 4),  # the highest severity stays
        (999.0, 400.0, 1, 1),  # below the threshold nothing grows
        (1.0, 400.0, 3, 3),
        (0.999, 400.0, 5, 0),  # lapsed
        (0.999, 0.0, 0, 0),
    ],
)
def test_certainty_suspects_exposure_alerts_and_lapsing_closes(
    evidence: float, exposure: float, stage: int, then: int
) -> None:
    found = next_stage(RULE, np.array([evidence]), np.array([exposure]), np.array([stage]))
    assert found.tolist() == [then]


def moment(queries: int) -> Moment:
    return Moment(1000 * queries, queries, f"q-{queries}")


def figures(exposure: float) -> tuple[SignalFigures, ...]:
    """Of two signals, of which the second one is exposed the most."""
    return (
        SignalFigures(Signal.OUT_OF_DOMAIN, 7.0, exposure / 2, 3),
        SignalFigures(Signal.PERTURBATION, 9.0, exposure, 4),
    )


def test_a_finding_lives_from_suspicion_to_close() -> None:
    episodes = Episodes("garments", "hash")
    opened = episodes.move(THIEF, 1, 1, at=moment(5), evidence=1200.0, signals=figures(4.0))
    assert opened.activity is Activity.CREATE
    assert (opened.finding.signals, opened.finding.exposure) == (figures(4.0), 4.0)
    assert opened.finding.state is FindingState.SUSPECTED
    assert opened.finding.action is Action.OBSERVE
    alerted = episodes.move(THIEF, 1, 3, at=moment(32), evidence=1e5, signals=figures(25.5))
    assert alerted.activity is Activity.UPDATE
    assert alerted.finding.alerted_at == moment(32)
    assert (alerted.finding.signals, alerted.finding.exposure) == (figures(25.5), 25.5)
    assert alerted.finding.action is Action.THROTTLE
    worse = episodes.move(THIEF, 1, 5, at=moment(500), evidence=1e5, signals=figures(400.0))
    assert (worse.finding.severity, worse.finding.action) == (Severity.CRITICAL, Action.BLOCK)
    assert worse.finding.alerted_at == moment(32)
    closed = episodes.move(THIEF, 1, 0, at=moment(9000), evidence=0.9, signals=figures(0.0))
    assert closed.activity is Activity.CLOSE
    assert closed.finding.state is FindingState.CLOSED
    assert (closed.finding.suspected_at, closed.finding.closed_at) == (moment(5), moment(9000))
    assert closed.finding.severity is Severity.CRITICAL
    again = episodes.move(THIEF, 2, 1, at=moment(9100), evidence=1001.0, signals=figures(9.0))
    assert again.activity is Activity.CREATE
    uids = {step.finding.uid for step in (opened, alerted, worse, closed)}
    assert len(uids) == 1
    assert again.finding.uid not in uids


def test_uids_are_the_same_in_every_process_and_differ_by_endpoint_subject_and_episode() -> None:
    def uid(endpoint: str, key: SubjectKey, sequence: int) -> str:
        return (
            Episodes(endpoint, "hash")
            .move(key, sequence, 1, at=moment(1), evidence=1e3, signals=figures(0.0))
            .finding.uid
        )

    assert uid("e", THIEF, 1) == uid("e", THIEF, 1)
    others = {uid("e", THIEF, 2), uid("f", THIEF, 1), uid("e", SubjectKey("org", "thief"), 1)}
    assert len(others | {uid("e", THIEF, 1)}) == 4


def test_an_alert_at_once_is_suspected_and_alerted_at_the_same_query() -> None:
    found = (
        Episodes("e", "hash").move(THIEF, 1, 4, at=moment(7), evidence=1e5, signals=figures(110.0)).finding
    )
    assert found.state is FindingState.ALERTED
    assert found.suspected_at == found.alerted_at == moment(7)
    assert found.action is Action.PERTURB


def test_a_stored_finding_goes_on_under_the_baseline_in_force() -> None:
    first = (
        Episodes("e", "old").move(THIEF, 1, 1, at=moment(5), evidence=1200.0, signals=figures(4.0)).finding
    )
    later = Episodes("e", "new")
    later.insert([first])
    grown = later.move(THIEF, 1, 3, at=moment(40), evidence=1e5, signals=figures(30.0))
    assert grown.activity is Activity.UPDATE
    assert (grown.finding.uid, grown.finding.suspected_at) == (first.uid, moment(5))
    assert (first.baseline, grown.finding.baseline) == ("old", "new")


def test_forgotten_findings_are_not_kept_in_memory() -> None:
    episodes = Episodes("e", "hash")
    found: Finding = episodes.move(THIEF, 1, 1, at=moment(5), evidence=1200.0, signals=figures(4.0)).finding
    episodes.forget([THIEF, SubjectKey(CLIENT, "nobody")])
    episodes.insert([found])
    assert (
        episodes.move(THIEF, 1, 3, at=moment(9), evidence=1e5, signals=figures(26.0)).activity
        is Activity.UPDATE
    )
