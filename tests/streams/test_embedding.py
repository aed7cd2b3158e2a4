from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from detector.baseline import EncoderKey
from embeddings.encoder import Encoder
from embeddings.errors import EncoderError
from streams.embedding import Embedded, Embedder, mismatch, refused
from streams.events import Coordinates, DeadLetter, QueryEvent
from tests.integration.world import embeddings_only
from tests.streams.pictures import Pixels, png

EVENT = QueryEvent("q", 0, "key-1", "garments", Coordinates("file:///log", "g", 7))


def embedder_of(encoder: Pixels) -> Embedder:
    return Embedder(lambda: cast(Encoder, encoder), threads=2)


def given(values: Any) -> QueryEvent:
    return replace(EVENT, embedding=np.array(values, np.float32), encoder="w")


def test_results_come_in_the_order_of_the_batch() -> None:
    encoder = Pixels()
    letter = refused(EVENT, "parse", "broken")
    events = [
        replace(EVENT, image=png(0)),
        replace(EVENT, text="a coat"),
        given([3, 4]),
        replace(EVENT, image=b"no picture"),
        replace(EVENT, uri="s3://queries/1.png"),
        replace(EVENT, image=png(1)),
    ]
    with embedder_of(encoder) as embedder:
        results = embedder.embed([letter, *map(embedder.submit, events)])
    assert results[0] is letter
    picture, text, vector, broken, uri, other = results[1:]
    assert isinstance(picture, Embedded)
    assert isinstance(other, Embedded)
    assert picture.weights == encoder.identity.weights
    assert (picture.event, other.event) == (events[0], events[5])
    assert picture.content != other.content
    assert picture.fingerprint is not None
    assert isinstance(text, Embedded)
    assert text.embedding.argmax() == len("a coat")
    assert text.content is text.fingerprint is None
    assert text.weights == f"{picture.weights}:text"
    assert isinstance(vector, Embedded)
    np.testing.assert_array_equal(vector.embedding, np.float16([0.6, 0.8]))
    assert vector.weights == "w"
    for result, words in ((broken, "not a picture"), (uri, "no prefix is allowed")):
        assert isinstance(result, DeadLetter)
        assert (result.stage, result.at, result.event_id, result.endpoint) == (
            "decode",
            EVENT.at,
            "q",
            "garments",
        )
        assert words in result.reason
        assert result.raw == b""


def test_a_repeated_picture_is_encoded_once() -> None:
    encoder = Pixels()
    with embedder_of(encoder) as embedder:
        for _ in range(2):
            pending = [embedder.submit(replace(EVENT, image=png(seed))) for seed in (0, 1, 0, 0)]
            first, _, third, _ = embedder.embed(pending)
            assert isinstance(first, Embedded)
            assert isinstance(third, Embedded)
            np.testing.assert_array_equal(first.embedding, third.embedding)
    assert encoder.encoded == 2


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_given_embeddings_of_any_length_are_normalised(scale: float) -> None:
    with embeddings_only() as embedder:
        (result,) = embedder.embed([embedder.submit(given(np.array([3, 4]) * scale))])
    assert isinstance(result, Embedded)
    np.testing.assert_array_equal(result.embedding, np.float16([0.6, 0.8]))


@pytest.mark.parametrize("values", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_given_embeddings_without_a_direction(values: list[float]) -> None:
    with embeddings_only() as embedder:
        (result,) = embedder.embed([embedder.submit(given(values))])
    assert isinstance(result, DeadLetter)
    assert result.stage == "validate"


def test_the_encoder_is_loaded_for_pictures_only() -> None:
    with embeddings_only() as embedder:
        embedder.submit(given([1.0]))
        with pytest.raises(EncoderError):
            embedder.submit(replace(EVENT, image=png(0)))


def test_texts_and_pictures_are_not_compared() -> None:
    pictures, texts = (EncoderKey("world", weights, 2) for weights in ("w", "w:text"))
    picture, text = (Embedded(EVENT, np.float16([0.6, 0.8]), key.weights) for key in (pictures, texts))
    assert mismatch(picture, pictures) is mismatch(text, texts) is None
    assert "it is a text query, and the baseline is one of pictures" in str(mismatch(text, pictures))
    assert "it is a picture, and the baseline is one of texts" in str(mismatch(picture, texts))


def test_vectors_of_another_encoder() -> None:
    key = EncoderKey("world", "w", 2)
    item = Embedded(EVENT, np.float16([0.6, 0.8]), "w")
    assert mismatch(item, key) is None
    assert "2 numbers, world makes 3" in str(mismatch(item, replace(key, dim=3)))
    assert "comes from weights w, the baseline's from world (v)" in str(
        mismatch(item, replace(key, weights="v"))
    )
