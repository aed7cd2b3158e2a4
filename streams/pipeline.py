"""The one way of a query: poll, parse, decode, encode, observe, one transaction."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

import storage.dead_letters
import storage.offsets
import storage.queries
from detector.evidence import EvidenceRule
from detector.findings import FindingChange
from detector.groups import DEFAULT_GROUPS
from storage.database import Database
from storage.records import DeadLetterRecord, SourceOffset
from streams.embedding import Embedded, Embedder, Pending, refused
from streams.errors import ParseError, StreamError
from streams.events import DeadLetter, QueryEvent
from streams.formats import Format
from streams.sources import Position, Record, Source
from streams.watched import Judgement, WatchedEndpoint, load_baseline, store

__all__ = ["BatchReport", "Feed", "Pipeline", "Rules"]

HOUR = 3_600_000

_BATCH_BYTES = 32 * 1024 * 1024
"""A batch of large pictures ends early: two batches are in memory, as records and as pictures."""

_LOOK = 0.1
"""Longest wait of one poll, in seconds: so quickly a stopped pipeline leaves."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A source with the format that its records are in."""

    source: Source
    format: Format


@dataclass(frozen=True, slots=True)
class Rules:
    """How the pipeline works.

    Attributes:
        consumer: name under which offsets are committed; two names read a source independently.
        batch_size: queries judged together at most.
        batch_seconds: longest wait for a batch to fill.
        evidence: when evidence suspects and exposure alerts.
        groups: group kinds judged beside clients.
        capacity: subjects of an endpoint kept in memory.
        raw_bytes: how much of a bad record its dead letter keeps.
        max_future: how far ahead of the clock an event may be, ms.
    """

    consumer: str = "banken"
    batch_size: int = 256
    batch_seconds: float = 1.0
    evidence: EvidenceRule = field(default_factory=EvidenceRule)
    groups: tuple[str, ...] = DEFAULT_GROUPS
    capacity: int = 200_000
    raw_bytes: int = 4096
    max_future: int = 24 * HOUR


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What one committed batch was.

    Attributes:
        queries: judged and stored.
        foreign: of those, foreign and novel.
        dead: records that became dead letters.
        changes: steps in findings' lives.
        latest: latest event time, ms; None for a batch without queries.
        repeated: queries left out because the same record was judged before: standard input was piped in
            again, or another consumer has read it.
    """

    queries: int
    foreign: int
    dead: int
    changes: tuple[FindingChange, ...]
    latest: int | None
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Polled and parsed records, in order, whose pictures are being decoded, and where to resume after."""

    items: tuple[Pending | DeadLetter, ...]
    resume: Mapping[tuple[str, str], Position]


class Pipeline:
    """Moves queries from sources into the database, each exactly once.

    Args:
        database: where everything lies.
        embedder: decodes and encodes.
        rules: how to work.
        clock: milliseconds since the epoch, to refuse events from the future; None for history.
    """

    def __init__(
        self, database: Database, embedder: Embedder, rules: Rules, *, clock: Callable[[], int] | None = None
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._rules = rules
        self._clock = clock
        self._watched: dict[str, WatchedEndpoint] = {}
        self._committed: dict[tuple[str, str], int] = {}
        self._rounds = 0
        self._latest = 0

    def run(
        self,
        feeds: Sequence[Feed],
        stop: threading.Event,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        """Work until every source is exhausted or ``stop`` is set.

        1. Every source goes to where this consumer last committed.
        2. The next batch is polled and parsed, and its pictures start to decode.
        3. Meanwhile the batch before it is encoded, judged and committed (:meth:`_process`).
        4. When ``stop`` is set, the batch in hand is finished and the one being decoded is left: its
           offsets are not committed, so the next run reads it again.

        Raises:
            StreamError: a source is gone, or given twice.
            StorageError: the database refused; nothing of the batch was written.
            EncoderError: the encoder cannot be loaded.
        """
        self._seek(feeds)
        ready: _Gathered | None = None
        while not stop.is_set():
            gathered = self._gather(feeds, stop, wait=ready is None)
            if ready is not None:
                on_batch(self._process(ready))
            if not gathered.resume and _exhausted(feeds):
                break
            ready = gathered if gathered.resume else None

    def _seek(self, feeds: Sequence[Feed]) -> None:
        counts = Counter(feed.source.uri for feed in feeds)
        twice = [uri for uri, count in counts.items() if count > 1]
        if twice:
            raise StreamError(f"source {twice[0]} is given {counts[twice[0]]} times; give it once")
        starts: dict[str, dict[str, Position]] = {}
        with self._database.snapshot() as connection:
            for uri in counts:
                offsets = storage.offsets.load(connection, self._rules.consumer, uri)
                self._committed |= {(uri, one.partition): one.next_offset for one in offsets}
                starts[uri] = {
                    one.partition: Position(one.partition, one.next_offset, one.cursor) for one in offsets
                }
        for feed in feeds:
            feed.source.seek(starts[feed.source.uri])

    def _gather(self, feeds: Sequence[Feed], stop: threading.Event, *, wait: bool) -> _Gathered:
        """Poll until a batch is full or its time is up; without ``wait``, until nothing more is there."""
        items: list[Pending | DeadLetter] = []
        resume: dict[tuple[str, str], Position] = {}
        room, size, idle = self._rules.batch_size, 0, False
        deadline = time.monotonic() + self._rules.batch_seconds
        while room > 0 and size < _BATCH_BYTES and not stop.is_set():
            left = deadline - time.monotonic()
            records = self._poll(feeds, room, max(0.0, min(_LOOK, left)) if idle else 0.0)
            for feed, record in records:
                resume[feed.source.uri, record.next.partition] = record.next
                size += _size(record)
                items.extend(
                    parsed if isinstance(parsed, DeadLetter) else self._embedder.submit(parsed)
                    for parsed in self._parse(feed.format, record)
                )
            room -= len(records)
            idle = not records
            if left <= 0 or (idle and (not wait or _exhausted(feeds))):
                break
        return _Gathered(tuple(items), resume)

    def _poll(self, feeds: Sequence[Feed], room: int, timeout: float) -> list[tuple[Feed, Record]]:
        """One round over the sources, each time beginning with another one, so that none starves the rest."""
        first = self._rounds % len(feeds)
        self._rounds += 1
        records: list[tuple[Feed, Record]] = []
        for feed in (*feeds[first:], *feeds[:first]):
            left = room - len(records)
            if left > 0:
                records += ((feed, record) for record in feed.source.poll(left, timeout / len(feeds)))
        return records

    def _parse(self, format_: Format, record: Record) -> Sequence[QueryEvent | DeadLetter]:
        try:
            events = format_.parse(record)
        except ParseError as error:
            raw = record.value if isinstance(record.value, bytes) else b""
            at = replace(record.at, item=error.item)
            return [
                DeadLetter(at, "parse", error.reason, raw[: self._rules.raw_bytes], event_id=error.event_id)
            ]
        return events if self._clock is None else [self._timely(event, self._clock()) for event in events]

    def _timely(self, event: QueryEvent, now: int) -> QueryEvent | DeadLetter:
        """An event, or its dead letter if its time is further ahead than clocks may differ."""
        ahead, allowed = event.time - now, self._rules.max_future
        if ahead <= allowed:
            return event
        reason = (
            f"its time is {ahead / HOUR:,.1f} h ahead of this machine's clock, {allowed / HOUR:g} h may be"
        )
        return refused(event, "validate", f"{reason}: check the logger's clock and this one")

    def _process(self, gathered: _Gathered) -> BatchReport:
        """Encode, judge and commit a batch.

        1. Encode, outside the transaction: it is what takes time.
        2. In one transaction: advance the offsets first, which locks them, and where another worker has moved
           one, fences this one off; leave out what is stored already; judge each endpoint's queries; write
           queries, subjects, findings and dead letters.
        3. After any failure the monitors are ahead of the database, and where another worker has stored
           queries from other sources they are behind: they are dropped, and read again.
        """
        results = self._embedder.embed(gathered.items)
        by_endpoint: defaultdict[str, dict[int, Embedded]] = defaultdict(dict)
        for place, result in enumerate(results):
            if isinstance(result, Embedded):
                by_endpoint[result.event.endpoint][place] = result
        try:
            with self._database.transaction() as connection:
                self._advance(connection, gathered.resume)
                if storage.queries.take_turn(connection) != self._latest:
                    self._watched.clear()
                judgements = [
                    judgement
                    for endpoint, queries in by_endpoint.items()
                    if (judgement := self._judge(connection, endpoint, queries, results)) is not None
                ]
                store(connection, judgements)
                dead = [result for result in results if isinstance(result, DeadLetter)]
                storage.dead_letters.add(connection, [_letter(one) for one in dead])
                self._latest = storage.queries.take_turn(connection)
        except BaseException:
            self._watched.clear()
            raise
        self._committed |= {key: position.offset for key, position in gathered.resume.items()}
        for watched in self._watched.values():
            watched.committed()
        records = [record for judgement in judgements for record in judgement.records.values()]
        return BatchReport(
            queries=len(records),
            foreign=sum(record.hits & 1 for record in records),
            dead=len(dead),
            changes=tuple(change for judgement in judgements for _, change in judgement.changes),
            latest=max((record.event_time for record in records), default=None),
            repeated=len(results) - len(records) - len(dead),
        )

    def _advance(self, connection: Connection, resume: Mapping[tuple[str, str], Position]) -> None:
        for (source, partition), position in sorted(resume.items()):
            storage.offsets.advance(
                connection,
                self._rules.consumer,
                SourceOffset(source, partition, position.offset, position.cursor),
                expected=self._committed.get((source, partition)),
            )

    def _judge(
        self,
        connection: Connection,
        endpoint: str,
        queries: Mapping[int, Embedded],
        results: list[Embedded | DeadLetter],
    ) -> Judgement | None:
        """Judge one endpoint's queries, by their place in ``results``; those that cannot be die there."""
        watched = self._endpoint(connection, endpoint)
        if watched is None:
            reason = f"endpoint {endpoint} has no baseline: `banken fit {endpoint} …`"
            for place, item in queries.items():
                results[place] = refused(item.event, "observe", reason)
            return None
        seen = storage.queries.existing(connection, endpoint, [item.event.id for item in queries.values()])
        good: dict[int, Embedded] = {}
        for place, item in queries.items():
            event, at = item.event, item.event.at
            stood = (at.source, at.partition, at.offset, at.item)
            if seen.get(event.id) == stood:
                continue
            if event.id in seen:
                fault: str | None = (
                    f"query id {event.id} was seen before in endpoint {endpoint}; ids must be unique"
                )
            else:
                fault = watched.fault(item)
            if fault is None:
                seen[event.id] = stood
                good[place] = item
            else:
                results[place] = refused(event, "validate", fault)
        return watched.judge(connection, good) if good else None

    def _endpoint(self, connection: Connection, endpoint: str) -> WatchedEndpoint | None:
        """The endpoint with its stored state; None where it has no baseline."""
        if endpoint not in self._watched:
            baseline = load_baseline(connection, endpoint)
            if baseline is None:
                return None
            rules = self._rules
            self._watched[endpoint] = WatchedEndpoint(
                connection, baseline, rule=rules.evidence, groups=rules.groups, capacity=rules.capacity
            )
        return self._watched[endpoint]


def _exhausted(feeds: Sequence[Feed]) -> bool:
    return all(feed.source.exhausted for feed in feeds)


def _size(record: Record) -> int:
    """Bytes that a record holds on to until its batch is done."""
    if isinstance(record.value, bytes):
        return len(record.value)
    return sum(len(cell) for cell in record.value.values() if isinstance(cell, bytes | str))


def _letter(dead: DeadLetter) -> DeadLetterRecord:
    return DeadLetterRecord(
        endpoint=dead.endpoint,
        source=dead.at.source,
        partition=dead.at.partition,
        offset=dead.at.offset,
        item=dead.at.item,
        stage=dead.stage,
        reason=dead.reason,
        raw=dead.raw,
        event_id=dead.event_id,
    )
