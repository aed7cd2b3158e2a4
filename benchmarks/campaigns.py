"""How soon a theft over many accounts is alerted without a common network, and who is named.

Honest clients with fifty queries each, and accounts that draw on one foreign pool round robin. Prints the
table of docs/campaigns.md in about five minutes on one core, once the world is in the cache:

    python -m benchmarks.campaigns --data DIR --cache DIR --pool tiny-imagenet
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from detector.baseline import Baseline
from detector.findings import FindingState
from detector.groups import CAMPAIGN
from detector.ranking import e_bh
from detector.trusted import rates_of
from redteam.benchmark.watching import batches_of, watch
from redteam.honest.mixes import evenly
from redteam.honest.trusted import trusted_history
from redteam.pictures import Pictures
from redteam.traffic import Traffic, merge, one_client, spread
from redteam.world import World, load_world

HONEST, EACH, FDR = 500, 50, 0.05

Make = Callable[[Pictures, np.random.Generator], list[Traffic]]


def dealt(accounts: int, each: int) -> Make:
    """A thief's queries over accounts, each from a network of its own."""
    return lambda pool, rng: [
        spread(pool[rng.permutation(len(pool))[: accounts * each]], accounts, each, rng, network=None)
    ]


def sliced(accounts: int, each: int) -> Make:
    """A thief whose accounts divide the pictures among themselves by what the victim will answer."""

    def make(pool: Pictures, rng: np.random.Generator) -> list[Traffic]:
        answer = pool.answers.argmax(axis=1)
        return [
            one_client(
                pool[rng.permutation(np.flatnonzero(answer == number))[:each]],
                client=f"mule-{number:04d}",
                attack=True,
            )
            for number in range(accounts)
        ]

    return make


def junk(integrators: int) -> Make:
    """New integrators who each try eighteen foreign pictures: honest, and too few to be a campaign."""
    return lambda pool, rng: [
        one_client(pool[rng.choice(len(pool), 18, replace=False)], client=f"integrator-{number}")
        for number in range(integrators)
    ]


LOGS: Mapping[str, Make] = {
    "100 × 50": dealt(100, 50),
    "400 × 12": dealt(400, 12),
    "2,500 × 2": dealt(2_500, 2),
    "10 × 50, a class each": sliced(10, 50),
    "5 integrators' junk": junk(5),
    "10 integrators' junk": junk(10),
    "honest clients only": lambda pool, rng: [],
}


def measure(world: World, baseline: Baseline, pool: Pictures, name: str, seed: int) -> str:
    """One row of the table."""
    rng = np.random.default_rng([seed, len(name)])
    honest = [
        one_client(evenly(world, world.benign, EACH, rng), client=f"honest-{number:03d}")
        for number in range(HONEST)
    ]
    log = merge([*honest, *LOGS[name](pool, rng)], rng)
    watched = watch(baseline, log, groups=("fleet",), classes=world.classes)
    thieves = {client for client, attack in zip(log.clients, log.attack, strict=True) if attack}
    stolen = np.cumsum([client in thieves for client in log.clients])
    when = {}
    for kind in (CAMPAIGN, "fleet"):
        rows = [
            step.row
            for subject, steps in watched.steps.items()
            for step in steps
            if subject.kind == kind and step.state is FindingState.ALERTED
        ]
        when[kind] = str(stolen[min(rows)]) if rows else "never"
    linked = {key: members for key, members in watched.members.items() if key.kind == CAMPAIGN}
    clients = list(watched.evidence)
    suspects = e_bh(np.array([watched.evidence[client] for client in clients]), FDR)
    listed = {client for client, suspect in zip(clients, suspects, strict=True) if suspect}
    named = listed & set().union(*linked.values())
    recall = f"{len(named & thieves) / len(thieves):.3f}" if thieves else "–"
    precision = f"{len(named & thieves) / len(named):.3f}" if named else "–"
    cells = (name, seed, when["fleet"], when[CAMPAIGN], len(linked), recall, precision)
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("BANKEN_DATA"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--pool", default="tiny-imagenet")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    world = load_world(arguments.data, arguments.cache)
    baseline = Baseline.fit("benchmark", world.encoder, world.reference.embeddings)
    history = trusted_history(world, np.random.default_rng(11))
    baseline = baseline.with_rates(rates_of(baseline, batches_of(history)))
    print("| accounts × queries | seed | fleet alerted | campaign alerted | campaigns | recall | precision |")
    print("|---|---|---|---|---|---|---|")
    for name in LOGS:
        for seed in range(arguments.seeds):
            print(measure(world, baseline, world.pools[arguments.pool], name, seed), flush=True)


if __name__ == "__main__":
    main()
