"""Fills a stream with pictures: the traffic of one replicate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from redteam.benchmark.plan import KNOCKOFF, LONG, TURNCOAT, Stream
from redteam.benchmark.slices import Slicing, bootstrap, disjoint, rng_of
from redteam.honest import HONEST
from redteam.pictures import Pictures
from redteam.thieves import THIEVES, Thief
from redteam.traffic import Traffic, camouflage, merge, one_client, spread, turncoat
from redteam.world import World

__all__ = ["CLIENT", "attack", "background", "campaign", "honest", "is_maker", "seeds_of", "slicing_of"]

CLIENT, IN_DOMAIN = "client", "in-domain"
"""Name of the one client of an attack."""

_BACKGROUND = ((30, 90), 100, 64)  # queries of an honest client; first two parts of its address


def thief_of(stream: Stream) -> Thief:
    """Who steals in a stream: a turncoat turns into a Knockoff."""
    maker = THIEVES[KNOCKOFF if stream.name == TURNCOAT else stream.name]
    return maker(stream.pool) if stream.pool else maker()


def is_maker(kind: str) -> bool:
    """Whether thieves of a kind make their pictures, which then have to be encoded."""
    maker = THIEVES[kind]
    return not (getattr(maker, "foreign", False) or getattr(maker, "in_domain", False))


def seeds_of(stream: Stream) -> int:
    """The client's queries before those that are counted: seeds, or an honest life."""
    return stream.turn or thief_of(stream).seeds


def attack(world: World, stream: Stream, replicate: int, replicates: int) -> Traffic:
    """One client's queries that serve a theft, with camouflage or an honest life before it if that is so."""
    rng = rng_of(world.name, stream.name, stream.pool, stream.share, stream.turn, replicate)
    thief = thief_of(stream)
    rows = _rows(world, stream, replicate, replicates, rng)
    stolen = thief.ask(world, max(1, round(stream.queries * stream.share)), rng, slice_=rows)
    if stream.turn:
        own = world.benign[bootstrap(len(world.benign), rng)]
        return turncoat(own, stolen, rng, turn=stream.turn, client=CLIENT)
    if stream.share == 1:
        return one_client(stolen, client=CLIENT, attack=True)
    honest = _endless(world.benign, stream.queries - len(stolen), rng)
    return camouflage(stolen, honest, stream.share, rng, client=CLIENT)


def slicing_of(world: World, stream: Stream, replicates: int, asked: int) -> Slicing:
    """What sets replicates of an attack apart.

    Args:
        world: gives the pools.
        stream: what is run.
        replicates: how many share its pool.
        asked: of the thief's own pictures by the time the run was decided.
    """
    if is_maker(KNOCKOFF if stream.name == TURNCOAT else stream.name):
        return Slicing.MADE
    if _selects(stream):
        return Slicing.BOOTSTRAP
    pool = world.pools[stream.pool] if stream.pool else world.thief
    return Slicing.DISJOINT if asked <= len(pool) // replicates else Slicing.OVERLAPPING


def honest(world: World, stream: Stream, first: int, stop: int) -> Traffic:
    """Honest clients of one family, each on a bootstrap of the pictures; their queries alternate."""
    clients = []
    for number in range(first, stop):
        rng = rng_of(world.name, stream.name, stream.queries, number)
        own = world.benign[bootstrap(len(world.benign), rng)]
        asked = HONEST[stream.name].ask(world, own, stream.queries, rng)
        clients.append(one_client(asked, client=f"{stream.name} {number}", begins=number - first))
    return merge(clients)


def campaign(world: World, stream: Stream, replicate: int) -> Traffic:
    """A campaign's queries, dealt over its accounts."""
    rng = rng_of(
        world.name, "campaign", stream.pool, stream.share, stream.accounts, stream.network, replicate
    )
    wanted = round(stream.queries * stream.share)
    pool = world.pools[stream.pool]
    rows = bootstrap(len(pool), rng)
    stolen = thief_of(stream).ask(world, wanted, rng, slice_=rows)
    mixed = one_client(stolen, attack=True)
    if stream.share < 1:
        mixed = camouflage(stolen, _endless(world.benign, stream.queries - wanted, rng), stream.share, rng)
    each = len(mixed) // stream.accounts
    dealt = spread(
        mixed.pictures, stream.accounts, each, rng, network="203.0.113" if stream.network else None
    )
    return replace(dealt, attack=mixed.attack[: len(dealt)])


def background(world: World, clients: int, replicate: int) -> list[Traffic]:
    """Honest clients of an ordinary day, each with an address of its own."""
    rng = rng_of(world.name, "background", replicate)
    (fewest, most), first, second = _BACKGROUND
    pictures = world.benign[bootstrap(len(world.benign), rng)]
    return [
        one_client(
            HONEST[LONG].ask(world, pictures, int(rng.integers(fewest, most)), rng),
            client=f"honest-{number:04d}",
            attributes={"ip": f"{first}.{second + number // 256}.{number % 256}.{1 + number % 254}"},
        )
        for number in range(clients)
    ]


def _rows(
    world: World, stream: Stream, replicate: int, replicates: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Which pictures of its pool, or of the thief's own, a replicate holds."""
    pool = world.pools[stream.pool] if stream.pool else world.thief
    if _selects(stream):
        return bootstrap(len(pool), rng)
    return disjoint(len(pool), replicate, replicates, name=f"{world.name} {stream.pool}")


def _selects(stream: Stream) -> bool:
    """Whether the thief picks what to ask out of all that it holds."""
    return stream.name not in (KNOCKOFF, TURNCOAT, IN_DOMAIN) and not is_maker(stream.name)


def _endless(pictures: Pictures, count: int, rng: np.random.Generator) -> Pictures:
    """Bootstrapped pictures in random order, again and again until there are enough."""
    rows = bootstrap(len(pictures), rng)
    times = -(-count // len(rows))
    return pictures[np.concatenate([rng.permutation(rows) for _ in range(times)] or [rows[:0]])[:count]]
