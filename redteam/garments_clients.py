"""Who asks the garments endpoint, from where and when: the cast of the demo.

Addresses are of the ranges set aside for documentation (RFC 5737) and benchmarks (RFC 2544); names of
organisations are made up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from redteam.garments_habits import (
    Group,
    Picture,
    Stock,
    camouflaged,
    drawings_only,
    drifting,
    health_check,
    junk,
    near_duplicates,
    weighted,
)
from redteam.garments_images import LABELS

__all__ = [
    "CAMPAIGN_NETWORK",
    "OFFICE_NETWORK",
    "Client",
    "Phase",
    "Shot",
    "log_cast",
    "play",
    "trusted_cast",
]

CAMPAIGN_NETWORK = "203.0.113"
OFFICE_NETWORK = "198.51.100"
_DAY_MS = 86_400_000
_TREES = ("alder", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "rowan", "spruce", "yew")
_TRADES = ("apparel", "closet", "looks", "market", "outlet", "retail", "studio", "style", "wardrobe")
_AGENTS = ("python-requests/2.32.3", "okhttp/4.12.0", "axios/1.7.7", "Go-http-client/2.0")


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of one client's life.

    Attributes:
        groups: what is asked, in order.
        start: in days since the log began.
        end: in days since the log began.
        ip: from where.
        office_hours: asks by day; otherwise round the clock.
    """

    groups: list[Group]
    start: float
    end: float
    ip: str
    office_hours: bool = True


@dataclass(frozen=True, slots=True)
class Client:
    """One API key and the truth about it.

    Attributes:
        name: the key's public name.
        role: the habit or the attack, for people to read.
        honest: whether nothing should ever be alerted on this client.
        org: organisation that signed up, where one was given.
        agent: HTTP user agent.
        phases: in order of time.
    """

    name: str
    role: str
    honest: bool
    org: str | None
    agent: str
    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class Shot:
    """One query before it is answered; ``time`` is in milliseconds since the log began."""

    time: int
    client: Client
    ip: str
    picture: Picture


class _Registry:
    """Hands out names, organisations and networks, each once."""

    def __init__(self, rng: np.random.Generator, network: str) -> None:
        self._rng = rng
        self._keys = iter(rng.permutation(65_536))
        orgs = [f"{tree}-{trade}" for tree in _TREES for trade in _TRADES]
        self._orgs = iter(rng.permutation(orgs))
        self._networks = (f"{network}.{third}" for third in count(1))

    def org(self) -> str:
        return str(next(self._orgs))

    def ip(self) -> str:
        return f"{next(self._networks)}.{self._rng.integers(2, 250)}"

    def client(self, role: str, *phases: Phase, org: str | None, honest: bool = True) -> Client:
        name = f"key-{int(next(self._keys)):04x}"
        return Client(name, role, honest, org, str(self._rng.choice(_AGENTS)), phases)


def trusted_cast(stock: Stock, rng: np.random.Generator) -> list[Client]:
    """About 40 honest clients of about 40 queries each, over ten days before the log."""
    registry = _Registry(rng, "198.19")
    habits = (
        ["even"] * 14
        + ["narrow"] * 9
        + ["skewed"] * 6
        + ["drift"] * 4
        + ["bursts"] * 5
        + ["health check"] * 2
    )
    return [_honest(registry, stock, rng, habit, turn, queries=40) for turn, habit in enumerate(habits)]


def log_cast(stock: Stock, rng: np.random.Generator) -> list[Client]:
    """The honest clients and the thieves of the log, over ten days."""
    registry = _Registry(rng, "198.18")
    habits = (
        ["even"] * 14
        + ["narrow"] * 8
        + ["skewed"] * 5
        + ["drift"] * 5
        + ["bursts"] * 4
        + ["health check"] * 2
    )
    cast = [_honest(registry, stock, rng, habit, turn, queries=48) for turn, habit in enumerate(habits)]

    office = registry.org()
    for turn, habit in enumerate(["even", "even", "even", "narrow", "skewed", "bursts"]):
        ip = f"{OFFICE_NETWORK}.{20 + turn}"
        cast.append(_honest(registry, stock, rng, habit, turn, queries=40, ip=ip, org=office))

    ip = registry.ip()
    trial = Phase(junk(stock, rng, 18), 4.35, 4.7, ip, office_hours=False)
    use = Phase(weighted(stock, rng, 90), 5, 10, ip)
    cast.append(registry.client("new integrator", trial, use, org=registry.org()))

    whole = Phase(drawings_only(stock, 400), 2.2, 5.6, registry.ip(), office_hours=False)
    cast.append(registry.client("knockoff thief", whole, org=registry.org(), honest=False))
    half = Phase(camouflaged(stock, rng, 400), 1, 9, registry.ip())
    cast.append(registry.client("half-camouflaged thief", half, org=registry.org(), honest=False))
    owner = Phase(weighted(stock, rng, 420), 0, 8, registry.ip())
    thief = Phase(drawings_only(stock, 120), 8.1, 9.6, registry.ip(), office_hours=False)
    cast.append(registry.client("stolen key", owner, thief, org=registry.org(), honest=False))
    for host, turn in zip(rng.permutation(np.arange(2, 250))[:40], count()):
        few = drawings_only(stock, int(rng.integers(6, 11)))
        start = float(rng.uniform(5.5, 7.5))
        phase = Phase(few, start, start + 1.5, f"{CAMPAIGN_NETWORK}.{host}", office_hours=False)
        org = registry.org() if turn % 2 else None
        cast.append(registry.client("campaign account", phase, org=org, honest=False))
    return cast


def play(cast: list[Client], rng: np.random.Generator) -> list[Shot]:
    """Let every client ask, and put the queries in order of time.

    Groups start at random moments of their phase and keep their order; pictures of one group follow each
    other by 2 to 15 seconds.
    """
    shots = []
    for client in cast:
        for phase in client.phases:
            free_from = 0
            for start, group in zip(_moments(phase, rng), phase.groups, strict=True):
                time = max(int(start), free_from)
                for picture in group:
                    shots.append(Shot(time, client, phase.ip, picture))
                    time += int(rng.integers(2_000, 15_000))
                free_from = time
    return sorted(shots, key=lambda shot: shot.time)


def _honest(
    registry: _Registry,
    stock: Stock,
    rng: np.random.Generator,
    habit: str,
    turn: int,
    *,
    queries: int,
    ip: str | None = None,
    org: str | None = None,
) -> Client:
    """Cast one honest client; ``queries`` is a mean, and ``turn`` picks the range of a narrow client."""
    ip, org = ip or registry.ip(), org or registry.org()
    number = int(rng.integers(queries * 3 // 4, queries * 5 // 4 + 1))
    role = habit
    match habit:
        case "narrow":
            label = LABELS[turn % len(LABELS)]
            role = f"narrow range: {label}"
            groups = weighted(stock, rng, number, _only(label))
        case "skewed":
            role = "skewed range"
            groups = weighted(stock, rng, number, rng.dirichlet(np.full(len(LABELS), 0.5)))
        case "drift":
            role = "seasonal drift"
            groups = drifting(stock, rng, number)
        case "bursts":
            role = "near-duplicate bursts"
            groups = near_duplicates(stock, rng, number)
        case "health check":
            probes = Phase(health_check(stock, number * 2), 0, 10, ip, office_hours=False)
            return registry.client(role, probes, Phase(weighted(stock, rng, number // 2), 0, 10, ip), org=org)
        case _:
            role = "even range"
            groups = weighted(stock, rng, number)
    return registry.client(role, Phase(groups, 0, 10, ip), org=org)


def _only(label: str) -> npt.NDArray[np.float64]:
    return np.array([float(name == label) for name in LABELS])


def _moments(phase: Phase, rng: np.random.Generator) -> Iterator[np.int64]:
    number = len(phase.groups)
    if phase.office_hours:
        days = rng.integers(int(phase.start), int(phase.end), number)
        hours = rng.normal(13, 2.5, number).clip(6, 20) + rng.uniform(0, 0.5, number)
        moments = days + hours / 24
    else:
        moments = rng.uniform(phase.start, phase.end, number)
    return iter(np.sort((moments * _DAY_MS).astype(np.int64)))
