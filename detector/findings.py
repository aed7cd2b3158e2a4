"""What the detector tells people: one finding per subject and episode, from first suspicion to close."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from detector.groups import FLEET
from detector.signals import Signal
from detector.subjects import SubjectKey

__all__ = [
    "Action",
    "Activity",
    "Finding",
    "FindingChange",
    "FindingState",
    "Moment",
    "Severity",
    "SignalFigures",
]


class FindingState(StrEnum):
    """Where a finding stands: certainty alone, certainty with exposure, or lapsed."""

    SUSPECTED = "suspected"
    ALERTED = "alerted"
    CLOSED = "closed"


class Severity(IntEnum):
    """OCSF ``severity_id``: suspected is informational, alerts start at medium."""

    INFORMATIONAL = 1
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


class Action(StrEnum):
    """What to do about the subject, mildest first."""

    OBSERVE = "observe"
    THROTTLE = "throttle"
    PERTURB = "perturb"
    BLOCK = "block"


class Activity(StrEnum):
    """What happened to a finding (OCSF ``activity_id`` 1, 2 and 3)."""

    CREATE = "create"
    UPDATE = "update"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happened, on the subject's own clock and on the log's.

    Attributes:
        time: event time in milliseconds since the epoch, UTC.
        queries: how many queries the subject had sent by then, this one included.
        event_id: id of the query that made it happen.
    """

    time: int
    queries: int
    event_id: str


@dataclass(frozen=True, slots=True)
class SignalFigures:
    """What one signal has to say about a subject.

    Attributes:
        signal: which.
        evidence: the e-value of this signal alone, in [0, 100/α].
        exposure: its hits beyond what an honest client would have had.
        hits: its hits; out of domain those at τ = 0.05.
    """

    signal: Signal
    evidence: float
    exposure: float
    hits: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One episode of suspicion against one subject of one endpoint.

    Attributes:
        uid: stable over all updates of the episode; the same in a replay of the same log.
        endpoint: the model whose queries these were.
        subject: who is judged.
        sequence: 1 for the subject's first episode, 2 for the next after a close, and so on.
        state: suspected, alerted or closed.
        severity: grows with exposure while the finding is open.
        suspected_at: when the evidence crossed 1/α.
        alerted_at: when exposure was large enough too; None before that.
        closed_at: when the evidence had lapsed; None before that.
        evidence: the e-value at the latest change, in [0, 100/α].
        exposure: the largest excess of a signal's hits (out of domain: of foreign, novel, answered queries)
            at the latest change.
        queries: the subject's queries at the latest change.
        baseline: content hash of the baseline in force.
        signals: what each signal said at the latest change, in the order of `detector.signals.SIGNALS`; of a
            group out of domain alone.
    """

    uid: str
    endpoint: str
    subject: SubjectKey
    sequence: int
    state: FindingState
    severity: Severity
    suspected_at: Moment
    alerted_at: Moment | None
    closed_at: Moment | None
    evidence: float
    exposure: float
    queries: int
    baseline: str
    signals: tuple[SignalFigures, ...] = ()

    @property
    def action(self) -> Action:
        """The recommended action at this severity; a whole fleet is never acted on for what some did."""
        if self.state is not FindingState.ALERTED or self.subject.kind == FLEET:
            return Action.OBSERVE
        return {
            Severity.INFORMATIONAL: Action.OBSERVE,
            Severity.MEDIUM: Action.THROTTLE,
            Severity.HIGH: Action.PERTURB,
            Severity.CRITICAL: Action.BLOCK,
        }[self.severity]


@dataclass(frozen=True, slots=True)
class FindingChange:
    """A step in a finding's life, in the order in which the events caused it.

    Attributes:
        activity: what happened.
        finding: the finding as it stands after it.
        at: the query that made it happen.
    """

    activity: Activity
    finding: Finding
    at: Moment
