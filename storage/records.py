"""What goes in and out of the storage: one frozen record a row. Times in milliseconds since the epoch, UTC.

Subjects travel as :class:`detector.subjects.SubjectRow`, findings as :class:`detector.findings.Finding`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from detector.findings import Activity, Finding
from detector.progress import Answer
from detector.subjects import SubjectKey

__all__ = [
    "AskedQuery",
    "BaselineDraft",
    "BaselineRecord",
    "DeadLetterRecord",
    "FindingRecord",
    "FindingStep",
    "Member",
    "NovelQuery",
    "Occurrence",
    "OutboxEntry",
    "QueryRecord",
    "SourceOffset",
    "StoredDeadLetter",
    "StoredQuery",
    "answer_of",
]


@dataclass(frozen=True, slots=True)
class AskedQuery:
    """What extraction progress is measured on; fields as in :class:`QueryRecord`."""

    id: int
    embedding: bytes
    encoder: str
    groups: tuple[SubjectKey, ...]
    response: str | None


@dataclass(frozen=True, slots=True)
class BaselineDraft:
    """A fitted baseline on its way into the database.

    Attributes:
        endpoint: the model that it describes.
        content_hash: hash of what was fitted; the same fit is stored once per endpoint.
        encoder_name: identity of the encoder, for people.
        encoder_weights: hash of the encoder's weights; embeddings of any other are refused.
        dim: length of an embedding.
        created_at: when it was fitted.
        summary: JSON text for people.
        archive: the baseline's ``.npz`` bytes.
    """

    endpoint: str
    content_hash: str
    encoder_name: str
    encoder_weights: str
    dim: int
    created_at: int
    summary: str
    archive: bytes


@dataclass(frozen=True, slots=True)
class BaselineRecord:
    """A stored baseline without its bytes; fields as in :class:`BaselineDraft`.

    Attributes:
        version: 1, 2, … within the endpoint.
        active: whether this is the endpoint's baseline in force; exactly one is.
    """

    id: int
    endpoint: str
    version: int
    content_hash: str
    encoder_name: str
    encoder_weights: str
    dim: int
    created_at: int
    active: bool
    summary: str


@dataclass(frozen=True, slots=True)
class Member:
    """What one client contributed to one group subject: a total when read, an increment when added.

    Attributes:
        key: the group.
        client: the client within it.
        queries: queries of the client under this group.
        foreign: those of them that were out of domain and new.
        first_seen: event time of the earliest.
        last_seen: event time of the latest.
    """

    key: SubjectKey
    client: str
    queries: int
    foreign: int
    first_seen: int
    last_seen: int


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """One judged query.

    Attributes:
        endpoint: the model asked.
        client: who asked.
        event_id: the log's id, unique within the endpoint.
        event_time: when.
        source: URI of the log; with partition, offset and item it is where the record stood.
        partition: partition or file generation within the source.
        offset: byte, row or Kafka offset.
        item: index within the record.
        content: 16-byte hash of the payload; None where the log gave an embedding only.
        fingerprint: 64-bit perceptual fingerprint in [0, 2⁶⁴), or None.
        embedding: the float16 vector's little-endian bytes, 2·dim of them.
        encoder: hash of the weights that made it; vectors of two encoders are never compared.
        score: out-of-domain score.
        p_value: conformal p-value in (0, 1].
        cell: Mondrian cell.
        hits: bit i is set where the query is a hit at level i.
        duplicate: whether it repeats an earlier query of the same client.
        novel: its number 0, 1, … among the endpoint's novel foreign queries, or None.
        groups: the group subjects that it counts for besides its client.
        response: JSON text of the endpoint's answer, or None.
        attributes: JSON text of what else the log says of the client.
    """

    endpoint: str
    client: str
    event_id: str
    event_time: int
    source: str
    partition: str
    offset: int
    item: int
    content: bytes | None
    fingerprint: int | None
    embedding: bytes
    encoder: str
    score: float
    p_value: float
    cell: int
    hits: int
    duplicate: bool
    novel: int | None
    groups: tuple[SubjectKey, ...] = ()
    response: str | None = None
    attributes: str = "{}"


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """A query as it lies in the database; ids grow in the order of arrival."""

    id: int
    query: QueryRecord


@dataclass(frozen=True, slots=True)
class NovelQuery:
    """What the query index keeps of one novel foreign query; fields as in :class:`QueryRecord`."""

    novel: int
    client: str
    event_id: str
    event_time: int
    content: bytes | None
    fingerprint: int | None
    embedding: bytes
    encoder: str
    groups: tuple[SubjectKey, ...]


@dataclass(frozen=True, slots=True)
class Occurrence:
    """What tells a record that comes again from another one that bears its id.

    Attributes:
        place: source, partition, offset and item.
        client: who asked.
        embedding: as in :class:`QueryRecord`.
    """

    place: tuple[str, str, int, int]
    client: str
    embedding: bytes

    def repeats(self, earlier: Occurrence) -> bool:
        """Whether it is the earlier record: there again, or moved (its file was renamed or compressed)."""
        return self.place == earlier.place or (
            (self.client, self.embedding) == (earlier.client, earlier.embedding)
        )


@dataclass(frozen=True, slots=True)
class FindingRecord:
    """A finding and what an analyst did about it.

    Attributes:
        finding: the detector's latest word.
        steps: how many changes its history holds.
        acknowledged_at: when an analyst took note, or None.
        acknowledged_by: who did.
        note: the analyst's latest note.
    """

    finding: Finding
    steps: int
    acknowledged_at: int | None
    acknowledged_by: str | None
    note: str | None

    @property
    def acknowledged(self) -> bool:
        """Whether an analyst took note."""
        return self.acknowledged_at is not None


@dataclass(frozen=True, slots=True)
class FindingStep:
    """One entry of a finding's history.

    Attributes:
        uid: the finding.
        step: 1, 2, … within the finding.
        activity: what happened.
        event_time: when, by the log; for an analyst's step the time that the caller gave.
        finding: the finding as it then stood.
        by: the analyst, or None where the detector did it.
        note: the analyst's note.
    """

    uid: str
    step: int
    activity: Activity
    event_time: int
    finding: Finding
    by: str | None
    note: str | None


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A finding's change on its way to the sinks: ``(uid, step)`` is its stable id, ``payload`` its JSON."""

    id: int
    uid: str
    step: int
    activity: Activity
    event_time: int
    payload: str


@dataclass(frozen=True, slots=True)
class SourceOffset:
    """How far a consumer has committed in one partition of a source.

    Attributes:
        source: canonical URI.
        partition: partition or file generation.
        next_offset: offset of the first record that is not yet committed.
        cursor: what the source itself needs to know the place again, or None. Of a log file it is
            ``number:length:crc`` of the last line: the generation's number, the line's bytes and checksum.
    """

    source: str
    partition: str
    next_offset: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A record, or one query of it, that could not be processed.

    Attributes:
        endpoint: the model asked, where that was readable.
        source: URI of the log; with partition, offset and item it is where the record stood.
        partition: partition or file generation within the source.
        offset: byte, row or Kafka offset.
        item: index within the record.
        stage: parse, decode, encode, validate or observe.
        reason: the fault and the fix.
        raw: the record's bytes, cut to what the settings keep.
        event_id: the query's id, where that was readable.
    """

    endpoint: str | None
    source: str
    partition: str
    offset: int
    item: int
    stage: str
    reason: str
    raw: bytes = b""
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter as it lies in the database."""

    id: int
    letter: DeadLetterRecord


def answer_of(response: str | None) -> Answer:
    """Read a stored response; no label and no scores where there is none."""
    if response is None:
        return None, {}
    fields = json.loads(response)
    return fields["label"], fields["scores"]
