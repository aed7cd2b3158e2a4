"""The detector of one endpoint: a batch of embedded queries in, verdicts and finding changes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, repeat

import numpy as np
import numpy.typing as npt

from detector.baseline import Baseline, Verdict, check_embeddings
from detector.coverage import enter_cells
from detector.episodes import Episodes
from detector.evidence import GRID, EvidenceRule
from detector.findings import Finding, FindingChange, Moment, SignalFigures
from detector.groups import DEFAULT_GROUPS, check_kinds
from detector.perturbation import digests_of, perturbed
from detector.query_index import QueryIndex, QueryPool, owner_of
from detector.recursion import Null, OnChange, Turn, advance_clients, advance_groups
from detector.signals import CHANNELS, FIRST_CHANNEL, LEVELS, SIGNALS, Outcomes, Signal
from detector.subjects import CLIENT, SubjectKey, SubjectRow, SubjectTable

__all__ = ["GIVEN_AWAY", "Batch", "Monitor", "Observation"]

GIVEN_AWAY = 3.0
"""Evidence from which a client's further queries are no evidence about its groups.

A lone thief is one finding, not one for him and one for each group he belongs to: a hit at the deepest
level is enough. Selection by the past is predictable, so the groups' null holds for what is left
(docs/evidence.md)."""

BUCKET = 600_000
"""Width of a group's event-time buckets, ms."""

_COVERAGE, _PERTURBATION, _BOUNDARY = range(len(LEVELS), len(CHANNELS))
_LEAST_MASS = 1e-6  # a bound of zero would be no bound: nothing is impossible


@dataclass(frozen=True, slots=True)
class Batch:
    """Queries of one endpoint in the log's order.

    Attributes:
        ids: of the queries, n of them.
        times: event times, ms, int64, shape (n,).
        clients: who asked.
        groups: group subjects of each query, one place a kind, as ``groups_of`` returns them.
        embeddings: L2-normalised float16, shape (n, d).
        fingerprints: perceptual hashes, uint64, shape (n,); 0 where there was no picture.
        margins: the highest score of each answer less the second, float32, shape (n,); NaN without scores.
    """

    ids: Sequence[str]
    times: npt.NDArray[np.int64]
    clients: Sequence[str]
    groups: Sequence[tuple[SubjectKey | None, ...]]
    embeddings: npt.NDArray[np.float16]
    fingerprints: npt.NDArray[np.uint64]
    margins: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def subjects(self) -> set[tuple[str, str]]:
        """Everyone whom these queries are about, as pairs that equal their keys."""
        keys: set[tuple[str, str]] = set(zip(repeat(CLIENT), self.clients, strict=False))
        keys.update(key for key in chain.from_iterable(self.groups) if key is not None)
        return keys


@dataclass(frozen=True, slots=True)
class Observation:
    """What a batch showed.

    Attributes:
        verdict: scores, p-values and cells of the single queries.
        outcomes: what each channel answered; out of domain: foreign and no duplicate of the client's own.
        duplicate: foreign, but a near duplicate of the client's own earlier one, shape (n,).
        novel: running number within the endpoint of a foreign query that is new to its client or to one of
            its groups, else -1, shape (n,).
        changes: steps in findings' lives, in the order of the queries that caused them.
        causes: index of the query that caused each change.
    """

    verdict: Verdict
    outcomes: Outcomes
    duplicate: npt.NDArray[np.bool_]
    novel: npt.NDArray[np.int64]
    changes: tuple[FindingChange, ...]
    causes: tuple[int, ...]

    @property
    def hits(self) -> npt.NDArray[np.bool_]:
        """Outcomes that mean something, shape (n, channels)."""
        return self.outcomes.observed


class Monitor:
    """Watches one endpoint.

    It holds at most ``capacity`` subjects and the bounded query index, and no other state. Around each
    batch its owner: inserts the stored rows of :meth:`missing` subjects, calls :meth:`observe`, stores
    :meth:`changed` rows with the observation in one transaction, then calls :meth:`saved`. After a failed
    transaction the monitor is ahead of storage: make a new one.

    Args:
        baseline: what normal looks like.
        rule: when evidence suspects and exposure alerts.
        groups: group kinds that are judged beside clients.
        capacity: subjects kept in memory.
        novel_count: foreign, novel queries that the endpoint had before, see :meth:`restore`.
    """

    def __init__(
        self,
        baseline: Baseline,
        *,
        rule: EvidenceRule | None = None,
        groups: Sequence[str] = DEFAULT_GROUPS,
        capacity: int = 200_000,
        novel_count: int = 0,
    ) -> None:
        self.baseline = baseline
        self.groups = check_kinds(groups)
        self._null = Null.of(rule or EvidenceRule(), baseline.rates)
        self._table = SubjectTable(capacity)
        self._episodes = Episodes(baseline.endpoint, baseline.content_hash)
        kinds = 1 + len(self.groups)
        self._index = QueryIndex(baseline.domain, kinds, baseline.near_duplicate, count=novel_count)

    def restore(self, pool: QueryPool) -> None:
        """Put back the stored foreign queries that the index still searches."""
        self._index.restore(pool)

    def missing(self, batch: Batch) -> set[SubjectKey]:
        """Subjects of ``batch`` that are not in memory: insert those that are stored."""
        return self._table.missing(batch.subjects())

    def insert(self, rows: Iterable[SubjectRow], findings: Iterable[Finding]) -> None:
        """Put stored subjects and their open findings back into memory."""
        self._table.insert(rows)
        self._episodes.insert(findings)

    def changed(self) -> list[SubjectRow]:
        """Subjects to store with the batch."""
        return self._table.changed()

    def saved(self) -> None:
        """Say that the changed subjects are stored; those that memory has no room for leave it."""
        self._table.saved()
        self._episodes.forget(self._table.evict())

    def subject(self, key: SubjectKey) -> SubjectRow | None:
        """A subject as it stands now, or None where it is not in memory."""
        return self._table.row(key)

    def observe(self, batch: Batch) -> Observation:
        """Judge a batch.

        1. Each query is scored by itself.
        2. Foreign queries that nearly repeat one of the same subject's count as misses for that subject, and
           so do unsure answers to them; the other signals ask what they ask.
        3. Clients' evidence and exposure move query by query.
        4. Groups' move on event-time buckets; queries of clients who have given themselves away are
           exposure but no evidence.

        Args:
            batch: queries in the log's order; every stored subject of theirs is in memory.

        Raises:
            DetectorError: embeddings of another length, or not finite.
        """
        check_embeddings(batch.embeddings, self.baseline.encoder.dim)
        verdict = self.baseline.judge(batch.embeddings)
        slots = self._slots(batch)
        duplicate, novel = self._deduplicate(batch, verdict.foreign[:, 0], slots)
        changes: list[tuple[int, int, FindingChange]] = []

        outcomes = self._outcomes(batch, verdict, duplicate[:, 0], slots[:, 0])
        record = self._recorder(batch, np.arange(len(batch)), changes, 0)
        before = advance_clients(self._null, self._table.rows, slots[:, 0], outcomes, record)
        counted = before < GIVEN_AWAY
        for kind in range(1, slots.shape[1]):
            events = np.flatnonzero(slots[:, kind] >= 0)
            advance_groups(
                self._null,
                self._table.rows,
                slots[events, kind],
                verdict.foreign[events] & ~duplicate[events, kind : kind + 1],
                counted[events],
                batch.times[events] // BUCKET,
                self._recorder(batch, events, changes, kind),
            )
        changes.sort(key=lambda change: change[:2])
        causes, _, steps = zip(*changes, strict=True) if changes else ((), (), ())
        return Observation(verdict, outcomes, duplicate[:, 0], novel, steps, causes)

    def _outcomes(
        self,
        batch: Batch,
        verdict: Verdict,
        duplicate: npt.NDArray[np.bool_],
        slots: npt.NDArray[np.intp],
    ) -> Outcomes:
        """What every channel answers for the clients; see `detector.signals` for the questions."""
        n, rows = len(batch), self._table.rows
        hits = np.ones((n, len(CHANNELS)), np.bool_)
        bounds = np.ones((n, len(CHANNELS)))
        allowances = np.ones((n, len(SIGNALS)))

        hits[:, : len(LEVELS)] = verdict.foreign & ~duplicate[:, None]
        bounds[:, : len(LEVELS)] = self._null.bound[: len(LEVELS)]
        allowances[:, 0] = self._null.allowance[0]
        if self.baseline.has_coverage:
            inside = ~verdict.foreign[:, 0]
            entered, left = enter_cells(rows["visited"], slots, verdict.cells, inside, self.baseline.mass)
            left = np.maximum(left, _LEAST_MASS)
            hits[:, _COVERAGE] = entered
            bounds[:, _COVERAGE] = np.minimum(self._null.bound[_COVERAGE] * left, 1.0)
            allowances[:, SIGNALS.index(Signal.COVERAGE)] = self._null.allowance[1] * left
        changed, known = perturbed(rows, slots, batch.fingerprints, digests_of(batch.embeddings))
        # A health check that posts one picture all day gets one answer all day: one hit.
        unsure = (batch.margins <= self.baseline.rates.margin) & ~(known | duplicate)
        for channel, judged, outcome in (
            (_PERTURBATION, batch.fingerprints != 0, changed),
            (_BOUNDARY, ~np.isnan(batch.margins), unsure),
        ):
            signal = FIRST_CHANNEL.index(channel)
            hits[judged, channel] = outcome[judged]
            bounds[judged, channel] = self._null.bound[channel]
            allowances[judged, signal] = self._null.allowance[signal]
        return Outcomes(hits, bounds, allowances)

    def _slots(self, batch: Batch) -> npt.NDArray[np.intp]:
        """Where each query's client and groups stand in the table, shape (n, kinds); -1 for no group."""
        slots = np.full((len(batch), 1 + len(self.groups)), -1, np.intp)
        slots[:, 0] = self._table.slots(list(zip(repeat(CLIENT), batch.clients, strict=False)))
        for kind in range(len(self.groups)):
            keys = [groups[kind] for groups in batch.groups]
            events = [i for i, key in enumerate(keys) if key is not None]
            slots[events, kind + 1] = self._table.slots([key for key in keys if key is not None])
        for column in slots.T:
            self._see(column[column >= 0], batch.times[column >= 0])
        return slots

    def _deduplicate(
        self, batch: Batch, foreign: npt.NDArray[np.bool_], slots: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Duplicates among foreign queries by kind of subject, shape (n, kinds), and novel numbers.

        The query index forgets what is thousands of foreign queries old, and a busy endpoint gets there
        within the hour. So each subject remembers its latest few exactly: a health check that posts one
        odd picture all day stays one hit.
        """
        duplicate = np.zeros(slots.shape, np.bool_)
        novel = np.full(len(batch), -1, np.int64)
        for event in np.flatnonzero(foreign).tolist():
            duplicate[event] = self._repeated(batch.embeddings[event], slots[event])
        events = np.flatnonzero(foreign & ~(duplicate | (slots < 0)).all(axis=1))
        owners = np.array(
            [
                [owner_of(SubjectKey(CLIENT, batch.clients[i])), *map(owner_of, batch.groups[i])]
                for i in events.tolist()
            ],
            np.int64,
        ).reshape(len(events), 1 + len(self.groups))
        pool = QueryPool(batch.embeddings[events], batch.fingerprints[events], owners)
        seen, novel[events] = self._index.observe(pool)
        duplicate[events] |= seen
        return duplicate, novel

    def _repeated(
        self, embedding: npt.NDArray[np.float16], slots: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.bool_]:
        """Whether each subject asked exactly this lately, shape (kinds,); from now on it has."""
        digest = int.from_bytes(blake2b(embedding.tobytes(), digest_size=8).digest(), "little") | 1
        remembered = self._table.rows["recent"]
        repeated = np.zeros(len(slots), np.bool_)
        for kind, slot in enumerate(slots.tolist()):
            if slot >= 0:
                recent = remembered[slot].tolist()
                repeated[kind] = digest in recent
                recent.remove(digest if repeated[kind] else recent[-1])
                remembered[slot] = [digest, *recent]
        return repeated

    def _see(self, slots: npt.NDArray[np.intp], times: npt.NDArray[np.int64]) -> None:
        """Note when each subject was seen first and last, on the log's clock."""
        np.minimum.at(self._table.rows["first_seen"], slots, times)
        np.maximum.at(self._table.rows["last_seen"], slots, times)

    def _recorder(
        self,
        batch: Batch,
        events: npt.NDArray[np.intp],
        changes: list[tuple[int, int, FindingChange]],
        kind: int,
    ) -> OnChange:
        """Collect finding changes of one kind of subject as (query, kind, change)."""

        def record(turn: Turn) -> None:
            event = int(events[turn.event])
            moment = Moment(int(batch.times[event]), turn.queries, batch.ids[event])
            change = self._episodes.move(
                self._table.key(turn.slot),
                int(self._table.rows["episodes"][turn.slot]),
                turn.stage,
                at=moment,
                evidence=turn.evidence,
                signals=_figures(turn, self._null.rule.weights),
            )
            changes.append((event, kind, change))

        return record


def _figures(turn: Turn, weights: tuple[float, ...]) -> tuple[SignalFigures, ...]:
    """What each signal says about a subject whose finding changes."""
    by_channel = turn.S.sum(axis=1) / len(GRID) + turn.unspent
    figures = []
    for place, exposed in enumerate(turn.exposure.tolist()):
        mine = [i for i, channel in enumerate(CHANNELS) if channel.signal is SIGNALS[place]]
        weight = np.array([weights[i] for i in mine])
        value = float((weight * by_channel[mine]).sum() / max(weight.sum(), 1e-12))
        figures.append(SignalFigures(SIGNALS[place], value, exposed, int(turn.hits[FIRST_CHANNEL[place]])))
    return tuple(figures)
