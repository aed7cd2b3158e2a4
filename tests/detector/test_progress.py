from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from detector.errors import DetectorError
from detector.progress import (
    LARGEST_EXAM,
    Answer,
    Answered,
    Exam,
    Progress,
    due,
    label_of,
    progress_of,
    scheduled,
)
from detector.surrogate import Space, label_exam

CLASSES = ("coat", "shirt", "sneaker", "trouser")


def pictures(n: int, seed: int, dim: int = 24) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int64]]:
    """Pictures of four classes that overlap a little, and what the endpoint answers to each."""
    centres = np.random.default_rng(7).standard_normal((len(CLASSES), dim))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), n)
    vectors = centres[labels] + 1.6 * rng.standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16), labels


def named(labels: npt.NDArray[np.int64]) -> list[Answer]:
    return [(CLASSES[label], {}) for label in labels.tolist()]


def an_exam(n: int = 400) -> Exam:
    embeddings, labels = pictures(n, seed=1)
    return Exam.choose(embeddings, named(labels))


def measured(exam: Exam, embeddings: npt.NDArray[np.float16], answers: list[Answer]) -> Progress:
    return progress_of(exam, Answered.of(exam, embeddings, answers), len(answers))


def test_the_schedule_doubles() -> None:
    assert [scheduled(n) for n in (0, 63, 64, 127, 128, 5_000)] == [0, 0, 64, 64, 128, 4096]
    steps = [n for n in range(1, 1025) if due(n - 1, n)]
    assert steps == [64, 128, 256, 512, 1024]
    for cut in (1, 7, 100, 1000):
        ends = [*range(0, 1024, cut), 1024]
        last = [scheduled(after) for before, after in pairwise(ends) if due(before, after)]
        assert last[-1] == 1024
    assert not due(64, 127)


def test_more_answers_give_more_agreement() -> None:
    exam = an_exam()
    embeddings, labels = pictures(1024, seed=2)
    found = [measured(exam, embeddings[:n], named(labels[:n])) for n in (16, 128, 1024)]
    assert found[0].strong < found[1].strong <= found[2].strong
    assert found[2].strong > 0.9
    for one in found:
        assert 0.0 <= one.low < one.strong < one.high <= 1.0
        assert one.weak <= one.strong
    assert found[0].weak < found[0].strong - 0.05
    assert found[2].answered == found[2].queries == 1024


def test_the_same_pairs_give_the_same_bits() -> None:
    embeddings, labels = pictures(300, seed=2)
    assert measured(an_exam(), embeddings, named(labels)) == measured(an_exam(), embeddings, named(labels))


def test_scores_say_more_than_labels() -> None:
    exam = an_exam()
    embeddings, labels = pictures(2048, seed=3)
    teacher = Space.of(exam.embeddings)(embeddings)
    centres = np.stack([teacher[labels == k].mean(axis=0) for k in range(len(CLASSES))])
    logits = 3.0 * teacher @ centres.T
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    sharp: list[Answer] = [(None, dict(zip(CLASSES, row, strict=True))) for row in scores[:12].tolist()]
    truth = Exam(
        exam.embeddings,
        (Space.of(exam.embeddings)(exam.embeddings) @ centres.T).argmax(axis=1),
        CLASSES,
    )
    hard: list[Answer] = [(label_of(answer), {}) for answer in sharp]
    assert measured(truth, embeddings[:12], sharp).strong > measured(truth, embeddings[:12], hard).strong


def test_what_cannot_be_used_is_counted() -> None:
    exam = an_exam()
    embeddings, labels = pictures(100, seed=4)
    answers = named(labels)
    answers[:10] = [(None, {})] * 10
    answers[10:15] = [("zebra", {})] * 5
    answers[15] = ("coat", {"coat": float("nan")})
    answers[16] = ("coat", {"coat": -3.0, "shirt": 8.0})
    answers[17] = ("coat", {"zebra": 0.4})
    answers[18] = (None, {"coat": 0.5, "shirt": 0.5})
    pairs = Answered.of(exam, embeddings, answers)
    assert (len(pairs), pairs.skipped) == (85, 5)
    np.testing.assert_array_equal(pairs.answers[:3], [[1, 0, 0, 0]] * 3)
    np.testing.assert_array_equal(pairs.answers[3], [0.5, 0.5, 0, 0])
    np.testing.assert_allclose(pairs.answers.sum(axis=1), 1.0)
    found = progress_of(exam, pairs, 100)
    assert (found.queries, found.answered, found.skipped) == (100, 85, 5)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_little_is_worth_the_best_constant_guess(n: int) -> None:
    exam = an_exam()
    embeddings, labels = pictures(n, seed=5)
    guess = np.bincount(exam.labels).max() / len(exam)
    found = measured(exam, embeddings, named(labels))
    assert found.strong == found.weak == guess
    alike = measured(exam, pictures(50, seed=5)[0], [("coat", {})] * 50)
    assert alike.strong == alike.weak == guess


def test_asked_exam_pictures_do_not_count() -> None:
    exam = an_exam()
    answers = named(exam.labels)
    memorised = Exam(exam.embeddings, np.random.default_rng(0).permutation(exam.labels), CLASSES)
    half = len(exam) // 2
    found = measured(memorised, exam.embeddings[:half], named(memorised.labels[:half]))
    assert found.strong < 0.5
    assert measured(exam, exam.embeddings, answers).strong > 0.9


def test_an_exam_is_chosen_from_what_was_answered() -> None:
    embeddings, labels = pictures(3000, seed=6)
    answers = named(labels)
    answers[::3] = [(None, {})] * 1000
    exam = Exam.choose(np.vstack([embeddings, embeddings]), answers + answers)
    assert len(exam) == LARGEST_EXAM
    assert len(np.unique(exam.embeddings, axis=0)) == LARGEST_EXAM
    places = {row.tobytes(): place for place, row in enumerate(embeddings)}
    for row, label in zip(exam.embeddings, exam.labels, strict=True):
        assert answers[places[row.tobytes()]][0] == exam.classes[label]
    copy = Exam.from_arrays({"other": np.zeros(1), **exam.arrays()})
    assert copy is not None
    assert copy.classes == CLASSES
    np.testing.assert_array_equal(copy.embeddings, exam.embeddings)
    np.testing.assert_array_equal(copy.labels, exam.labels)
    assert Exam.from_arrays({"other": np.zeros(1)}) is None


def test_no_exam_without_answers() -> None:
    embeddings, labels = pictures(200, seed=6)
    with pytest.raises(DetectorError, match="49 distinct pictures with the endpoint's answer"):
        Exam.choose(embeddings, named(labels[:49]) + [(None, {})] * 151)
    with pytest.raises(DetectorError, match="one answer to all, 'coat'"):
        Exam.choose(embeddings, [("coat", {})] * 200)
    with pytest.raises(DetectorError, match="0 distinct"):
        Exam.choose(embeddings[:0], [])


def test_the_surrogate_reaches_the_minimum() -> None:
    """A general optimiser finds no better weights; few pairs take the other Gram matrix."""
    from scipy.optimize import minimize

    from detector.surrogate import RIDGE

    for n in (12, 60):
        embeddings, labels = pictures(n, seed=8)
        space = Space.of(pictures(200, seed=9)[0])
        inputs, exam = space(embeddings), space(pictures(200, seed=9)[0])
        answers = np.eye(len(CLASSES))[labels]
        centred = np.hstack([inputs - inputs.mean(axis=0), np.full((n, 1), 0.1)])

        def loss(
            flat: npt.NDArray[np.float64],
            centred: npt.NDArray[np.float64] = centred,
            answers: npt.NDArray[np.float64] = answers,
        ) -> float:
            weights = flat.reshape(-1, len(CLASSES))
            said = centred @ weights
            log = said - np.logaddexp.reduce(said, axis=1, keepdims=True)
            return float(-(answers * log).sum() + 0.5 * RIDGE * np.square(weights).sum())

        best = minimize(loss, np.zeros(centred.shape[1] * len(CLASSES)), method="L-BFGS-B").x
        sat = np.hstack([exam - inputs.mean(axis=0), np.full((len(exam), 1), 0.1)])
        expected = (sat @ best.reshape(-1, len(CLASSES))).argmax(axis=1)
        assert (label_exam(inputs, answers, exam) == expected).mean() > 0.98


def test_five_thousand_pairs_take_less_than_a_second() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((6000, 512))
    embeddings = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    labels = rng.integers(0, 10, 6000)
    answers: list[Answer] = [(f"class {label}", {}) for label in labels.tolist()]
    exam = Exam.choose(embeddings[5000:], answers[5000:])
    pairs = Answered.of(exam, embeddings[:5000], answers[:5000])
    started = time.process_time()
    progress_of(exam, pairs, 5000)
    assert time.process_time() - started < 1.0
