"""Events to vectors: pictures are decoded by threads and encoded in batches; anything else is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from detector.baseline import EncoderKey
from embeddings.cache import EmbeddingCache
from embeddings.decoding import DecodeLimits, Picture, decode
from embeddings.errors import DecodeError
from streams.events import DeadLetter, QueryEvent

if TYPE_CHECKING:
    from embeddings.encoder import Encoder

__all__ = ["Embedded", "Embedder", "Pending", "mismatch", "refused"]

_TEXT = ":text"
"""Ends the weights of a text's vector: texts lie apart from pictures, as those of another encoder do."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """An event with its vector.

    Attributes:
        event: the query.
        embedding: L2-normalised float16, shape (d,).
        weights: hash of the weights that made it; ends in ``:text`` where the text tower did.
        fingerprint: perceptual hash of the picture; None where there was none.
        content: hash of the picture's bytes; None where there was none.
    """

    event: QueryEvent
    embedding: npt.NDArray[np.float16]
    weights: str
    fingerprint: int | None = None
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """An event whose picture is being decoded."""

    event: QueryEvent
    picture: Future[Picture] | None


class Embedder:
    """Decodes and encodes events. Use as a context manager: it owns threads.

    Args:
        load: makes the encoder, on the first picture or text; a log of embeddings never needs it.
        limits: what a picture may be.
        threads: that decode.
        cached: embeddings kept by picture content, so that repeats are not encoded again.
    """

    def __init__(
        self,
        load: Callable[[], Encoder],
        *,
        limits: DecodeLimits | None = None,
        threads: int = 2,
        cached: int = 65_536,
    ) -> None:
        self._load = load
        self._limits = limits or DecodeLimits()
        self._cached = cached
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder; loading it takes a second or more.

        Raises:
            EncoderError: it cannot be loaded.
        """
        return self._load()

    @cached_property
    def _cache(self) -> EmbeddingCache:
        return EmbeddingCache(self.encoder.identity, self._cached)

    def submit(self, event: QueryEvent) -> Pending:
        """Start decoding an event's picture, where it has one."""
        if event.image is None:
            return Pending(event, None)
        return Pending(
            event, self._threads.submit(decode, event.image, self.encoder.preprocess, self._limits)
        )

    def embed(self, batch: Sequence[Pending | DeadLetter]) -> list[Embedded | DeadLetter]:
        """Finish a batch, in order; what has no vector becomes a dead letter, and a dead letter stays one."""
        results: dict[int, Embedded | DeadLetter] = {}
        pictures: dict[int, tuple[QueryEvent, Picture]] = {}
        texts: dict[int, tuple[QueryEvent, str]] = {}
        for i, item in enumerate(batch):
            if isinstance(item, DeadLetter):
                results[i] = item
            elif item.picture is not None:
                try:
                    pictures[i] = item.event, item.picture.result()
                except DecodeError as error:
                    results[i] = refused(item.event, "decode", str(error))
            elif item.event.text is not None:
                texts[i] = item.event, item.event.text
            else:
                results[i] = _given(item.event)
        if pictures:
            vectors = self._encode([picture for _, picture in pictures.values()])
            weights = self.encoder.identity.weights
            for i, (event, picture) in pictures.items():
                vector = vectors[picture.content]
                results[i] = Embedded(event, vector, weights, picture.fingerprint, picture.content)
        if texts:
            rows = self.encoder.embed_text([text for _, text in texts.values()])
            for (i, (event, _)), vector in zip(texts.items(), rows, strict=True):
                results[i] = Embedded(event, vector, self.encoder.identity.weights + _TEXT)
        return [results[i] for i in range(len(batch))]

    def _encode(self, pictures: Sequence[Picture]) -> dict[bytes, npt.NDArray[np.float16]]:
        """Vectors by content; each distinct picture is encoded once."""
        vectors: dict[bytes, npt.NDArray[np.float16]] = {}
        new: dict[bytes, Picture] = {}
        for picture in pictures:
            known = self._cache.get(picture.content)
            if known is None:
                new[picture.content] = picture
            else:
                vectors[picture.content] = known
        if new:
            encoded = self.encoder.embed(np.stack([picture.pixels for picture in new.values()]))
            for content, vector in zip(new, encoded, strict=True):
                self._cache.put(content, vector)
                vectors[content] = vector
        return vectors


def mismatch(item: Embedded, expected: EncoderKey) -> str | None:
    """Why a vector is none of the encoder that was expected, or None."""
    if item.weights == expected.weights + _TEXT:
        return "it is a text query, and the baseline is one of pictures: fit an endpoint on a log of texts"
    if item.weights + _TEXT == expected.weights:
        return "it is a picture, and the baseline is one of texts: fit an endpoint on pictures"
    if item.weights != expected.weights:
        return (
            f"its embedding comes from weights {item.weights[:12]}, the baseline's from {expected.name} "
            f"({expected.weights[:12]}): use that encoder, or fit the endpoint again"
        )
    if len(item.embedding) != expected.dim:
        return f"its embedding has {len(item.embedding)} numbers, {expected.name} makes {expected.dim}"
    return None


def refused(event: QueryEvent, stage: str, reason: str) -> DeadLetter:
    """The dead letter of an event that was parsed; the picture itself is not kept (privacy by default)."""
    return DeadLetter(event.at, stage, reason, event_id=event.id, endpoint=event.endpoint)


def _given(event: QueryEvent) -> Embedded | DeadLetter:
    """An event that brought its own vector, or none that can be used."""
    if event.embedding is None or event.encoder is None:
        return refused(
            event,
            "decode",
            f"picture {event.uri} is a reference, and no prefix is allowed to be fetched; log bytes",
        )
    vector = event.embedding.astype(np.float64)
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm) or norm == 0:
        return refused(event, "validate", "the embedding holds NaN or infinity, or is all zeros")
    return Embedded(event, (vector / norm).astype(np.float16), event.encoder)
