"""The one way of a query: poll, parse, decode, encode, observe, one transaction."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog
from sqlalchemy import Connection

import storage.baselines
import storage.dead_letters
import storage.offsets
import storage.queries
from detector.evidence import EvidenceRule
from detector.findings import FindingChange
from detector.groups import DEFAULT_GROUPS
from storage.database import Database
from storage.errors import UnavailableError
from storage.records import DeadLetterRecord, Occurrence, SourceOffset
from streams.embedding import Embedded, Embedder, Pending, refused
from streams.errors import ParseError, StreamError
from streams.events import DeadLetter, QueryEvent
from streams.formats import Format
from streams.formats.fields import EPOCH
from streams.sources import Position, Record, Source
from streams.watched import Judgement, WatchedEndpoint, load_baseline, store, stored_embedding

__all__ = ["BatchReport", "Feed", "Pipeline", "Rules"]

HOUR = 3_600_000

_log = structlog.get_logger(__name__)

_BATCH_BYTES = 32 * 1024 * 1024
"""A batch of large pictures ends early: two batches are in memory, as records and as pictures."""

_LOOK = 0.1
"""Longest wait of one poll, in seconds: so quickly a stopped pipeline leaves."""

_LONGEST_WAIT = 60.0
"""Between two attempts at a database that is out of reach, in seconds; the first wait is one second."""

_PICTURE = re.compile(rb'("b64"\s*:\s*")((?:[^"\\]+|\\.?)*)"?', re.DOTALL)
"""A picture in a line of JSON, also one that is cut short."""


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
        patience: how long a batch is tried again while the database is locked, full or out of reach, in
            seconds of waiting; None for as long as it takes.
    """

    consumer: str = "banken"
    batch_size: int = 256
    batch_seconds: float = 1.0
    evidence: EvidenceRule = field(default_factory=EvidenceRule)
    groups: tuple[str, ...] = DEFAULT_GROUPS
    capacity: int = 200_000
    raw_bytes: int = 4096
    max_future: int = 24 * HOUR
    patience: float | None = 0.0


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
            again, a file was renamed, or another consumer has read it.
    """

    queries: int
    foreign: int
    dead: int
    changes: tuple[FindingChange, ...]
    latest: int | None
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Polled and parsed records, in order, whose pictures are being decoded.

    Attributes:
        items: their queries.
        resume: where to go on after them, by source and partition.
        fault: why there is no more after them.
    """

    items: tuple[Pending | DeadLetter, ...]
    resume: Mapping[tuple[str, str], Position]
    fault: StreamError | None = None


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

        5. While the database cannot be written to for the moment, the batch in hand is kept and tried again
            (``Rules.patience``).

        Raises:
            StreamError: a source is gone or damaged, and what came before is committed; or given twice.
            StorageError: the database refused; nothing of the batch was written.
            EncoderError: the encoder cannot be loaded.
        """
        self._seek(feeds)
        ready: _Gathered | None = None
        while not stop.is_set():
            gathered = self._gather(feeds, stop, wait=ready is None)
            if ready is not None:
                self._process(ready, stop, on_batch)
            if gathered.fault is not None:
                self._process(gathered, stop, on_batch)
                raise gathered.fault
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
        fault: StreamError | None = None
        deadline = time.monotonic() + self._rules.batch_seconds
        while room > 0 and size < _BATCH_BYTES and not stop.is_set():
            left, before = deadline - time.monotonic(), room
            try:
                for feed, record in self._poll(feeds, room, max(0.0, min(_LOOK, left)) if idle else 0.0):
                    resume[feed.source.uri, record.next.partition] = record.next
                    size += _size(record)
                    items.extend(
                        parsed if isinstance(parsed, DeadLetter) else self._embedder.submit(parsed)
                        for parsed in self._parse(feed.format, record)
                    )
                    room -= 1
            except StreamError as error:
                fault = error
                break
            idle = room == before
            if left <= 0 or (idle and (not wait or _exhausted(feeds))):
                break
        return _Gathered(tuple(items), resume, fault)

    def _poll(self, feeds: Sequence[Feed], room: int, timeout: float) -> Iterator[tuple[Feed, Record]]:
        """One round over the sources, each time beginning with another one, so that none starves the rest."""
        first = self._rounds % len(feeds)
        self._rounds += 1
        for feed in (*feeds[first:], *feeds[:first]):
            if room > 0:
                records = feed.source.poll(room, timeout / len(feeds))
                room -= len(records)
                yield from ((feed, record) for record in records)

    def _parse(self, format_: Format, record: Record) -> Sequence[QueryEvent | DeadLetter]:
        try:
            events = format_.parse(record)
        except ParseError as error:
            raw = _without_pictures(record.value)[: self._rules.raw_bytes]
            at = replace(record.at, item=error.item)
            return [DeadLetter(at, "parse", error.reason, raw, event_id=error.event_id)]
        return events if self._clock is None else [self._timely(event, self._clock()) for event in events]

    def _timely(self, event: QueryEvent, now: int) -> QueryEvent | DeadLetter:
        """An event, or its dead letter if its time is further ahead than clocks may differ."""
        allowed = self._rules.max_future
        if event.time - now <= allowed:
            return event
        # How far ahead is not said: the letter of the same record is the same whenever it is read.
        moment = EPOCH + timedelta(milliseconds=event.time)
        ahead = f"over {allowed / HOUR:g} h ahead of this machine's clock"
        reason = f"its time, {moment:%Y-%m-%d %H:%M} UTC, is {ahead}: check the logger's clock and this one"
        return refused(event, "validate", reason)

    def _process(
        self, gathered: _Gathered, stop: threading.Event, on_batch: Callable[[BatchReport], None]
    ) -> None:
        """Encode a batch, then judge and commit it, again and again while the database is out of reach.

        Encoding is what takes time: it is outside the transaction, and done once.
        """
        if not gathered.resume:
            return
        results = self._embedder.embed(gathered.items)
        wait, waited, patience = 1.0, 0.0, self._rules.patience
        while True:
            try:
                report = self._commit(list(results), gathered.resume)
            except UnavailableError as error:
                left = _LONGEST_WAIT if patience is None else patience - waited
                if left <= 0:
                    raise
                pause = min(wait, left)
                _log.warning("database unavailable", error=str(error), again_in=pause)
            else:
                on_batch(report)
                return
            if stop.wait(pause):
                return
            wait, waited = min(2 * wait, _LONGEST_WAIT), waited + pause

    def _commit(
        self, results: list[Embedded | DeadLetter], resume: Mapping[tuple[str, str], Position]
    ) -> BatchReport:
        """Judge and commit a batch.

        1. In one transaction: advance the offsets first, which locks them, and where another worker has moved
           one, fences this one off; leave out what is stored already; judge each endpoint's queries; write
           queries, subjects, findings and dead letters.
        2. After any failure the monitors are ahead of the database, and where another worker has stored
           queries from other sources they are behind: they are dropped, and read again.
        """
        by_endpoint: defaultdict[str, dict[int, Embedded]] = defaultdict(dict)
        for place, result in enumerate(results):
            if isinstance(result, Embedded):
                by_endpoint[result.event.endpoint][place] = result
        try:
            with self._database.transaction() as connection:
                self._advance(connection, resume)
                if storage.queries.take_turn(connection) != self._latest:
                    self._watched.clear()
                judgements = [
                    judgement
                    for endpoint, queries in by_endpoint.items()
                    if (judgement := self._judge(connection, endpoint, queries, results)) is not None
                ]
                store(connection, judgements)
                for judgement in judgements:
                    self._watched[judgement.endpoint].measure(connection, judgement)
                dead = [result for result in results if isinstance(result, DeadLetter)]
                storage.dead_letters.add(connection, [_letter(one) for one in dead])
                self._latest = storage.queries.take_turn(connection)
        except BaseException:
            self._watched.clear()
            raise
        self._committed |= {key: position.offset for key, position in resume.items()}
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
            occurrence = Occurrence(
                (at.source, at.partition, at.offset, at.item), event.client, stored_embedding(item)
            )
            earlier = seen.get(event.id)
            if earlier is not None and occurrence.repeats(earlier):
                continue
            if earlier is not None:
                fault: str | None = (
                    f"query id {event.id} was seen before in endpoint {endpoint}; ids must be unique"
                )
            else:
                fault = watched.fault(item)
            if fault is None:
                seen[event.id] = occurrence
                good[place] = item
            else:
                results[place] = refused(event, "validate", fault)
        return watched.judge(connection, good) if good else None

    def _endpoint(self, connection: Connection, endpoint: str) -> WatchedEndpoint | None:
        """The endpoint with its stored state and the baseline in force; None where it has none."""
        active = storage.baselines.active(connection, endpoint)
        watched = self._watched.get(endpoint)
        if active is None or watched is None or watched.baseline.content_hash != active.content_hash:
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


def _without_pictures(value: bytes | Mapping[str, object]) -> bytes:
    """What a dead letter may keep of a record: of a line all but its picture, of a row nothing."""
    if not isinstance(value, bytes):
        return b""
    return _PICTURE.sub(lambda found: b'%s<%d bytes>"' % (found[1], len(found[2])), value)


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
