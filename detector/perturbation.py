"""The perturbation signal: queries that are near, but not equal, to one of the client's own earlier ones.

A thief who has few pictures of the domain multiplies them: by steps along the signs of a substitute's
Jacobian (JBDA: Papernot et al. 2017, arXiv 1602.02697), by random steps (T-RND: Juuti et al.
2019, arXiv 1805.02628), or by walks along the decision boundary. Such steps throw an encoder's
embedding far away, but leave a picture's perceptual hash nearly as it was.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["FINGERPRINT_BITS", "REMEMBERED", "RETAKES", "digests_of", "perturbed"]

FINGERPRINT_BITS = 10
"""Two pictures may be near duplicates while at most this many of their 64 fingerprint bits differ."""

RETAKES = 16
"""A picture near one of the client's so many latest unlike ones is the same scene again, and no hit.

Frames of a burst, or a picture that did not please, follow one upon the other; a thief who multiplies what he
has goes through all of it first."""

REMEMBERED = 64
"""A client's latest pictures unlike each other that its state remembers."""

_Bools = npt.NDArray[np.bool_]
_USED = np.uint16(1)
_CROWD = 16  # a round of fewer clients costs more than their events taken together
_PART = 256  # events taken together, each compared with each
_MULTIPLIERS = np.random.default_rng(0x62616E6B656E).integers(1, 2**63, 4096).astype(np.uint64) | np.uint64(1)


def digests_of(embeddings: npt.NDArray[np.float16]) -> npt.NDArray[np.uint64]:
    """Digests that are equal for equal embeddings and otherwise hardly ever, shape (n,)."""
    repeats = -(-embeddings.shape[1] // len(_MULTIPLIERS))
    multipliers = np.tile(_MULTIPLIERS, repeats)[: embeddings.shape[1]]
    digests: npt.NDArray[np.uint64] = np.sum(
        np.ascontiguousarray(embeddings).view(np.uint16) * multipliers, axis=1, dtype=np.uint64
    )
    return digests


def perturbed(
    rows: npt.NDArray[np.void],
    slots: npt.NDArray[np.intp],
    fingerprints: npt.NDArray[np.uint64],
    digests: npt.NDArray[np.uint64],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Take events in the log's order, and remember pictures that are unlike those before.

    A query that equals a remembered picture is a repeat and no hit. One that is near remembered pictures is
    a hit if none of them is among the latest `RETAKES` or had been perturbed before; from then on they have
    been. Any other is remembered, in place of the oldest. So a burst of frames of one scene is no hit.

    Args:
        rows: table of states; ``prints``, ``marks`` and ``kept`` are changed in place.
        slots: row of each event's client, shape (n,).
        fingerprints: perceptual hashes, uint64, shape (n,); 0 where there was no picture: such a query is
            remembered by its embedding, so that it can be known again, but is no hit.
        digests: :func:`digests_of` their embeddings, shape (n,).

    Returns:
        Outcomes, and whether each query equals or is near a remembered one, both of shape (n,).
    """
    pictured = fingerprints != 0
    short = (digests >> np.uint64(48)).astype(np.uint16) & ~_USED
    events = _Events(slots, np.where(pictured, fingerprints, digests), short, pictured)
    hits, known = np.zeros((2, len(slots)), np.bool_)
    rest = _take_in_rounds(rows, events, hits, known)  # a client's own order is all that matters
    for start in range(0, len(rest), _PART):
        part = rest[start : start + _PART]
        hits[part], known[part] = _take_together(rows, events.at(part))
    return hits, known


@dataclass(frozen=True, slots=True)
class _Events:
    """Events in order: their clients' rows, what is remembered of each, and whether it had a picture."""

    slots: npt.NDArray[np.intp]
    looks: npt.NDArray[np.uint64]
    short: npt.NDArray[np.uint16]
    pictured: _Bools

    def at(self, which: npt.NDArray[np.intp]) -> _Events:
        return _Events(self.slots[which], self.looks[which], self.short[which], self.pictured[which])

    def equal(self, one: int, others: npt.NDArray[np.intp]) -> list[bool]:
        same = (self.looks[others] == self.looks[one]) & (self.short[others] == self.short[one])
        return list(same.tolist())


def _take_in_rounds(
    rows: npt.NDArray[np.void], events: _Events, hits: _Bools, known: _Bools
) -> npt.NDArray[np.intp]:
    """Take the next event of every client at once, while enough clients have one; return the events left."""
    order = np.argsort(events.slots, kind="stable")
    mine, first, counts = np.unique(events.slots[order], return_index=True, return_counts=True)
    most_first = np.argsort(-counts, kind="stable")
    mine, first, counts = mine[most_first], first[most_first], counts[most_first]
    rounds = int(counts[_CROWD - 1]) if len(counts) >= _CROWD else 0
    prints, marks, kept = rows["prints"][mine], rows["marks"][mine], rows["kept"][mine]
    for turn in range(rounds):
        m = int(np.count_nonzero(counts > turn))
        event = order[first[:m] + turn]
        distance = np.bitwise_count(prints[:m] ^ events.looks[event, None])
        near = (distance <= FINGERPRINT_BITS) & (prints[:m] != 0)
        equal = near & (distance == 0) & ((marks[:m] & ~_USED) == events.short[event, None])
        close, repeat = near.any(axis=1), equal.any(axis=1)
        age = (kept[:m, None] - 1 - np.arange(REMEMBERED)) % REMEMBERED
        spent = (near & (((marks[:m] & _USED) != 0) | (age < RETAKES))).any(axis=1)
        hits[event], known[event] = close & ~repeat & ~spent & events.pictured[event], close
        marks[:m] |= (near & ~repeat[:, None]).astype(np.uint16)
        new = np.flatnonzero(~close)
        place = kept[new] % REMEMBERED
        prints[new, place], marks[new, place] = events.looks[event[new]], events.short[event[new]]
        kept[new] += 1
    rows["prints"][mine], rows["marks"][mine], rows["kept"][mine] = prints, marks, kept
    busier = range(np.count_nonzero(counts > rounds))
    left = [order[first[i] + rounds : first[i] + counts[i]] for i in busier]
    return np.concatenate([order[:0], *left])


def _take_together(rows: npt.NDArray[np.void], events: _Events) -> tuple[_Bools, _Bools]:
    """Take events of few clients: find what is near what in bulk, then go through them one by one.

    The k-th picture that a client remembers stays until the one of number k + `REMEMBERED` takes its place.
    """
    near, used = _near_remembered(rows, events)
    matrix = np.bitwise_count(events.looks[:, None] ^ events.looks) <= FINGERPRINT_BITS
    matrix &= (events.slots[:, None] == events.slots) & (events.looks != 0)[:, None]
    crowded = (np.count_nonzero(matrix, axis=1) > 1).tolist()  # near more than itself
    slots = events.slots.tolist()
    kept = dict(zip(slots, rows["kept"][events.slots].tolist(), strict=True))
    numbers, hits = [-1] * len(slots), np.zeros(len(slots), np.bool_)
    for event, slot in enumerate(slots):
        count = kept[slot]
        close = {k: equal for k, equal in near.get(event, ()) if k >= count - REMEMBERED}
        if not close:
            numbers[event], kept[slot] = count, count + 1
            if crowded[event]:
                later = event + 1 + np.flatnonzero(matrix[event, event + 1 :])
                for other, equal in zip(later.tolist(), events.equal(event, later), strict=True):
                    near[other].append((count, equal))
        elif not any(close.values()):
            pictures = {(slot, k) for k in close}
            retake = max(close) >= count - RETAKES
            hits[event] = events.pictured[event] and not retake and used.isdisjoint(pictures)
            used |= pictures
    _remember(rows, events, np.array(numbers), used)
    return hits, np.array(numbers) < 0


def _near_remembered(
    rows: npt.NDArray[np.void], events: _Events
) -> tuple[defaultdict[int, list[tuple[int, bool]]], set[tuple[int, int]]]:
    """Numbers of the pictures near each event, with whether they equal it; (slot, number) of used ones."""
    prints = rows["prints"][events.slots]
    distance = np.bitwise_count(prints ^ events.looks[:, None])
    event, place = np.nonzero((distance <= FINGERPRINT_BITS) & (prints != 0))
    slot = events.slots[event]
    mark, oldest = rows["marks"][slot, place], rows["kept"][slot] - REMEMBERED
    number = oldest + (place - oldest) % REMEMBERED
    equal = (distance[event, place] == 0) & ((mark & ~_USED) == events.short[event])
    near = defaultdict(list)
    for i, k, same in zip(event.tolist(), number.tolist(), equal.tolist(), strict=True):
        near[i].append((k, same))
    used = (mark & _USED) != 0
    return near, set(zip(slot[used].tolist(), number[used].tolist(), strict=True))


def _remember(
    rows: npt.NDArray[np.void], events: _Events, numbers: npt.NDArray[np.int64], used: set[tuple[int, int]]
) -> None:
    """Write down the events that have a number, and which pictures are perturbed by now."""
    np.maximum.at(rows["kept"], events.slots, numbers + 1)
    new = np.flatnonzero((numbers >= 0) & (numbers >= rows["kept"][events.slots] - REMEMBERED))
    slot, place = events.slots[new], numbers[new] % REMEMBERED
    rows["prints"][slot, place], rows["marks"][slot, place] = events.looks[new], events.short[new]
    slot, number = np.array(list(used), np.int64).reshape(-1, 2).T
    last = number >= rows["kept"][slot] - REMEMBERED
    rows["marks"][slot[last], number[last] % REMEMBERED] |= _USED
