"""Extraction progress: how much of the endpoint a subject could reproduce with what it has been answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from detector.errors import DetectorError
from detector.surrogate import Space, label_exam

__all__ = [
    "LARGEST_EXAM",
    "MOST_PAIRS",
    "Answer",
    "Answered",
    "Exam",
    "Progress",
    "due",
    "progress_of",
    "scheduled",
]

FIRST = 64
"""Queries after which progress is first measured; then after twice as many, and so on."""

MOST_PAIRS = 8192
"""Pairs that a surrogate is fitted on at most: the latest ones."""

LARGEST_EXAM = 1000
SMALLEST_EXAM = 50

FEWEST_PAIRS = 4
"""With fewer pairs nothing is fitted."""

WITHOUT_FEATURES = (0.7, 0.7)
"""A thief without foundation features learns from n answers what one with them learns from a·n^b of them.

With these a and b, 18 of 100, 54 of 500, 143 of 2,000; docs/progress.md says where they come from."""

DRAWS = 4

Answer = tuple[str | None, Mapping[str, float]]
"""One response: the label, where the log has one, and scores by label, where it has them."""


@dataclass(frozen=True)
class Exam:
    """Held-out pictures of the domain with the endpoint's own answers.

    Attributes:
        embeddings: L2-normalised float16, shape (m, d).
        labels: index of each answer among the classes, int64, shape (m,).
        classes: every class that was answered, sorted.
    """

    embeddings: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    @classmethod
    def choose(cls, embeddings: npt.NDArray[np.float16], answers: Sequence[Answer]) -> Exam:
        """Make an exam of answered pictures: distinct ones, at most :data:`LARGEST_EXAM`, drawn evenly.

        Args:
            embeddings: L2-normalised float16, shape (n, d).
            answers: what the endpoint answered to each, n of them; those without a label are left out.

        Raises:
            DetectorError: too few answered pictures, or all with one answer; the message says which.
        """
        labels = [label_of(answer) for answer in answers]
        answered = [place for place, label in enumerate(labels) if label is not None]
        _, first = np.unique(embeddings[answered], axis=0, return_index=True)
        if len(first) < SMALLEST_EXAM:
            raise DetectorError(
                f"{len(first)} distinct pictures with the endpoint's answer: extraction progress takes "
                f"{SMALLEST_EXAM}, better {LARGEST_EXAM}"
            )
        first.sort()
        spread = np.linspace(0, len(first) - 1, min(len(first), LARGEST_EXAM)).round().astype(np.intp)
        kept = [answered[place] for place in first[spread].tolist()]
        names = [str(labels[place]) for place in kept]
        classes = tuple(sorted(set(names)))
        if len(classes) < 2:
            raise DetectorError(f"one answer to all, {classes[0]!r}: extraction progress takes two")
        number = {name: index for index, name in enumerate(classes)}
        return cls(embeddings[kept], np.array([number[name] for name in names], np.int64), classes)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def space(self) -> Space:
        """How a thief's features see the domain."""
        return Space.of(self.embeddings)

    @cached_property
    def features(self) -> npt.NDArray[np.float64]:
        """The exam in that space, shape (m, r)."""
        return self.space(self.embeddings)

    @cached_property
    def rows(self) -> tuple[bytes, ...]:
        """The embeddings' bytes, to recognise one."""
        return tuple(row.tobytes() for row in self.embeddings)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As plain arrays for an archive; nothing in them is pickled."""
        classes = np.frombuffer(json.dumps(self.classes).encode(), np.uint8)
        return {"exam_embeddings": self.embeddings, "exam_labels": self.labels, "exam_classes": classes}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Exam | None:
        """Read what :meth:`arrays` wrote; None where there is no exam among the arrays."""
        if "exam_labels" not in arrays:
            return None
        classes = tuple(json.loads(arrays["exam_classes"].tobytes()))
        return cls(arrays["exam_embeddings"], arrays["exam_labels"], classes)


@dataclass(frozen=True, slots=True)
class Answered:
    """The pairs that a surrogate can learn from.

    Attributes:
        embeddings: L2-normalised float16, shape (n, d).
        answers: scores that sum to 1 over the exam's classes, float64, shape (n, classes).
        skipped: pairs left out because the exam has no such class.
    """

    embeddings: npt.NDArray[np.float16]
    answers: npt.NDArray[np.float64]
    skipped: int = 0

    @classmethod
    def of(cls, exam: Exam, embeddings: npt.NDArray[np.float16], answers: Sequence[Answer]) -> Answered:
        """Keep the pairs with a usable response: scores where they are probabilities, else the label.

        Args:
            exam: gives the classes.
            embeddings: L2-normalised float16, shape (n, d).
            answers: n of them.
        """
        number = {name: index for index, name in enumerate(exam.classes)}
        kept: list[int] = []
        rows = np.zeros((len(answers), len(number)))
        skipped = 0
        for place, answer in enumerate(answers):
            label = label_of(answer)
            if label not in number:
                skipped += label is not None
                continue
            row = rows[len(kept)]
            kept.append(place)
            scores = [(number[name], score) for name, score in answer[1].items() if name in number]
            total = sum(score for _, score in scores)
            if total > 0.0 and all(isfinite(score) and score >= 0.0 for _, score in scores):
                for index, score in scores:
                    row[index] = score / total
            else:
                row[number[label]] = 1.0
        return cls(embeddings[kept], rows[: len(kept)], skipped)

    def __len__(self) -> int:
        return len(self.answers)


@dataclass(frozen=True, slots=True)
class Progress:
    """Agreement with the endpoint that a thief could reach with what a subject has been answered.

    It speaks of risk, not of intent.

    Attributes:
        queries: the subject's queries by then.
        answered: those of them that the surrogates learned from.
        skipped: answered ones left out because the exam has no such class.
        strong: share of the exam that a thief with foundation features answers as the endpoint does.
        low: lower end of the 95 % interval of ``strong`` over exams of this size.
        high: its upper end.
        weak: the share of a thief without foundation features.
    """

    queries: int
    answered: int
    skipped: int
    strong: float
    low: float
    high: float
    weak: float


def scheduled(queries: int) -> int:
    """The largest number of the schedule 64, 128, 256, … that is at most ``queries``; 0 before the first."""
    return 0 if queries < FIRST else 1 << (queries.bit_length() - 1)


def due(before: int, after: int) -> bool:
    """Whether a subject that went from ``before`` queries to ``after`` is to be measured anew."""
    return scheduled(after) > before


def progress_of(exam: Exam, pairs: Answered, queries: int) -> Progress:
    """Measure extraction progress.

    A surrogate (:func:`detector.surrogate.label_exam`) is fitted on the pairs in the space of the exam, and
    answers the exam: as a thief with foundation features, who learns from all of them, and as one without,
    who learns what the other learns from a few (:data:`WITHOUT_FEATURES`). Exam pictures that the subject has
    asked itself are left out. Nobody has less than the best constant guess.

    Args:
        exam: held-out pictures.
        pairs: what the subject was answered, the latest :data:`MOST_PAIRS` of them.
        queries: the subject's queries, answered or not.

    References:
        Raj, Varma and Arora (2024), arXiv 2502.18077: agreement with and without foundation features.
        Wilson (1927), J. Amer. Statist. Assoc. 22: the interval.
    """
    held = _not_asked(exam, pairs.embeddings)
    truth = exam.labels[held]
    guess = int(np.bincount(truth).max())
    # Sums of several threads have no order, and a replay must find the same figures.
    with threadpool_limits(1):
        asked, sat = exam.space(pairs.embeddings), exam.features[held]
        strong = max(guess, _agreeing(asked, pairs.answers, sat, truth))
        # Few pairs say much or little by chance, so the mean of several draws is taken.
        draws = [_agreeing(asked[few], pairs.answers[few], sat, truth) for few in _draws(len(pairs))]
    weak = min(max(guess, sum(draws) / len(draws)), strong)
    low, high = _wilson(strong, len(truth))
    n = len(truth)
    return Progress(queries, len(pairs), pairs.skipped, strong / n, low, high, weak / n)


def label_of(answer: Answer) -> str | None:
    """The label of a response: the one it names, else the one with the highest score, else None."""
    label, scores = answer
    if label is not None:
        return label
    return min(scores, key=lambda name: (-scores[name], name), default=None)


def _draws(n: int) -> Iterator[npt.NDArray[np.int64]]:
    """Evenly spread places of the few pairs among n, :data:`DRAWS` times, each time moved on a little."""
    scale, power = WITHOUT_FEATURES
    few = round(scale * n**power)
    for draw in range(DRAWS):
        yield ((np.arange(few) + draw / DRAWS) * (n / max(few, 1))).astype(np.int64)


def _agreeing(
    asked: npt.NDArray[np.float64],
    answers: npt.NDArray[np.float64],
    exam: npt.NDArray[np.float64],
    truth: npt.NDArray[np.int64],
) -> int:
    if len(asked) < FEWEST_PAIRS or len(np.unique(answers.argmax(axis=1))) < 2:
        return 0
    return int((label_exam(asked, answers, exam) == truth).sum())


def _not_asked(exam: Exam, embeddings: npt.NDArray[np.float16]) -> npt.NDArray[np.bool_]:
    """Exam pictures that are none of the given; all of them where none would be left."""
    asked = {row.tobytes() for row in embeddings}
    held = np.array([row not in asked for row in exam.rows])
    return held if held.any() else np.ones(len(exam), np.bool_)


def _wilson(hits: int, n: int) -> tuple[float, float]:
    z = 1.959964
    centre, spread = hits + z * z / 2, z * sqrt(hits * (n - hits) / n + z * z / 4)
    return max(0.0, (centre - spread) / (n + z * z)), min(1.0, (centre + spread) / (n + z * z))
