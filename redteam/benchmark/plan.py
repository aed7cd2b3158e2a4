"""What the benchmark runs: streams, how often, and through which detectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from redteam.benchmark.runs import BANKEN
from redteam.traffic import SHARES, SPREADS

__all__ = ["KNOCKOFF", "LONG", "SIZES", "TURNCOAT", "Group", "Size", "Stream", "Task", "plan"]


KNOCKOFF, TURNCOAT, LONG = "knockoff", "turncoat", "i.i.d."


class Group(StrEnum):
    """What kind of stream it is."""

    ATTACK = "attack"
    HONEST = "honest"
    CAMPAIGN = "campaign"


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of queries, which replicates fill with different pictures.

    Attributes:
        group: what kind it is.
        name: thief or honest family.
        pool: foreign pool, or empty.
        queries: of one run; fewer where the pictures do not suffice.
        share: of the thief's own among the client's queries; 0 for honest clients.
        accounts: over which the queries are dealt.
        network: whether those share one.
        turn: honest queries before the first of the thief's.
        beside: honest clients in the same log.
    """

    group: Group
    name: str
    queries: int
    pool: str = ""
    share: float = 1.0
    accounts: int = 1
    network: bool = False
    turn: int = 0
    beside: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """Some replicates of a stream through one detector: what is run, or skipped, as a whole.

    Attributes:
        stream: what is run.
        detector: `banken`, or a rival.
        first: number of the first replicate.
        stop: number after the last.
        of: how many replicates the stream has; pools are sliced by it.
        trains: whether thieves are trained on the answers, to measure agreement.
    """

    stream: Stream
    detector: str
    first: int
    stop: int
    of: int
    trains: bool = False

    @property
    def key(self) -> str:
        """A name that is a file's name and tells every setting."""
        stream = self.stream
        parts = [
            stream.group.value,
            stream.name,
            *([stream.pool] if stream.pool else []),
            f"q{stream.queries}",
            *([f"share{stream.share:g}"] if 0 < stream.share < 1 else []),
            *([f"accounts{stream.accounts}"] if stream.accounts > 1 else []),
            *(["network"] if stream.network else []),
            *([f"turn{stream.turn}"] if stream.turn else []),
            f"{self.first}-{self.stop}of{self.of}",
            *(["trained"] if self.trains else []),
            self.detector,
        ]
        return "_".join(part.replace(" ", "-").replace("/", "-") for part in parts)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run.

    Attributes:
        name: of the size.
        queries: of an attack, and of all accounts of a campaign.
        thin: queries of an attack that hides among honest ones.
        made: queries of a thief that makes its pictures, where nobody is trained on the answers.
        attacks: replicates of an attack that asks a pool as it comes.
        costly: replicates of an attack that makes its pictures, or turns after a long life.
        active: replicates of an attack that picks from what it holds.
        trained: of each, how many are followed by a trained thief; of those that make their pictures one.
        clients: honest clients of each family that the promise is made to.
        reported: honest clients of each other family.
        slow: honest clients of families that make their pictures, by the beginning of the name.
        life: queries of an honest client.
        long_clients: honest clients of the family "i.i.d." who live longer.
        long_life: their queries, and those of a turncoat before it turns.
        campaigns: replicates of a campaign.
        spreads: accounts of a campaign, and queries of each.
        background: honest clients beside a campaign.
        rivals: replicates of one client's attack, and honest clients of a family, for each rival.
        compared: honest families that rivals see.
        block: honest clients of one task.
        leaves_out: beginnings of names of thieves and families that are not run.
    """

    name: str
    queries: int = 5_000
    thin: int = 3_600
    made: int = 400
    attacks: int = 40
    costly: int = 12
    active: int = 6
    trained: int = 3
    clients: int = 1_000
    reported: int = 200
    slow: Mapping[str, int] = field(
        default_factory=lambda: {"retakes": 200, "near-duplicate": 100, "broken": 100, "corrupted": 50}
    )
    life: int = 3_000
    long_clients: int = 100
    long_life: int = 20_000
    campaigns: int = 5
    spreads: tuple[tuple[int, int], ...] = SPREADS[1:]
    background: int = 500
    rivals: Mapping[str, int] = field(default_factory=dict)
    compared: tuple[str, ...] = (LONG, "class skew", "single class", "other camera", "corrupted: noise")
    block: int = 25
    leaves_out: tuple[str, ...] = ()


SIZES: Mapping[str, Size] = {
    size.name: size
    for size in (
        Size(
            "quick",
            queries=600,
            thin=400,
            made=160,
            attacks=5,
            costly=2,
            active=1,
            trained=1,
            clients=50,
            reported=10,
            life=300,
            long_clients=0,
            long_life=300,
            campaigns=1,
            spreads=((20, 15),),
            background=40,
            rivals={"pixel-mean": 2},
            # Pictures that are made have to be encoded, a hundred a second.
            leaves_out=(
                "data-free-late",
                "augmentations",
                "t-rnd",
                "near-duplicate",
                "broken",
                "corrupted",
                "retakes",
            ),
        ),
        Size(
            "core",
            rivals={
                "prada": 20,
                "hoda-50": 20,
                "hoda-100": 20,
                "mmd-100": 10,
                "mmd-500": 10,
                "pixel-mean": 20,
                "knn-mean": 20,
            },
        ),
        Size(
            "full",
            attacks=100,
            costly=40,
            active=20,
            trained=10,
            clients=5_000,
            reported=1_000,
            slow={},
            long_clients=1_000,
            campaigns=20,
            rivals=dict.fromkeys(
                (
                    "prada",
                    "hoda-50",
                    "hoda-100",
                    "mmd-100",
                    "mmd-500",
                    "pixel-mean",
                    "knn-mean",
                    "seat",
                    "add",
                ),
                40,
            ),
        ),
    )
}
"""The benchmark's sizes by name."""


_FIRST_POOLS = ("tiny-imagenet", "cifar100")
"""Pools that thieves hide, turn and are dealt out with, if they are there; else the largest."""


def plan(
    size: Size,
    pools: Mapping[str, int],
    thieves: Mapping[str, bool],
    makers: frozenset[str],
    families: Mapping[str, bool],
) -> list[Task]:
    """Everything that is run on one domain, in order.

    Args:
        size: how much.
        pools: foreign pools by name, with their numbers of pictures.
        thieves: kinds by name, and whether each takes a foreign pool.
        makers: kinds that make their pictures.
        families: honest families, and whether the promise is made to them.
    """
    thieves = {name: takes for name, takes in thieves.items() if not name.startswith(size.leaves_out)}
    families = {name: promised for name, promised in families.items() if not name.startswith(size.leaves_out)}
    makers = makers & thieves.keys()
    main = next((name for name in _FIRST_POOLS if name in pools), max(pools, key=lambda name: pools[name]))
    tasks = [
        *_attacks(size, pools, thieves, makers),
        *_turncoats(size, main),
        *_honest(size, families),
        *_campaigns(size, main),
        *_rivals(size, pools, main, makers, families),
    ]
    return sorted(tasks, key=lambda task: task.detector != BANKEN)


def _attacks(
    size: Size, pools: Mapping[str, int], thieves: Mapping[str, bool], makers: frozenset[str]
) -> Iterator[Task]:
    for name, takes in thieves.items():
        for pool in pools if takes else [""]:
            whole = Stream(Group.ATTACK, name, size.queries, pool)
            untrained = replace(whole, queries=size.made) if name in makers else whole
            runs = size.attacks if name in _PLAIN else size.costly if name in makers else size.active
            for number in range(runs):
                trains = number < (1 if name in makers else size.trained)
                yield Task(whole if trains else untrained, BANKEN, number, number + 1, runs, trains)
    for pool in pools:
        for share in SHARES[1:]:
            hidden = Stream(Group.ATTACK, KNOCKOFF, size.thin, pool, share)
            for number in range(size.attacks):
                trains = share >= _LEAKS and number < size.trained
                yield Task(hidden, BANKEN, number, number + 1, size.attacks, trains)


def _turncoats(size: Size, pool: str) -> Iterator[Task]:
    stream = Stream(Group.ATTACK, TURNCOAT, size.made, pool, turn=size.long_life)
    for number in range(size.costly):
        yield Task(stream, BANKEN, number, number + 1, size.costly)


def _honest(size: Size, families: Mapping[str, bool]) -> Iterator[Task]:
    lives = [(family, _clients(size, family, promised), size.life) for family, promised in families.items()]
    if size.long_clients:
        lives.append((LONG, size.long_clients, size.long_life))
    for family, clients, life in lives:
        stream = Stream(Group.HONEST, family, life, share=0.0)
        block = max(1, size.block * size.life // life)
        for first in range(0, clients, block):
            yield Task(stream, BANKEN, first, min(first + block, clients), clients)


def _clients(size: Size, family: str, promised: bool) -> int:
    slow = next((count for name, count in size.slow.items() if family.startswith(name)), None)
    return slow or (size.clients if promised else size.reported)


def _campaigns(size: Size, pool: str) -> Iterator[Task]:
    for accounts, each in size.spreads:
        for share, network in ((1.0, True), (1.0, False), *((share, False) for share in SHARES[1:])):
            stream = _campaign(size, pool, accounts, each, share=share, network=network)
            runs = size.campaigns if share == 1 else max(1, size.campaigns // 3)
            for number in range(runs):
                yield Task(stream, BANKEN, number, number + 1, runs)


def _rivals(
    size: Size,
    pools: Mapping[str, int],
    main: str,
    makers: frozenset[str],
    families: Mapping[str, bool],
) -> Iterator[Task]:
    for rival, runs in size.rivals.items():
        streams = [Stream(Group.ATTACK, KNOCKOFF, size.queries, pool) for pool in pools]
        streams += [Stream(Group.ATTACK, KNOCKOFF, size.thin, main, share) for share in SHARES[1:]]
        streams += [
            Stream(Group.HONEST, family, size.life, share=0.0)
            for family in families
            if family in size.compared
        ]
        for stream in streams:
            honest = stream.group is Group.HONEST
            of = _clients(size, stream.name, families[stream.name]) if honest else size.attacks
            yield Task(stream, rival, 0, min(runs, of), of)
        for thief in sorted(makers):
            # The first replicate is the one that goes on for long.
            made = Stream(Group.ATTACK, thief, size.made)
            yield Task(made, rival, 1, min(1 + runs, size.costly), size.costly)
        for accounts, each in size.spreads[:2]:
            stream = _campaign(size, main, accounts, each, share=1.0, network=False)
            yield Task(stream, rival, 0, 1, size.campaigns)


def _campaign(size: Size, pool: str, accounts: int, each: int, *, share: float, network: bool) -> Stream:
    return Stream(
        Group.CAMPAIGN,
        KNOCKOFF,
        accounts * each,
        pool,
        share,
        accounts,
        network,
        beside=size.background,
    )


_PLAIN = (KNOCKOFF, "in-domain")
"""Thieves that ask what they hold as it comes."""

_LEAKS = 0.5
"""Least share of an attack on which a thief is trained; no target is set for thinner ones."""
