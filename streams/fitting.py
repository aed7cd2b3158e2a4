"""Fitting a baseline: reference images in, optionally a trusted history, a baseline out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detector.baseline import Baseline, EncoderKey
from detector.coverage import unvisited_cells
from detector.errors import DetectorError
from detector.monitor import Batch
from detector.progress import Answer, Exam
from detector.trusted import rates_of
from streams.embedding import Embedded, Embedder, Pending, mismatch
from streams.errors import ParseError, StreamError
from streams.events import Coordinates, DeadLetter, QueryEvent
from streams.formats import Format, named
from streams.prompts import declare, read_prompts
from streams.sources import Record, open_source
from streams.sources.files import file_uri
from streams.watched import batch_of

__all__ = ["Fitted", "Progress", "fit", "fit_prompts", "read_reference"]

Progress = Callable[[str, int], None]
"""Called with what is being read ("reference", "trusted") and how many queries of it are done."""

_BATCH = 256
_BATCH_BYTES = 32 * 1024 * 1024
_MOST_ANSWERS = 20_000  # answered pictures kept in memory to choose an exam from
_PICTURES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class Fitted:
    """A new baseline and what went into it.

    Attributes:
        baseline: the result.
        reference: images used.
        trusted: queries of the trusted history used.
        skipped: what could not be read, of both.
        prompts: what declares the domain where no images do.
        unasked: reference images in regions that no trusted client ever asked about, by where they stood.
        no_exam: why extraction progress cannot be measured; None where it can.
    """

    baseline: Baseline
    reference: int
    trusted: int
    skipped: tuple[DeadLetter, ...]
    prompts: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()
    no_exam: str | None = None


def fit(
    endpoint: str,
    reference: str,
    embedder: Embedder,
    *,
    trusted: str | None = None,
    format_name: str | None = None,
    on_progress: Progress = lambda stage, done: None,
) -> Fitted:
    """Fit a baseline for an endpoint.

    Args:
        endpoint: the model that it is for.
        reference: a directory of pictures, a Parquet file with an ``image`` column, or a log, of which this
            endpoint's queries are taken.
        embedder: decodes and encodes.
        trusted: a log of honest clients' queries; without it the benign rates are cautious defaults.
        format_name: format of the logs; detected by content if None.
        on_progress: told how far it is.

    Raises:
        StreamError: nothing there for this endpoint, more than half of it unreadable, or embeddings of
            more than one encoder.
        DetectorError: too few distinct images, or all alike.
    """
    skipped: list[DeadLetter] = []
    encoder: EncoderKey | None = None
    vectors: list[npt.NDArray[np.float16]] = []
    places: list[str] = []
    answers = _Answers()
    for item in _embed(
        read_reference(reference, endpoint, format_name), embedder, skipped, "reference", on_progress
    ):
        encoder = encoder or _encoder_of(item, embedder)
        _check_encoder(item, encoder)
        vectors.append(item.embedding)
        places.append(str(item.event.at))
        answers.add(item)
    _check_readable(reference, len(vectors), skipped)
    assert encoder is not None
    reference_vectors = np.stack(vectors)
    baseline = Baseline.fit(endpoint, encoder, reference_vectors)
    fitted = answers.examine(Fitted(baseline, len(vectors), 0, tuple(skipped)), "the reference")
    if trusted is None:
        return fitted
    fitted, visits = _trusting(fitted, trusted, embedder, format_name, on_progress)
    _, cells = baseline.domain.score(reference_vectors)
    never = unvisited_cells(baseline.mass, visits)
    return replace(
        fitted, unasked=tuple(place for place, cell in zip(places, cells, strict=True) if never[cell])
    )


def fit_prompts(
    endpoint: str,
    prompts: str,
    embedder: Embedder,
    *,
    trusted: str | None = None,
    format_name: str | None = None,
    on_progress: Progress = lambda stage, done: None,
) -> Fitted:
    """Declare an endpoint's domain in words, where there are no reference images.

    Args:
        endpoint: the model that it is for.
        prompts: a file that `streams.prompts.read_prompts` reads.
        embedder: its encoder embeds the prompts.
        trusted: a log of honest clients' queries; without it the benign rates are those of other domains
            that were declared in words.
        format_name: format of the log; detected by content if None.
        on_progress: told how far it is.

    Raises:
        StreamError: no prompts, or a trusted history that cannot be used.
        EncoderError: the encoder has no calibration for prompts.
    """
    lines = read_prompts(prompts)
    baseline = declare(endpoint, lines, embedder.encoder)
    fitted = Fitted(baseline, 0, 0, (), lines, no_exam="words hold no answers")
    if trusted is None:
        return fitted
    return _trusting(fitted, trusted, embedder, format_name, on_progress)[0]


def _trusting(
    fitted: Fitted, trusted: str, embedder: Embedder, format_name: str | None, on_progress: Progress
) -> tuple[Fitted, npt.NDArray[np.int64]]:
    """The same with the benign rates of a trusted history, and its queries by cell, shape (cells,)."""
    baseline = fitted.baseline
    visits = np.zeros(len(baseline.domain.centroids), np.int64)
    answers = _Answers()
    skipped: list[DeadLetter] = []
    counted = 0

    def history() -> Iterator[Batch]:
        nonlocal counted
        log = _log(trusted, baseline.endpoint, format_name)
        queries = _embed(log, embedder, skipped, "trusted", on_progress)
        while items := list(islice(queries, _BATCH)):
            for item in items:
                _check_encoder(item, baseline.encoder)
                answers.add(item)
            counted += len(items)
            batch = batch_of(items, ())
            verdict = baseline.judge(batch.embeddings)
            np.add.at(visits, verdict.cells[~verdict.foreign[:, 0]], 1)  # what is foreign visits nothing
            yield batch

    rates = rates_of(baseline, history())
    _check_readable(trusted, counted, skipped)
    trusting = replace(
        fitted,
        baseline=baseline.with_rates(rates),
        trusted=counted,
        skipped=(*fitted.skipped, *skipped),
    )
    if baseline.exam is None:
        trusting = answers.examine(trusting, "the trusted history")
    return trusting, visits


class _Answers:
    """Pictures that the endpoint answered, for an exam: the first ones, up to a bound."""

    def __init__(self) -> None:
        self._vectors: list[npt.NDArray[np.float16]] = []
        self._answers: list[Answer] = []

    def add(self, item: Embedded) -> None:
        """Take a picture if it was answered."""
        response = item.event.response
        if response is not None and len(self._answers) < _MOST_ANSWERS:
            self._vectors.append(item.embedding)
            self._answers.append((response.label, response.scores))

    def examine(self, fitted: Fitted, source: str) -> Fitted:
        """The same with an exam in its baseline; or with the reason why there is none."""
        dim = fitted.baseline.encoder.dim
        vectors = np.stack(self._vectors) if self._vectors else np.empty((0, dim), np.float16)
        try:
            exam = Exam.choose(vectors, self._answers)
        except DetectorError as error:
            earlier = "" if fitted.no_exam is None else f"{fitted.no_exam}; "
            return replace(fitted, no_exam=f"{earlier}{source} has {error}")
        return replace(fitted, baseline=fitted.baseline.with_exam(exam), no_exam=None)


def read_reference(
    uri: str, endpoint: str, format_name: str | None = None
) -> Iterator[QueryEvent | DeadLetter]:
    """Pictures of a directory in name order, rows of a Parquet file, or an endpoint's queries in a log.

    Raises:
        StreamError: there is nothing of that name, or nothing in it.
    """
    path = Path(uri).expanduser().absolute()
    return _pictures(path, endpoint) if path.is_dir() else _log(uri, endpoint, format_name, bare=True)


def _pictures(directory: Path, endpoint: str) -> Iterator[QueryEvent | DeadLetter]:
    found = sorted(path for path in directory.rglob("*") if path.suffix.lower() in _PICTURES)
    if not found:
        raise StreamError(
            f"reference {directory}: no pictures in it; looked for {', '.join(sorted(_PICTURES))}"
        )
    for path in found:
        at = Coordinates(file_uri(path), "", 0)
        try:
            if path.is_file() or not path.exists():
                yield _bare(path.read_bytes(), endpoint, at)
        except OSError as error:
            yield DeadLetter(at, "decode", f"the file cannot be read: {error.strerror}")


def _bare(image: bytes, endpoint: str, at: Coordinates) -> QueryEvent:
    """A picture that nobody sent: what a reference holds."""
    return QueryEvent(id=str(at), time=0, client="reference", endpoint=endpoint, at=at, image=image)


def _log(
    uri: str, endpoint: str, format_name: str | None, *, bare: bool = False
) -> Iterator[QueryEvent | DeadLetter]:
    """An endpoint's queries in a log; with ``bare``, rows that have nothing but a picture are taken too."""
    format_ = named(format_name)
    others: set[str] = set()
    found = False
    with closing(open_source(uri, once=True)) as source:
        source.seek({})
        while not source.exhausted:
            for record in source.poll(_BATCH, 1.0):
                for event in _events(record, format_, endpoint if bare else None):
                    if isinstance(event, QueryEvent) and event.endpoint != endpoint:
                        others.add(event.endpoint)
                    else:
                        found = True
                        yield event
    if not found:
        named_others = f"its endpoints are {', '.join(sorted(others)[:5])}" if others else "it is empty"
        raise StreamError(f"{uri}: no query of endpoint {endpoint}; {named_others}")


def _events(record: Record, format_: Format, endpoint: str | None) -> Sequence[QueryEvent | DeadLetter]:
    """Queries of a record; of an ``endpoint`` where it is a row that has nothing but a picture."""
    row = record.value
    if endpoint is not None and isinstance(row, Mapping) and "client" not in row:
        image = row.get("image")
        if isinstance(image, bytes):
            return [_bare(image, endpoint, record.at)]
    try:
        return format_.parse(record)
    except ParseError as error:
        return [DeadLetter(record.at, "parse", error.reason, event_id=error.event_id)]


def _embed(
    events: Iterator[QueryEvent | DeadLetter],
    embedder: Embedder,
    skipped: list[DeadLetter],
    stage: str,
    on_progress: Progress,
) -> Iterator[Embedded]:
    """Vectors of events, in order, one batch decoding while the one before it is encoded."""
    done = 0
    ready: list[Pending | DeadLetter] = []
    for part in chain(_batches(events), [[]]):
        decoding = [event if isinstance(event, DeadLetter) else embedder.submit(event) for event in part]
        for result in embedder.embed(ready):
            if isinstance(result, DeadLetter):
                skipped.append(result)
            else:
                yield result
        done += len(ready)
        on_progress(stage, done)
        ready = decoding


def _batches(events: Iterator[QueryEvent | DeadLetter]) -> Iterator[list[QueryEvent | DeadLetter]]:
    """Cut events into batches that memory can hold, also of large pictures."""
    batch: list[QueryEvent | DeadLetter] = []
    size = 0
    for event in events:
        batch.append(event)
        size += len(event.image or b"") if isinstance(event, QueryEvent) else 0
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _check_readable(uri: str, good: int, skipped: Sequence[DeadLetter]) -> None:
    if len(skipped) > good or not good:
        first = f"; the first: {skipped[0].at}: {skipped[0].reason}" if skipped else ""
        raise StreamError(f"{uri}: {len(skipped)} of {len(skipped) + good} cannot be used{first}")


def _encoder_of(item: Embedded, embedder: Embedder) -> EncoderKey:
    """Which encoder made an embedding: ours, or the one that the log names."""
    if item.event.embedding is None:
        identity = embedder.encoder.identity
        return EncoderKey(identity.name, item.weights, identity.dim)
    return EncoderKey(f"given embeddings ({item.weights[:12]})", item.weights, len(item.embedding))


def _check_encoder(item: Embedded, encoder: EncoderKey) -> None:
    fault = mismatch(item, encoder)
    if fault is not None:
        raise StreamError(f"{fault}; a baseline takes one encoder", at=item.event.at)
