"""What flows: one query of one client, where it stood in its source, and what could not be read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Coordinates", "DeadLetter", "QueryEvent", "Response", "margin_of"]


@dataclass(frozen=True, slots=True, order=True)
class Coordinates:
    """Where a record stood.

    Attributes:
        source: canonical URI of the source, e.g. ``file:///var/log/queries.jsonl``.
        partition: partition or file generation within the source.
        offset: byte offset, row number or Kafka offset of the record.
        item: index within the record where one record holds several queries.
    """

    source: str
    partition: str
    offset: int
    item: int = 0

    def __str__(self) -> str:
        partition = f"[{self.partition}]" if self.partition else ""
        item = f"#{self.item}" if self.item else ""
        return f"{self.source}{partition}@{self.offset}{item}"


@dataclass(frozen=True, slots=True)
class Response:
    """What the endpoint answered: the top label and, where logged, scores by label."""

    label: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


def margin_of(response: Response | None) -> float:
    """The highest score less the second; NaN where fewer than two are logged."""
    scores = () if response is None else response.scores.values()
    first, second = (*sorted(scores, reverse=True), math.nan, math.nan)[:2]
    return first - second


@dataclass(frozen=True, slots=True)
class QueryEvent:
    """One query of one client, with exactly one payload: image bytes, a URI, a text or an embedding.

    Attributes:
        id: the log's own id of the query; unique within an endpoint.
        time: milliseconds since the epoch, UTC.
        client: who asked.
        endpoint: which model was asked.
        at: where the record stood.
        image: encoded picture bytes.
        uri: reference to a picture kept elsewhere.
        text: a text query, for the text tower.
        embedding: precomputed float32 vector, shape (d,).
        encoder: weights hash of the encoder that made ``embedding``.
        response: the endpoint's answer, where the log has one.
        attributes: what else the log says of the client: organisation, ip, user agent, …
    """

    id: str
    time: int
    client: str
    endpoint: str
    at: Coordinates
    image: bytes | None = None
    uri: str | None = None
    text: str | None = None
    embedding: npt.NDArray[np.float32] | None = None
    encoder: str | None = None
    response: Response | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record, or one query of it, that could not be processed, and why.

    Attributes:
        at: where it stood.
        stage: parse, decode, encode, validate or observe.
        reason: the fault and, where there is one, the fix, for a person to read.
        raw: the record's bytes, cut to what the settings allow to be kept.
        event_id: the query's id, where it was readable.
        endpoint: the endpoint, where it was readable.
    """

    at: Coordinates
    stage: str
    reason: str
    raw: bytes = b""
    event_id: str | None = None
    endpoint: str | None = None
