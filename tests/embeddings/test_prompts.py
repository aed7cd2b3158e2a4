"""Prompts in, text embeddings out; and a calibration that fits the weights that ship."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from embeddings.encoder import Encoder, EncoderIdentity
from embeddings.errors import EncoderError
from embeddings.prompts import calibration_of, embed_prompts


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(device="cpu")


def test_the_calibration_is_that_of_the_shipped_weights(encoder: Encoder) -> None:
    calibration = calibration_of(encoder)
    assert list(calibration.scores) == sorted(calibration.scores)
    assert len(calibration.scores) >= 200, "p ≤ 0.01 needs that many"
    assert all(mean < bound < 0.5 for mean, bound in zip(calibration.mean, calibration.bound, strict=True))


def test_other_weights_are_refused() -> None:
    other = SimpleNamespace(identity=EncoderIdentity("ViT-B-32", "ab" * 32, 512))
    with pytest.raises(EncoderError, match=r"ViT-B-32 with abababababab; fit on reference images"):
        calibration_of(cast(Encoder, other))


def test_a_phrase_loses_its_article_and_a_caption_stays(encoder: Encoder) -> None:
    coat, bare, caption = embed_prompts(encoder, ["A coat", "coat", "A coat."])
    assert coat.tobytes() == bare.tobytes()
    assert caption.tobytes() == encoder.embed_text(["A coat."])[0].tobytes()
    similar = embed_prompts(encoder, ["a coat", "a jacket", "a volcano"]).astype(np.float32)
    assert similar[0] @ similar[1] > similar[0] @ similar[2]
