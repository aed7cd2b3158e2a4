"""One watched endpoint: its monitor, kept in step with what is stored."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from sqlalchemy import Connection

import storage.baselines
import storage.campaigns
import storage.findings
import storage.members
import storage.queries
import storage.subjects
from detector.baseline import Baseline, EncoderKey
from detector.campaign_watch import CampaignChanges
from detector.evidence import EvidenceRule
from detector.findings import FindingChange
from detector.groups import FLEET, groups_of
from detector.monitor import Batch, Monitor, Observation
from detector.query_index import QueryIndex, QueryPool, owner_of
from detector.subjects import CLIENT, SubjectKey, SubjectRow
from storage.records import Member, QueryRecord
from streams.campaigns import answers_of, stored_watch
from streams.embedding import Embedded, mismatch
from streams.events import margin_of
from streams.progress import ProgressMeter

__all__ = ["Judgement", "WatchedEndpoint", "batch_of", "load_baseline", "store", "stored_embedding"]

LONGEST_CLIENT = 800
LONGEST_ENDPOINT = 512
"""Bytes. PostgreSQL's index rows have 2,704: an endpoint with a client and a group, or with a query's id."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One endpoint's part of a batch, judged and ready to be stored.

    Attributes:
        endpoint: which.
        records: the judged queries, by their place in the batch.
        members: what clients contributed to their groups.
        subjects: those that the queries were about, as they stand now.
        changes: steps in findings' lives, each with the place in the batch of the query that caused it.
        campaigns: what changed in the endpoint's campaigns; those judged are among the subjects.
    """

    endpoint: str
    records: Mapping[int, QueryRecord]
    members: Sequence[Member]
    subjects: Sequence[SubjectRow]
    changes: Sequence[tuple[int, FindingChange]]
    campaigns: CampaignChanges


class WatchedEndpoint:
    """Judges one endpoint's queries. After a failed transaction, make a new one.

    Args:
        connection: to read the query index from.
        baseline: the one in force.
        rule: when evidence suspects and exposure alerts.
        groups: group kinds judged beside clients.
        capacity: subjects kept in memory.
    """

    def __init__(
        self,
        connection: Connection,
        baseline: Baseline,
        *,
        rule: EvidenceRule,
        groups: Sequence[str],
        capacity: int,
    ) -> None:
        endpoint = baseline.endpoint
        self.baseline = baseline
        count = storage.queries.novel_count(connection, endpoint)
        self._monitor = Monitor(baseline, rule=rule, groups=groups, capacity=capacity, novel_count=count)
        first = QueryIndex.first_needed(count)
        self._monitor.restore(
            _stored_pool(connection, endpoint, first, baseline.encoder, self._monitor.groups)
        )
        self._campaigns = stored_watch(connection, baseline, rule)
        self._progress = ProgressMeter(baseline, self._monitor.groups)

    def fault(self, item: Embedded) -> str | None:
        """Why a query cannot be judged here, or None."""
        event = item.event
        for field, name, longest in (
            ("client", event.client, LONGEST_CLIENT),
            ("endpoint", event.endpoint, LONGEST_ENDPOINT),
        ):
            if (size := len(name.encode())) > longest:
                return f"its {field} has {size} bytes; at most {longest} are allowed"
        return mismatch(item, self.baseline.encoder)

    def judge(self, connection: Connection, queries: Mapping[int, Embedded]) -> Judgement:
        """Judge queries of this endpoint, in order; stored subjects are read first.

        Args:
            connection: to read them from; the caller's transaction.
            queries: without a :meth:`fault`, by their place in the batch.
        """
        places, embedded = list(queries), list(queries.values())
        batch = batch_of(embedded, self._monitor.groups)
        rows = storage.subjects.load(connection, self.baseline.endpoint, self._monitor.missing(batch))
        open_findings = storage.findings.load_latest(
            connection, self.baseline.endpoint, [row.key for row in rows if row.stage > 0]
        )
        self._monitor.insert(rows, open_findings)
        observation = self._monitor.observe(batch)
        subjects = self._monitor.changed()
        events = [item.event for item in embedded]
        steps = self._campaigns.observe(batch, observation, subjects, answers_of(events))
        campaigns = self._campaigns.changes()
        steps = sorted(
            [*zip(observation.causes, observation.changes, strict=True), *steps], key=itemgetter(0)
        )
        return Judgement(
            self.baseline.endpoint,
            {places[i]: _record(item, batch, observation, i) for i, item in enumerate(embedded)},
            _members(batch, observation),
            [*subjects, *campaigns.campaigns],
            [(places[cause], change) for cause, change in steps],
            campaigns,
        )

    def measure(self, connection: Connection, judgement: Judgement) -> None:
        """Measure the progress of whoever is due, once the judgement is stored in the same transaction."""
        changes = [change for _, change in judgement.changes]
        records, accounts = judgement.records.values(), judgement.campaigns.accounts
        self._progress.measure(connection, records, judgement.subjects, changes, accounts)

    def committed(self) -> None:
        """Say that the transaction was committed."""
        self._monitor.saved()
        self._campaigns.saved()


def store(connection: Connection, judgements: Sequence[Judgement]) -> None:
    """Write what was judged; the caller's transaction commits it.

    Queries and findings are numbered in the log's order, whatever their endpoint, so that every number in
    the database is independent of how the log was cut into batches.
    """
    queries = {place: record for judgement in judgements for place, record in judgement.records.items()}
    storage.queries.add(connection, [queries[place] for place in sorted(queries)])
    for judgement in judgements:
        storage.members.add(connection, judgement.endpoint, judgement.members)
        storage.subjects.save(connection, judgement.endpoint, judgement.subjects)
        storage.campaigns.save(connection, judgement.endpoint, judgement.campaigns)
    changes = sorted((step for judgement in judgements for step in judgement.changes), key=itemgetter(0))
    storage.findings.apply(connection, [change for _, change in changes])


def load_baseline(connection: Connection, endpoint: str, version: int | None = None) -> Baseline | None:
    """A stored baseline, the one in force unless ``version`` is given; None where there is none.

    Raises:
        DetectorError: what is stored is damaged.
        StorageError: there is no such version.
    """
    if version is None:
        record = storage.baselines.active(connection, endpoint)
    else:
        record = storage.baselines.get(connection, endpoint, version)
    if record is None:
        return None
    return Baseline.from_bytes(
        storage.baselines.archive(connection, record), content_hash=record.content_hash
    )


def stored_embedding(item: Embedded) -> bytes:
    """A query's vector as it lies in the database: little-endian float16."""
    return item.embedding.astype("<f2").tobytes()


def batch_of(embedded: Sequence[Embedded], groups: Sequence[str]) -> Batch:
    """What the detector needs to know of embedded events."""
    events = [item.event for item in embedded]
    return Batch(
        ids=[event.id for event in events],
        times=np.array([event.time for event in events], np.int64),
        clients=[event.client for event in events],
        groups=[groups_of(event.attributes, groups) for event in events],
        embeddings=np.stack([item.embedding for item in embedded]),
        fingerprints=np.array([item.fingerprint or 0 for item in embedded], np.uint64),
        margins=np.array([margin_of(event.response) for event in events], np.float32),
    )


def _stored_pool(
    connection: Connection, endpoint: str, first: int, encoder: EncoderKey, kinds: Sequence[str]
) -> QueryPool:
    """The stored foreign queries that the query index searches.

    Those of another encoder, from before the endpoint was fitted again, are zeros, and so like nothing.
    """
    stored = list(storage.queries.novel_since(connection, endpoint, first))
    vectors = np.zeros((len(stored), encoder.dim), np.float16)
    for vector, query in zip(vectors, stored, strict=True):
        if query.encoder == encoder.weights:
            vector[:] = np.frombuffer(query.embedding, "<f2")
    owners = [
        [owner_of(SubjectKey(CLIENT, query.client))]
        + [owner_of(next((key for key in query.groups if key.kind == kind), None)) for kind in kinds]
        for query in stored
    ]
    return QueryPool(
        vectors,
        np.array([query.fingerprint or 0 for query in stored], np.uint64),
        np.array(owners, np.int64).reshape(len(stored), 1 + len(kinds)),
    )


def _record(item: Embedded, batch: Batch, seen: Observation, i: int) -> QueryRecord:
    event, novel = item.event, int(seen.novel[i])
    response = event.response
    return QueryRecord(
        endpoint=event.endpoint,
        client=event.client,
        event_id=event.id,
        event_time=event.time,
        source=event.at.source,
        partition=event.at.partition,
        offset=event.at.offset,
        item=event.at.item,
        content=item.content,
        fingerprint=item.fingerprint,
        embedding=stored_embedding(item),
        encoder=item.weights,
        score=float(seen.verdict.scores[i]),
        p_value=float(seen.verdict.p_values[i]),
        cell=int(seen.verdict.cells[i]),
        hits=sum(1 << level for level, hit in enumerate(seen.hits[i]) if hit),
        duplicate=bool(seen.duplicate[i]),
        novel=None if novel < 0 else novel,
        groups=tuple(key for key in batch.groups[i] if key is not None),
        response=None
        if response is None
        else json.dumps({"label": response.label, "scores": dict(response.scores)}, sort_keys=True),
        attributes=json.dumps(dict(event.attributes), sort_keys=True),
    )


def _members(batch: Batch, seen: Observation) -> list[Member]:
    """What each client contributed to its groups; the fleet is everyone, so nobody is listed there."""
    events: defaultdict[tuple[SubjectKey, str], list[int]] = defaultdict(list)
    for i, (client, groups) in enumerate(zip(batch.clients, batch.groups, strict=True)):
        for key in groups:
            if key is not None and key.kind != FLEET:
                events[key, client].append(i)
    return [
        Member(
            key=key,
            client=client,
            queries=len(mine),
            foreign=int(seen.hits[mine, 0].sum()),
            first_seen=int(batch.times[mine].min()),
            last_seen=int(batch.times[mine].max()),
        )
        for (key, client), mine in events.items()
    ]
