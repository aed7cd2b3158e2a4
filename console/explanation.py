"""A finding in words that need no training to understand."""

from __future__ import annotations

from console.output import clean, when
from detector.findings import Finding, FindingState, SignalFigures
from detector.groups import FLEET
from detector.signals import Signal
from detector.subjects import CLIENT
from storage.progress import SubjectProgress

__all__ = ["explain", "explain_progress"]

_SPEAKS = 20.0
"""Evidence from which a signal has something to say beside the strongest."""

_WORDS = {
    Signal.OUT_OF_DOMAIN: "{hits:,} of them show what this model is not for and are new, more than honest "
    "clients send",
    Signal.COVERAGE: "it goes from one region of the model's domain to the next faster than honest "
    "clients do, as if to map it",
    Signal.PERTURBATION: "{hits:,} of them are slightly altered copies of its own earlier pictures, as when "
    "a thief multiplies the few that he has",
    Signal.BOUNDARY: "{hits:,} of them are pictures that the model can hardly decide, more than honest "
    "clients send",
}


def explain(finding: Finding, members: list[str]) -> str:
    """One paragraph: who, what speaks against them, since when, how sure, what to do."""
    kind, value = finding.subject
    who = f"{kind.capitalize()} {value}"
    if kind != CLIENT and members:
        who = f"{len(members)} suspected accounts of {kind} {value} together"
    since = f"since query {finding.suspected_at.queries:,} on {when(finding.suspected_at.time)} UTC"
    tense = "was, at its latest change," if finding.state is FindingState.CLOSED else "is now"
    text = (
        f"{who}: {finding.queries:,} queries to {finding.endpoint}. {_reasons(finding)} Suspected {since}; "
        f"the evidence against chance {tense} {finding.evidence:,.0f} to 1. About {finding.exposure:,.0f} "
        "such queries were answered beyond what an honest client would have asked."
    )
    if finding.state is FindingState.SUSPECTED:
        text += " That is too few to matter yet: keep an eye on it."
    elif finding.state is FindingState.CLOSED:
        text += " The evidence has lapsed or an analyst closed it."
    else:
        text += f" Recommended: {finding.action.value} {_whom(finding, members)}."
    if kind != CLIENT and members:
        more = f" and {len(members) - 10} more" if len(members) > 10 else ""
        text += f" Accounts: {', '.join(members[:10])}{more}."
    return clean(text)


def explain_progress(measured: SubjectProgress) -> str:
    """How much of the model it could reproduce by now, in a sentence or two."""
    progress, coverage = measured.progress, measured.coverage
    text = f"With what it had been answered by query {measured.queries:,}, "
    if progress is None:
        text += "how much it could reproduce is unknown: the baseline holds no answers of the model."
    else:
        text += (
            f"it could answer as your model does in {progress.strong:.0%} ({progress.low:.0%} to "
            f"{progress.high:.0%}) of cases; a thief who trains from scratch in {progress.weak:.0%}."
        )
        if progress.answered < measured.queries:
            text += f" Learned from {progress.answered:,} logged answers."
        if progress.skipped:
            text += f" {progress.skipped:,} answers are of classes that the baseline has not seen."
    if coverage.visited is not None:
        text += f" It has visited {coverage.visited:.0%} of the domain."
    return text


def _reasons(finding: Finding) -> str:
    """What the signals say, the strongest first."""
    # Findings of before there were other signals say what out of domain said.
    said = sorted(finding.signals, key=lambda one: -one.evidence)
    if not said:
        return "More of them lie outside what this model is for than honest clients send."
    loud: list[SignalFigures] = [one for one in said if one.evidence >= _SPEAKS] or said[:1]
    sentence = "; and ".join(_WORDS[one.signal].format(hits=one.hits) for one in loud)
    return f"{sentence[:1].upper()}{sentence[1:]}."


def _whom(finding: Finding, members: list[str]) -> str:
    if finding.subject.kind == FLEET:
        return "the fleet, and act on its accounts"
    return "these accounts" if finding.subject.kind != CLIENT and members else f"this {finding.subject.kind}"
