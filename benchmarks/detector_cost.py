"""What a query costs Banken's detector with all signals on, PRADA, and MMD at window 500.

    python -m benchmarks.detector_cost --data DIR --cache DIR [--queries 5000] [--batch 256] [--turns 3]

Each client asks so many queries, so every method's history grows to their number. All methods take the same
batches in turn, on one thread, and CPU time is compared batch by batch, so the ratios hold on a busy machine
too. Encoding is left out for all: PRADA works on pixels, the others on the same embeddings.

The rivals are those of `redteam.rivals`, quicker than anything published: incremental, their distances and
kernels as matrix products over what a client asks in one batch. Two more rows, for one client, recompute the
statistic at every query as the papers write it; every fiftieth query is timed. Banken has a baseline with
coverage, trusted rates and answers with margins, so that no signal is idle.

A single client is the worst case for Banken, whose recursion is vectorised over clients, and the best for the
rivals, who then have the largest products. So the same is measured with many clients in each batch.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import torch
from scipy.stats import shapiro
from threadpoolctl import threadpool_limits

from detector.baseline import Baseline
from detector.monitor import Batch, Monitor
from detector.trusted import rates_of
from redteam.pictures import Pictures
from redteam.rivals.mmd import BenignSample, MmdScores
from redteam.rivals.prada import LEAST, PradaScores
from redteam.rivals.rival import Scores
from redteam.world import World, load_world

WINDOW, EVERY = 500, 50
TRUSTED = 20  # clients of the trusted history
BANKEN, PRADA, MMD = "Banken, all signals", "PRADA, incremental", f"MMD-{WINDOW}, incremental"
PRADA_PLAIN, MMD_PLAIN = "PRADA, recomputed", f"MMD-{WINDOW}, recomputed"

Work = Callable[[Pictures, list[str]], float]
"""Takes the next queries and who asks them, and says how many seconds of CPU they cost."""


def timed(step: Callable[[Pictures, list[str]], object]) -> Work:
    """The cost of a step over the whole batch."""

    def work(asked: Pictures, clients: list[str]) -> float:
        began = time.process_time()
        step(asked, clients)
        return time.process_time() - began

    return work


def batch_of(asked: Pictures, clients: list[str], since: int) -> Batch:
    """A batch as the pipeline hands it over; queries come a second apart."""
    return Batch(
        ids=[f"q-{since + i}" for i in range(len(asked))],
        times=(1_700_000_000 + since + np.arange(len(asked))) * 1_000,
        clients=clients,
        groups=[()] * len(asked),
        embeddings=asked.embeddings,
        fingerprints=asked.fingerprints,
        margins=asked.margins,
    )


def fitted(world: World, rng: np.random.Generator) -> Baseline:
    """A baseline with rates from trusted clients, as ``banken fit --trusted`` makes it."""
    baseline = Baseline.fit(world.name, world.encoder, world.reference.embeddings)
    owners = [f"trusted-{i % TRUSTED}" for i in range(len(world.trusted))]
    order = rng.permutation(len(world.trusted))
    return baseline.with_rates(rates_of(baseline, [batch_of(world.trusted[order], owners, 0)]))


def banken(baseline: Baseline) -> Work:
    """The whole detector, without storage."""
    monitor, seen = Monitor(baseline, groups=()), 0

    def step(asked: Pictures, clients: list[str]) -> None:
        nonlocal seen
        batch = batch_of(asked, clients, seen)
        seen += len(asked)
        monitor.observe(batch)
        monitor.changed()
        monitor.saved()

    return timed(step)


def rival(start: Callable[[], Scores]) -> Work:
    """A rival with a state for each client, which gets all that its client asks in a batch at once."""
    states: dict[str, Scores] = {}

    def step(asked: Pictures, clients: list[str]) -> None:
        owners = np.array(clients)
        for owner in dict.fromkeys(clients):
            own = asked if len(states) == 1 and owner in states else asked[owners == owner]
            states.setdefault(owner, start()).push(own)

    return timed(step)


def prada_plain() -> Work:
    """PRADA's step from its growing sets and distances, on every fiftieth query; the rest is not timed."""
    state = PradaScores()

    def work(asked: Pictures, clients: list[str]) -> float:
        del clients  # one
        state.push(asked)
        pixels = asked.pixels.reshape(len(asked), -1).astype(np.float32) / np.float32(255) - np.float32(0.5)
        predicted, distances = asked.answers.argmax(axis=1).tolist(), state.distances.copy()
        began = time.process_time()
        for query in range(0, len(asked), EVERY):
            grown = state.sets[predicted[query]]
            np.linalg.norm(grown.members[: grown.size] - pixels[query], axis=1).min()
            if len(distances) > LEAST:
                shapiro(distances[np.abs(distances - distances.mean()) <= 3 * distances.std()])
        return (time.process_time() - began) * len(asked) / len(range(0, len(asked), EVERY))

    return work


def mmd_plain(sample: BenignSample) -> Work:
    """MMD² of the latest window anew, on every fiftieth query."""
    history = np.empty((0, sample.embeddings.shape[1]), np.float32)

    def work(asked: Pictures, clients: list[str]) -> float:
        del clients  # one
        nonlocal history
        known = len(history)
        history = np.concatenate([history, asked.embeddings.astype(np.float32)])
        began = time.process_time()
        for end in range(known + 1, len(history) + 1, EVERY):
            window = history[max(0, end - WINDOW) : end]
            sample.kernel(window, window).mean() - 2 * sample.kernel(window, sample.embeddings).mean()
        return (time.process_time() - began) * len(asked) / len(range(0, len(asked), EVERY))

    return work


def measure(
    methods: dict[str, Callable[[], Work]], pool: Pictures, rows: np.ndarray, batch: int, turns: int
) -> np.ndarray:
    """CPU seconds of each turn, batch and method; the order of the methods rotates.

    Args:
        methods: what to measure.
        pool: pictures.
        rows: which of them each client asks, in order, shape (clients, queries). Clients ask in turn.
        batch: queries in a batch.
        turns: repetitions.

    Returns:
        float64, shape (turns, batches, methods).
    """
    names = [f"client-{i}" for i in range(len(rows))] * rows.shape[1]
    asked = rows.T.ravel()
    starts = range(0, len(asked), batch)
    seconds = np.zeros((turns, len(starts), len(methods)))
    for turn in range(turns):
        works = [make() for make in methods.values()]
        for number, start in enumerate(starts):
            part = pool[asked[start : start + batch]]
            for step in range(len(works)):
                place = (step + number) % len(works)
                seconds[turn, number, place] = works[place](part, names[start : start + batch])
    return seconds


def report(title: str, methods: list[str], seconds: np.ndarray, queries: int, clients: int) -> None:
    """One table: medians over turns, so that one disturbed turn does not count."""
    micros = np.median(seconds, axis=0) * 1e6
    size = queries * clients / len(micros)
    ends = max(1, round(len(micros) * 1_000 / queries))
    print(f"\n{title}; {queries:,} queries of each of {clients} clients\n")
    print("| method | µs a query | first 1,000 | last 1,000 | last / first | × Banken | × at the end |")
    print("|---|---|---|---|---|---|---|")
    for place, name in enumerate(methods):
        own, ours = micros[:, place], micros[:, 0]
        total, first, last = (part.mean() / size for part in (own, own[:ends], own[-ends:]))
        print(
            f"| {name} | {total:.1f} | {first:.1f} | {last:.1f} | {last / first:.2f} | "
            f"{own.sum() / ours.sum():.1f} | {own[-ends:].sum() / ours[-ends:].sum():.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detector_cost", description=__doc__)
    default = os.environ.get("BANKEN_DATA")
    parser.add_argument("--data", type=Path, default=default, required=default is None)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--pool", default="tiny-imagenet", help="foreign pool of the second stream")
    parser.add_argument("--queries", type=int, default=5_000)
    parser.add_argument("--clients", type=int, default=64, help="of the stream of many")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()

    rng = np.random.default_rng(0)
    world = load_world(given.data, given.cache)
    baseline, sample = fitted(world, rng), BenignSample.of(world.reference.embeddings)
    methods: dict[str, Callable[[], Work]] = {
        BANKEN: lambda: banken(baseline),
        PRADA: lambda: rival(PradaScores),
        MMD: lambda: rival(partial(MmdScores, sample, WINDOW)),
    }
    plain = {PRADA_PLAIN: prada_plain, MMD_PLAIN: lambda: mmd_plain(sample)}
    pool = Pictures.join([world.benign, world.pools[given.pool]])
    honest, foreign = np.arange(len(world.benign)), np.arange(len(world.benign), len(pool))
    n = given.queries
    mixed = np.concatenate([rng.choice(honest, n - n // 2), rng.choice(foreign, n // 2)])
    several = np.stack([rng.choice(honest, n, replace=n > len(honest)) for _ in range(given.clients)])
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    with threadpool_limits(1):
        for title, chosen, rows, turns in (
            ("Honest", methods | plain, several[:1], given.turns),
            (f"Half of {given.pool}", methods | plain, rng.permutation(mixed)[None], given.turns),
            ("Honest", methods, several, 1),
        ):
            seconds = measure(chosen, pool, rows, given.batch, turns)
            report(f"{title}, batches of {given.batch}", list(chosen), seconds, n, len(rows))


if __name__ == "__main__":
    main()
