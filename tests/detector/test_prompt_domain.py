"""A domain that is declared in words: its score against the definition, and what a baseline makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from detector.baseline import Baseline
from detector.comparison import compare
from detector.errors import DetectorError
from detector.prompt_domain import PromptDomain
from detector.rates import DEFAULT_RATES
from tests.detector.world import DIM, ENCODER, Watch, baseline, foreign, normalised, queries

PROMPTS, CONCEPTS = foreign(6, seed=80), foreign(40, seed=81)
T, NOTHING = 20.0, 0.2


def near(vectors: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Pictures of what the vectors say."""
    rng = np.random.default_rng(seed)
    return normalised(vectors[rng.integers(len(vectors), size=n)] + 0.15 * rng.normal(size=(n, DIM)))


def words(apart: float = 0.9) -> PromptDomain:
    return PromptDomain.declare(PROMPTS, CONCEPTS, temperature=T, nothing=NOTHING, apart=apart)


def declared() -> Baseline:
    scores, _ = words().score(near(PROMPTS, 1000, seed=1))
    return Baseline.declare("words", ENCODER, words(), scores, near_duplicate=0.99, rates=DEFAULT_RATES)


def test_the_score_is_the_log_odds_of_something_else() -> None:
    images = np.concatenate([near(PROMPTS, 20, seed=2), near(CONCEPTS, 20, seed=2)])
    scores, cells = words().score(images)
    named, other = (images.astype(float) @ part.astype(float).T for part in (PROMPTS, CONCEPTS))
    odds = np.log(np.exp(T * NOTHING) + np.exp(T * other).sum(1)) - np.log(np.exp(T * named).sum(1))
    np.testing.assert_allclose(scores, odds, atol=1e-5)
    assert cells.tolist() == named.argmax(axis=1).tolist()
    assert scores[20:].min() > np.median(scores[:20])


def test_a_picture_that_resembles_no_word_is_foreign() -> None:
    unlike = np.linalg.svd(np.concatenate([PROMPTS, CONCEPTS[:10]]).astype(float))[2][-1:]
    domain = PromptDomain.declare(PROMPTS, CONCEPTS[:10], temperature=T, nothing=NOTHING, apart=0.9)
    assert domain.score(normalised(unlike))[0] > domain.score(near(PROMPTS, 200, seed=3))[0].max()


def test_a_query_has_the_same_score_in_every_batch() -> None:
    images = np.concatenate([near(PROMPTS, 1500, seed=4), foreign(800, seed=4)])  # more than a block
    scores, cells = words().score(images)
    rng = np.random.default_rng(0)
    for _ in range(12):
        part = rng.choice(len(images), size=int(rng.integers(1, 300)), replace=False)
        some, where = words().score(images[part])
        assert some.tobytes() == scores[part].tobytes()
        assert where.tobytes() == cells[part].tobytes()
    assert (scores == scores.astype(np.float32)).all()
    assert words().score(images[:0])[0].shape == (0,)


def test_concepts_that_say_what_a_prompt_says_are_left_out() -> None:
    domain = PromptDomain.declare(
        PROMPTS, np.concatenate([CONCEPTS, PROMPTS]), temperature=T, nothing=NOTHING, apart=0.9
    )
    assert domain.concepts.tobytes() == CONCEPTS.tobytes()
    assert len(words(apart=-1.0).concepts) == 0
    assert np.isfinite(words(apart=-1.0).score(CONCEPTS)[0]).all()


def test_native_queries_hit_at_the_level_and_other_concepts_more_often() -> None:
    hits = declared().judge(near(PROMPTS, 4000, seed=5)).foreign.mean(axis=0)
    assert hits[0] == pytest.approx(0.05, abs=0.025)
    assert hits[1] == pytest.approx(0.01, abs=0.01)
    assert hits[2] == pytest.approx(0.002, abs=0.004)
    assert declared().judge(near(CONCEPTS, 400, seed=5)).foreign[:, 0].mean() > 0.9


def test_an_archive_brings_back_the_same_baseline() -> None:
    first = declared()
    second = Baseline.from_bytes(first.to_bytes(), content_hash=first.content_hash)
    assert isinstance(second.domain, PromptDomain)
    assert second.domain.settings() == {"temperature": T, "nothing": NOTHING}
    images = near(CONCEPTS, 50, seed=6)
    assert second.judge(images).p_values.tobytes() == first.judge(images).p_values.tobytes()


def test_a_monitor_finds_whoever_asks_for_other_things_in_any_batches() -> None:
    log = queries("thief", near(CONCEPTS, 120, seed=7), seed=7)
    log += queries("honest", near(PROMPTS, 200, seed=8), seed=8)
    assert not declared().has_coverage
    assert (Watch(declared()).observe(log).outcomes.bounds[:, 3] == 1.0).all(), "no mass, no coverage"
    whole, cut = Watch(declared()).run(log), Watch(declared()).run(log, cuts=range(0, 320, 37))
    assert whole.record() == cut.record()
    assert {
        change.finding.subject.value for change in whole.changes if change.finding.subject.kind == "client"
    } == {"thief"}


def test_words_and_pictures_are_not_compared_picture_by_picture() -> None:
    comparison = compare(declared(), baseline())
    assert comparison.same_encoder
    assert comparison.new_foreign_to_old is None
    assert "declared in words has no pictures" in comparison.lines()[-1]


def test_prompts_of_another_length_are_refused() -> None:
    short = PromptDomain.declare(PROMPTS[:, 1:], CONCEPTS[:, 1:], temperature=T, nothing=NOTHING, apart=0.9)
    with pytest.raises(DetectorError, match="shape"):
        Baseline.declare("e", ENCODER, short, np.zeros(9), near_duplicate=0.99, rates=DEFAULT_RATES)
