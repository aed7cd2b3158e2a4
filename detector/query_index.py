"""The bounded index of incoming foreign queries: has this subject asked nearly the same before?"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from detector.base_domain import BaseDomain
from detector.domain import product
from detector.errors import DetectorError
from detector.perturbation import FINGERPRINT_BITS
from detector.subjects import SubjectKey

__all__ = ["NO_OWNER", "QueryIndex", "QueryPool", "owner_of"]

HALF = 4096
"""Queries in one generation of the index."""

NO_OWNER = 0
_CHUNK = 512
_PAIRS = 65_536  # compared at once
_MARGIN = 1e-4  # single precision loses less: 512 terms round by 3e-5 at most


def owner_of(key: SubjectKey | None) -> int:
    """A subject as a 63-bit number that is the same in every process; :data:`NO_OWNER` for None."""
    if key is None:
        return NO_OWNER
    digest = blake2b(f"{key.kind}\0{key.value}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 | 1


@dataclass(frozen=True, slots=True)
class QueryPool:
    """Foreign queries with whom they belong to.

    Attributes:
        embeddings: L2-normalised float16, shape (n, d).
        fingerprints: perceptual hashes, uint64, shape (n,); 0 where there was no picture.
        owners: :func:`owner_of` the client and of each group, int64, shape (n, kinds).
    """

    embeddings: npt.NDArray[np.float16]
    fingerprints: npt.NDArray[np.uint64]
    owners: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, which: slice | npt.NDArray[Any]) -> QueryPool:
        return QueryPool(self.embeddings[which], self.fingerprints[which], self.owners[which])


class QueryIndex:
    """The latest foreign and novel queries of one endpoint, in two FAISS generations.

    Novel queries are numbered from 0. Generation g holds numbers [g·half, (g+1)·half); the youngest
    generation and the one before it are searched, so a query sees between ``half`` and 2·``half``
    predecessors, and which ones depends on the numbers alone. That makes the answers independent of
    batches, and the index is rebuilt from the stored queries numbered :meth:`first_needed` and up.

    Args:
        domain: its cells are the coarse quantizer.
        kinds: how many subjects a query has: the client and its groups.
        near_duplicate: cosine similarity from which two queries may be near duplicates.
        half: queries in one generation.
        count: number of the next novel query.
    """

    def __init__(
        self, domain: BaseDomain, kinds: int, near_duplicate: float, *, half: int = HALF, count: int = 0
    ) -> None:
        self.count = count
        self._domain = domain
        self._near = near_duplicate
        self._half = half
        self._generations = [domain.empty_index(), domain.empty_index()]
        size = 2 * half
        self._pool = QueryPool(
            np.zeros((size, domain.centroids.shape[1]), np.float16),
            np.zeros(size, np.uint64),
            np.zeros((size, kinds), np.int64),
        )

    @staticmethod
    def first_needed(count: int, half: int = HALF) -> int:
        """Number of the oldest query that an index with ``count`` queries behind it still searches."""
        return max(0, (count // half - 1) * half)

    def restore(self, pool: QueryPool) -> None:
        """Put back the stored queries numbered ``first_needed(count, half)`` to ``count - 1``.

        Raises:
            DetectorError: another number of queries than that.
        """
        first = self.first_needed(self.count, self._half)
        if len(pool) != self.count - first:
            raise DetectorError(
                f"query index: {len(pool)} stored queries from number {first} on, "
                f"expected {self.count - first}; the table of queries is damaged: restore a backup"
            )
        self.count = first
        for start in range(0, len(pool), self._half):
            part = pool[start : start + self._half]
            self._append(part, self._cells(part))

    def observe(self, pool: QueryPool) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Find duplicates among ``pool`` and earlier queries, then remember what is novel.

        A query is a duplicate for a subject when an earlier novel query of that subject has at least
        the near-duplicate similarity and, where both are pictures, a fingerprint that differs in at most
        :data:`FINGERPRINT_BITS` bits. The fingerprint keeps unlike pictures apart that the encoder maps
        to one place, as it does with noise. A query is novel unless it is a duplicate for every subject
        that it has: a client who repeats one picture from a new network has asked it there once.

        Args:
            pool: foreign queries in order.

        Returns:
            Duplicate or not, for the client and each group, shape (n, kinds); and the number of each novel
            query, -1 for the others, shape (n,).
        """
        duplicate = np.zeros(pool.owners.shape, np.bool_)
        number = np.full(len(pool), -1, np.int64)
        start = 0
        while start < len(pool):
            # A chunk may fill the youngest generation but not go past it: what it sees is then constant.
            room = self._half - self.count % self._half
            stop = min(start + min(_CHUNK, room), len(pool))
            part = pool[start:stop]
            cells = self._cells(part)
            seen = self._seen_before(part, cells)
            novel = np.flatnonzero(self._seen_within(part, cells, seen))
            number[start + novel] = self.count + np.arange(len(novel))
            self._append(part[novel], cells[novel])
            duplicate[start:stop] = seen
            start = stop
        return duplicate, number

    def _cells(self, part: QueryPool) -> npt.NDArray[np.int64]:
        """The cells that each query is looked for in; it is kept in the first, shape (n, probes)."""
        similarity = product(part.embeddings.astype(np.float64), self._domain.centroids.T)
        return self._domain.nearest_cells(similarity)

    def _seen_before(self, part: QueryPool, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which queries repeat one of an earlier chunk, shape (n, kinds)."""
        seen = np.zeros(part.owners.shape, np.bool_)
        vectors = part.embeddings.astype(np.float32)
        for generation in self._generations:
            limits, similar, found = generation.range_search_preassigned(
                vectors, self._near - _MARGIN, cells, np.zeros(cells.shape, np.float32)
            )
            rows = np.repeat(np.arange(len(part)), np.diff(limits.astype(np.int64)))
            for first in range(0, len(rows), _PAIRS):
                some, stored = rows[first : first + _PAIRS], found[first : first + _PAIRS] % (2 * self._half)
                repeats = self._repeats(part, some, self._pool, stored, similar[first : first + _PAIRS])
                np.logical_or.at(seen, some, repeats)
        return seen

    def _seen_within(
        self, part: QueryPool, cells: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Set ``seen`` for repeats of an earlier query of the chunk; return what is to be remembered."""
        vectors = part.embeddings.astype(np.float32)
        similar = product(vectors, vectors.T)
        later, earlier = np.nonzero(np.tril(similar >= self._near - _MARGIN, -1))
        # Only where the inverted file would have looked, or the answer would depend on the chunk.
        probed = (cells[later] == cells[earlier, :1]).any(axis=1)
        later, earlier = later[probed], earlier[probed]
        repeats = self._repeats(part, later, part, earlier, similar[later, earlier])
        owned = part.owners != NO_OWNER
        remembered = (owned & ~seen).any(axis=1)
        for row in np.unique(later).tolist():
            mine = slice(*np.searchsorted(later, [row, row + 1]).tolist())
            seen[row] |= repeats[mine][remembered[earlier[mine]]].any(axis=0)
            remembered[row] = (owned[row] & ~seen[row]).any()
        return np.asarray(remembered)

    def _repeats(
        self,
        some: QueryPool,
        rows: npt.NDArray[np.int64],
        others: QueryPool,
        numbers: npt.NDArray[np.int64],
        similar: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.bool_]:
        """Whether the queries of each pair share an owner and are near duplicates, shape (pairs, kinds).

        ``similar`` has single precision, whose last bits depend on the batch; pairs that it leaves in doubt
        are decided in double precision, each by itself.
        """
        mine, theirs = some.fingerprints[rows], others.fingerprints[numbers]
        unlike = (np.bitwise_count(mine ^ theirs) > FINGERPRINT_BITS) & (mine != 0) & (theirs != 0)
        owners = some.owners[rows]
        shared = (owners == others.owners[numbers]) & (owners != NO_OWNER)
        alike = ~unlike & shared.any(axis=1)
        doubtful = np.flatnonzero(alike & (similar < self._near + _MARGIN))
        for pair in np.array_split(doubtful, len(doubtful) // _CHUNK + 1):
            a, b = some.embeddings[rows[pair]], others.embeddings[numbers[pair]]
            alike[pair] = np.einsum("ij,ij->i", a.astype(np.float64), b.astype(np.float64)) >= self._near
        return np.asarray(shared & alike[:, None])

    def _append(self, part: QueryPool, cells: npt.NDArray[np.int64]) -> None:
        if len(part) == 0:
            return
        numbers = np.arange(self.count, self.count + len(part))
        slots = numbers % (2 * self._half)
        self._pool.embeddings[slots] = part.embeddings
        self._pool.fingerprints[slots] = part.fingerprints
        self._pool.owners[slots] = part.owners
        # Into the cell that _seen_within compares with; FAISS would choose it in single precision.
        vectors, first = part.embeddings.astype(np.float32), np.ascontiguousarray(cells[:, 0])
        self._generations[1].add_core(
            len(part), faiss.swig_ptr(vectors), faiss.swig_ptr(numbers), faiss.swig_ptr(first)
        )
        self.count += len(part)
        if self.count % self._half == 0:
            self._generations = [self._generations[1], self._domain.empty_index()]
