"""Whose queries they are, and in which order they reach the endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from redteam.errors import RedteamError
from redteam.pictures import Pictures

__all__ = ["SHARES", "SPREADS", "Traffic", "camouflage", "merge", "one_client", "spread", "turncoat"]

SHARES = (1.0, 0.5, 0.25, 0.1, 0.05)
"""Shares of the thief's own queries that the benchmark hides among honest ones."""

SPREADS = ((1, 5_000), (100, 50), (400, 12), (2_500, 2))
"""Campaigns of the benchmark: accounts, and queries of each."""

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one endpoint's log holds, in order.

    Attributes:
        pictures: the queries.
        clients: who asked, one name a query.
        attributes: what else the log says of the sender (``ip``, …), one mapping a query.
        times: when, in ms since the log began, never falling, int64, shape (n,).
        attack: whether the query serves a theft, bool, shape (n,).
    """

    pictures: Pictures
    clients: tuple[str, ...]
    attributes: tuple[Mapping[str, str], ...]
    times: npt.NDArray[np.int64]
    attack: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, rows: slice | npt.NDArray[Any]) -> Traffic:
        """Some of the queries: a slice, indices or a mask."""
        kept = np.arange(len(self))[rows]
        return Traffic(
            self.pictures[kept],
            tuple(self.clients[row] for row in kept),
            tuple(self.attributes[row] for row in kept),
            self.times[kept],
            self.attack[kept],
        )

    def of_client(self) -> dict[str, Traffic]:
        """Each client's own queries, in order; clients in the order of their first query."""
        rows: dict[str, list[int]] = {}
        for row, client in enumerate(self.clients):
            rows.setdefault(client, []).append(row)
        return {client: self[np.array(own)] for client, own in rows.items()}


def one_client(
    pictures: Pictures,
    *,
    client: str = "client",
    attack: bool | npt.NDArray[np.bool_] = False,
    attributes: Mapping[str, str] | None = None,
    begins: int = 0,
    gap: int = 1_000,
) -> Traffic:
    """One client's queries at a steady pace.

    Args:
        pictures: the queries, in order.
        client: its name.
        attack: for all queries, or one a query.
        attributes: of every query.
        begins: time of the first query, in ms.
        gap: between two queries, in ms.
    """
    count = len(pictures)
    return Traffic(
        pictures,
        (client,) * count,
        (attributes or {},) * count,
        begins + gap * np.arange(count, dtype=np.int64),
        np.array(np.broadcast_to(attack, count), np.bool_),
    )


def camouflage(
    foreign: Pictures, honest: Pictures, share: float, rng: np.random.Generator, *, client: str = "thief"
) -> Traffic:
    """Hide a thief's queries among honest ones of the same client, at random places.

    As many queries come out as both streams suffice for; each stream keeps its order. The number of the
    thief's queries is exactly round(share × n), and every interleaving is equally likely.

    Args:
        foreign: the thief's queries.
        honest: what it hides among.
        share: of the thief's queries, in (0, 1].
        rng: decides the places.
        client: the account's name.

    Raises:
        RedteamError: the share is not in (0, 1], or there is nothing to interleave.
    """
    if not 0 < share <= 1:
        raise RedteamError(f"an attacker share of {share} is not in (0, 1]; give 1 for no camouflage")
    total = int(len(foreign) / share)
    if share < 1:
        total = min(total, int(len(honest) / (1 - share)))
    thieving = min(round(share * total), len(foreign))
    total = min(total, thieving + len(honest))
    if not thieving:
        raise RedteamError(f"a share of {share} of {total} queries is none; give more pictures")
    attack = np.zeros(total, np.bool_)
    attack[rng.choice(total, thieving, replace=False)] = True
    rows = np.where(attack, np.cumsum(attack) - 1, thieving + np.cumsum(~attack) - 1)
    both = Pictures.join([foreign[:thieving], honest[: total - thieving]])
    return one_client(both[rows], client=client, attack=attack)


def turncoat(
    honest: Pictures,
    foreign: Pictures,
    rng: np.random.Generator,
    *,
    turn: int = 20_000,
    client: str = "turncoat",
) -> Traffic:
    """An account that lives honestly for long and then steals: a leaked key, or a patient thief.

    So long a life needs more honest pictures than there are. They are drawn in epochs, each a fresh
    permutation, so that from the second epoch on every honest query is an exact repeat of an earlier one.
    That is what the duplicate rule makes of it too: such repeats are events without a hit.

    Args:
        honest: pictures to draw from.
        foreign: the thief's queries, in order.
        rng: decides the order of each epoch.
        turn: honest queries before the first of the thief's.
        client: the account's name.

    Raises:
        RedteamError: no honest picture to draw from.
    """
    if not len(honest):
        raise RedteamError("a turncoat needs honest pictures to begin with; give at least one")
    epochs = -(-turn // len(honest))
    rows = np.concatenate([rng.permutation(len(honest)) for _ in range(epochs)] or [np.arange(0)])[:turn]
    attack = np.arange(turn + len(foreign)) >= turn
    return one_client(Pictures.join([honest[rows], foreign]), client=client, attack=attack)


def spread(
    pictures: Pictures,
    accounts: int,
    per_account: int,
    rng: np.random.Generator,
    *,
    name: str = "mule",
    network: str | None = "203.0.113",
    lasts: int = _DAY_MS,
) -> Traffic:
    """A thief's queries dealt over many accounts, round robin.

    Args:
        pictures: the queries, in order; the first ``accounts`` × ``per_account`` are used.
        accounts: how many.
        per_account: queries of each.
        rng: draws times and, without a common network, addresses.
        name: of the accounts, before their number.
        network: first three parts of the address that all accounts share (attribute ``ip``); None gives
            every account an address of its own, each in another /24.
        lasts: over how long the queries are spread, in ms.

    Raises:
        RedteamError: fewer pictures than that.
    """
    count = accounts * per_account
    if len(pictures) < count:
        raise RedteamError(
            f"{accounts:,} accounts of {per_account:,} queries need {count:,} pictures, not {len(pictures):,}"
        )
    if network is None:
        # 198.18.0.0/15 and 10.0.0.0/8 are set aside for benchmarks and private use (RFC 2544, RFC 1918).
        drawn = rng.permutation(65_536)[:accounts]
        addresses = [f"10.{number >> 8}.{number & 255}.{1 + number % 254}" for number in drawn]
    else:
        addresses = [f"{network}.{1 + number % 254}" for number in range(accounts)]
    mules = [(f"{name}-{number:04d}", {"ip": address}) for number, address in enumerate(addresses)]
    order = [mules[row % accounts] for row in range(count)]
    return Traffic(
        pictures[:count],
        tuple(client for client, _ in order),
        tuple(attributes for _, attributes in order),
        np.sort(rng.integers(0, lasts, count)),
        np.ones(count, np.bool_),
    )


def merge(
    clients: Sequence[Traffic], rng: np.random.Generator | None = None, *, lasts: int = _DAY_MS
) -> Traffic:
    """One log out of many clients' streams; each stream keeps its order.

    Args:
        clients: at least one stream.
        rng: gives every query a new time, drawn evenly over the log's length and sorted within its stream:
            a random interleaving. None keeps the times that the streams have.
        lasts: length of the log, in ms.
    """
    times = [
        stream.times if rng is None else np.sort(rng.integers(0, lasts, len(stream))) for stream in clients
    ]
    moments = np.concatenate(times)
    order = np.argsort(moments, kind="stable")
    names = [client for stream in clients for client in stream.clients]
    attributes = [said for stream in clients for said in stream.attributes]
    return Traffic(
        Pictures.join([stream.pictures for stream in clients])[order],
        tuple(names[row] for row in order),
        tuple(attributes[row] for row in order),
        moments[order].astype(np.int64),
        np.concatenate([stream.attack for stream in clients])[order],
    )
