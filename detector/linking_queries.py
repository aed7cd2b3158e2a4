"""The queries that link accounts: a bounded memory of the endpoint's latest ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detector.links import Content

__all__ = ["PER_CLIENT", "RECENT", "LinkingQueries", "LinkingQuery"]

RECENT = 4096
"""Linking queries of an endpoint that are compared with each other: the latest ones."""

PER_CLIENT = 32
"""Linking queries that one client contributes, its first ones: nobody crowds the others out."""


@dataclass(frozen=True, slots=True)
class LinkingQuery:
    """A foreign, novel, odd-numbered query.

    Attributes:
        number: its running number in the endpoint, from 0.
        client: who asked.
        event_id: which query it is.
        embedding: L2-normalised float16, shape (d,).
        fingerprint: perceptual hash; 0 where there was no picture.
        cell: nearest cell of the domain.
        answer: the class that it was answered with; empty where the log does not say.
    """

    number: int
    client: str
    event_id: str
    embedding: npt.NDArray[np.float16]
    fingerprint: int
    cell: int
    answer: str = ""


class LinkingQueries:
    """The latest `RECENT` linking queries of one endpoint.

    Each lies where its number says, so that the memory is the same after a restart.

    Args:
        dim: length of an embedding.
    """

    def __init__(self, dim: int) -> None:
        self._embeddings = np.zeros((RECENT, dim), np.float16)
        self._fingerprints = np.zeros(RECENT, np.uint64)
        self._cells = np.zeros(RECENT, np.int64)
        self._numbers = np.full(RECENT, -1, np.int64)
        self._clients = [""] * RECENT
        self._answers = [""] * RECENT

    def add(self, query: LinkingQuery) -> None:
        """Remember a query, and forget the one that came `RECENT` before it."""
        at = query.number % RECENT
        self._embeddings[at], self._fingerprints[at] = query.embedding, query.fingerprint
        self._cells[at], self._numbers[at] = query.cell, query.number
        self._clients[at], self._answers[at] = query.client, query.answer

    def clients(self) -> list[str]:
        """Whose queries these are, in the order of their earliest ones."""
        order = np.argsort(self._numbers, kind="stable")
        return list(dict.fromkeys(self._clients[at] for at in order.tolist() if self._numbers[at] >= 0))

    def split(self, names: Sequence[str]) -> tuple[Content, npt.NDArray[np.float16]]:
        """The queries of some clients, and the embeddings of all others', shape (k, d).

        Args:
            names: the clients; owners in the content are places here.
        """
        place = {name: number for number, name in enumerate(names)}
        owners = np.fromiter((place.get(client, -1) for client in self._clients), np.int64, RECENT)
        used = self._numbers >= 0
        mine = np.flatnonzero(used & (owners >= 0))
        answers = [self._answers[at] for at in mine.tolist()]
        places = np.unique(answers, return_inverse=True)[1] if all(answers) else self._cells[mine]
        content = Content(
            self._embeddings[mine].astype(np.float32), self._fingerprints[mine], places, owners[mine]
        )
        return content, self._embeddings[used & (owners < 0)]
