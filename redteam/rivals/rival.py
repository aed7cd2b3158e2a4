"""What a published detector is to the benchmark: a score after each query of a client, and a threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from redteam.errors import RedteamError
from redteam.pictures import Pictures

__all__ = ["CHUNK", "Rival", "Scores", "Watch", "exceeded_by", "peaks", "quantile_rule", "scores_of"]

CHUNK = 256
"""Queries pushed at once: the products are matrix products, and an alarm still ends a long stream early."""


class Rival(Protocol):
    """A detector that watches one client at a time."""

    @property
    def name(self) -> str:
        """What the tables call it."""

    def alarm(self, asked: Pictures) -> int | None:
        """The number, from 1, of the query at which it first alarms; None if it never does.

        Args:
            asked: everything that one client asks, in order.
        """


class Scores(Protocol):
    """One client's state, which each further query moves on."""

    def push(self, asked: Pictures) -> npt.NDArray[np.float64]:
        """Take the client's next queries, in order.

        Returns:
            The score after each of them, higher for worse, shape (n,); NaN while the method has nothing to
            say.
        """


@dataclass(frozen=True, slots=True)
class Watch:
    """A rival that alarms once its score exceeds a threshold.

    Attributes:
        name: what the tables call it.
        threshold: highest score that raises no alarm.
        start: makes the state of a client of whom nothing is known yet.
    """

    name: str
    threshold: float
    start: Callable[[], Scores]

    def alarm(self, asked: Pictures) -> int | None:
        """The number, from 1, of the first query after which the score exceeds the threshold."""
        state = self.start()
        for at in range(0, len(asked), CHUNK):
            over = np.flatnonzero(state.push(asked[at : at + CHUNK]) > self.threshold)
            if over.size:
                return at + int(over[0]) + 1
        return None


def scores_of(start: Callable[[], Scores], asked: Pictures) -> npt.NDArray[np.float64]:
    """The score after each query of one client, shape (n,); NaN where the method has nothing to say."""
    state = start()
    parts = [state.push(asked[at : at + CHUNK]) for at in range(0, len(asked), CHUNK)]
    return np.concatenate(parts) if parts else np.empty(0)


def peaks(name: str, start: Callable[[], Scores], trusted: Sequence[Pictures]) -> npt.NDArray[np.float64]:
    """The highest score of each trusted client who has one, shape (clients,).

    Raises:
        RedteamError: no client asked enough for a single score.
    """
    scores = [scores_of(start, asked) for asked in trusted]
    highest = [np.nanmax(each) for each in scores if np.isfinite(each).any()]
    if not highest:
        raise RedteamError(_too_short(name, trusted))
    return np.array(highest, np.float64)


def quantile_rule(
    name: str, start: Callable[[], Scores], trusted: Sequence[Pictures], false_positives: float
) -> float:
    """The score that at most a share ``false_positives`` of all the trusted clients' scores exceeds.

    Raises:
        RedteamError: no client asked enough for a single score.
    """
    scores = np.concatenate([np.empty(0), *(scores_of(start, asked) for asked in trusted)])
    scores = scores[np.isfinite(scores)]
    if not scores.size:
        raise RedteamError(_too_short(name, trusted))
    return exceeded_by(scores, false_positives)


def exceeded_by(scores: npt.NDArray[np.float64], share: float) -> float:
    """The lowest of the scores that at most this share of them exceeds."""
    return float(np.sort(scores)[-1 - int(share * len(scores))])


def _too_short(name: str, trusted: Sequence[Pictures]) -> str:
    longest = max((len(asked) for asked in trusted), default=0)
    return (
        f"{name}: none of {len(trusted)} trusted clients asked enough to fit its threshold "
        f"(the longest asked {longest}): give longer streams"
    )
