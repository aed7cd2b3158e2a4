"""Each rival of the benchmark against a figure that its own paper, or a re-run of it, printed.

    python -m benchmarks.rivals_published --data DIR --cache DIR [--only NAME ...]

Nobody should have to believe that the rivals were built fairly. The settings are not the papers' own: other
victims, fewer pictures, for MMD even pictures in the place of text. Each row says what differs. Thresholds
come from pictures of the parts `trusted` and `thief`, false positive rates and detection from others. With
everything cached it takes about twenty minutes on one core; docs/rivals.md holds the table.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from redteam.pictures import Pictures
from redteam.rivals import RIVALS
from redteam.rivals.add import WIDTH as ADD_WIDTH
from redteam.rivals.add import AddScores, ClassNormals
from redteam.rivals.hoda import CHECKPOINTS, Hardness, pearson_distance
from redteam.rivals.mmd import FALSE_POSITIVES, BenignSample, MmdScores
from redteam.rivals.rival import Rival, exceeded_by
from redteam.thieves import thief
from redteam.victims import as_input
from redteam.world import World, load_world

SEED = 20261123
TINY, HUNDRED, GARMENTS = "tiny-imagenet", "cifar100", "fashion-mnist"
SYNTHETIC = 1_000  # queries of JBDA and T-RND, the first 100 of which are seeds


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    rival: str
    figure: str
    published: str
    here: str


class Bench:
    """The worlds, loaded once each."""

    def __init__(self, data: Path, cache: Path) -> None:
        self.data, self.cache = data, cache
        self._worlds: dict[str, World] = {}

    def world(self, domain: str = "cifar10") -> World:
        """A domain with its victim."""
        if domain not in self._worlds:
            self._worlds[domain] = load_world(self.data, self.cache, domain)
        return self._worlds[domain]

    def synthetic(self, domain: str, name: str) -> list[Pictures]:
        """Streams of a thief who makes its queries, four replicates of ``SYNTHETIC`` queries."""
        world = self.world(domain)
        return [thief(name).ask(world, SYNTHETIC, np.random.default_rng(SEED + i)) for i in range(4)]

    def has(self, domain: str) -> bool:
        """Whether the data hold a domain."""
        return (self.data / f"{domain}.parquet").exists()


def share(hits: np.ndarray) -> str:
    return f"{100 * np.mean(hits):.2f} %"


def windows(rng: np.random.Generator, count: int, width: int, of: int) -> np.ndarray:
    """Rows of so many windows, without repeats within one, shape (count, width)."""
    return np.array([rng.choice(of, width, replace=False) for _ in range(count)])


def clients(part: Pictures, count: int, queries: int, rng: np.random.Generator) -> list[Pictures]:
    """Clients who draw from one part."""
    return [part[rows] for rows in windows(rng, count, queries, len(part))]


def alarms(rival: Rival, streams: list[Pictures]) -> np.ndarray:
    """At which query each stream alarms, NaN for never."""
    return np.array([np.nan if (at := rival.alarm(asked)) is None else at for asked in streams])


def summary(at: np.ndarray) -> str:
    """How many alarmed, and after how many queries."""
    found = np.isfinite(at)
    if not found.any():
        return f"0 of {at.size}"
    return f"{found.sum()} of {at.size}, after a median of {np.median(at[found]):.0f} queries"


def prada(bench: Bench) -> Iterator[Row]:
    """Its own attacks on its own kind of domain, and HODA's re-run on CIFAR-10."""
    rng = np.random.default_rng(SEED)
    for domain in (GARMENTS, "cifar10"):
        if not bench.has(domain):
            yield Row("prada", f"{domain}: not in the data", "", "")
            continue
        world = bench.world(domain)
        rival = RIVALS["prada"](world, clients(world.trusted, 40, 1_000, rng))
        benign = alarms(rival, clients(world.benign, 100, 1_000, rng))
        yield Row("prada", f"{domain}: honest clients of 1,000 queries", "0 false positives", summary(benign))
        for name in ("jbda", "t-rnd"):
            published = "detected" if domain == GARMENTS else "not within 100 (HODA's re-run)"
            found = alarms(rival, bench.synthetic(domain, name))
            yield Row("prada", f"{domain}: {name}, {SYNTHETIC:,} queries", published, summary(found))
    world = bench.world()
    rival = RIVALS["prada"](world, clients(world.trusted, 100, 500, rng))
    for pool, published in ((HUNDRED, "4.4 %"), (TINY, "1.6 %")):
        found = alarms(rival, clients(world.pools[pool], 100, 500, rng))
        yield Row(
            "prada",
            f"cifar10: Knockoff←{pool} within 500 (HODA's re-run)",
            published,
            share(np.isfinite(found)),
        )
    yield Row(
        "prada",
        "cifar10: honest clients of 500 beside it",
        "",
        share(np.isfinite(alarms(rival, clients(world.benign, 100, 500, rng)))),
    )


def hoda(bench: Bench) -> Iterator[Row]:
    """Sequences of 50 and 100 queries; the threshold is at the paper's rate among 40,000 honest ones."""
    world, rng = bench.world(), np.random.default_rng(SEED)
    hardness = Hardness(world.victim.checkpoints[-CHECKPOINTS:])
    bins = len(hardness.checkpoints)
    trusted = hardness.degrees(Pictures.join([world.trusted, world.thief]))
    honest = np.bincount(trusted, minlength=bins).astype(float)

    def distances(degrees: np.ndarray, width: int, count: int) -> np.ndarray:
        drawn = degrees[rng.integers(len(degrees), size=(count, width))].astype(np.int8)
        histograms = np.stack([(drawn == degree).sum(axis=1) for degree in range(bins)], axis=1)
        return pearson_distance(histograms.astype(float), honest)

    asked = {pool: hardness.degrees(world.pools[pool]) for pool in (HUNDRED, TINY)}
    benign = hardness.degrees(world.benign)
    known = {(50, HUNDRED): "99.92 %", (50, TINY): "99.73 %", (100, HUNDRED): "100 %", (100, TINY): "100 %"}
    for width in (50, 100):
        threshold = exceeded_by(distances(trusted, width, 40_000), 0.0002)
        alarmed = distances(benign, width, 40_000) > threshold
        yield Row("hoda", f"n={width}: honest sequences (FPR)", "0.02 %", share(alarmed))
        for pool, degrees in asked.items():
            alarmed = distances(degrees, width, 10_000) > threshold
            yield Row("hoda", f"n={width}: Knockoff←{pool}", known[width, pool], share(alarmed))


def mmd(bench: Bench) -> Iterator[Row]:
    """Windows of 1,500, a share of which is the attacker's; published for text."""
    width, count = 1_500, 2_000
    world, rng = bench.world(), np.random.default_rng(SEED)
    sample = BenignSample.of(world.reference.embeddings)
    history = Pictures.join([world.trusted, world.thief])
    order = rng.permutation(min(len(history), len(world.benign)))

    def statistics(embeddings: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """MMD² of windows, as MmdScores has it, from one kernel matrix."""
        counts = np.zeros((len(rows), len(embeddings)), np.float32)
        np.put_along_axis(counts, rows, 1, axis=1)
        kernel = sample.kernel(embeddings, embeddings)
        np.fill_diagonal(kernel, 0)
        pairs = np.einsum("ij,ij->i", counts @ kernel, counts, dtype=np.float64) / (width * (width - 1))
        across = counts @ sample.kernel(embeddings, sample.embeddings).mean(axis=1) / width
        return pairs - 2 * across + sample.within

    past = history.embeddings[order].astype(np.float32)
    threshold = exceeded_by(statistics(past, windows(rng, count, width, len(past))), FALSE_POSITIVES)
    own = world.benign.embeddings[order].astype(np.float32)
    rows = windows(rng, count, width, len(own))
    found = statistics(own, rows)
    direct = MmdScores(sample, width).push(world.benign[order][rows[0]])[-1]
    assert abs(direct - found[0]) < 1e-5, "the kernel matrix gives another statistic than the rival"
    yield Row("mmd", "window 1,500: honest windows (FPR)", "0.3 %", share(found > threshold))
    for attackers, published in ((0.05, "59.0 %"), (0.10, "93.7 %"), (0.25, "100 %"), (0.50, "100 %")):
        for pool in (TINY, HUNDRED):
            foreign = world.pools[pool].embeddings.astype(np.float32)
            mixed = np.concatenate([own, foreign])
            theirs = round(attackers * width)
            rows = np.concatenate(
                [
                    windows(rng, 300, width - theirs, len(own)),
                    windows(rng, 300, theirs, len(foreign)) + len(own),
                ],
                axis=1,
            )
            detected = share(statistics(mixed, rows) > threshold)
            yield Row("mmd", f"window 1,500: {attackers:.0%} {pool}", f"{published} (text)", detected)


def seat(bench: Bench) -> Iterator[Row]:
    """How many accounts its own kind of attacker needs for 5,000 queries."""
    world, rng = bench.world(), np.random.default_rng(SEED)
    rival = RIVALS["seat"](world, clients(world.trusted, 10, 2_000, rng))
    benign = alarms(rival, clients(world.benign, 30, 2_000, rng))
    yield Row("seat", "honest clients of 2,000 queries", "few false positives", summary(benign))
    for name in ("jbda", "t-rnd"):
        at = alarms(rival, bench.synthetic("cifar10", name))
        lasting = np.where(np.isfinite(at), at, 5_000)
        yield Row(
            "seat",
            f"{name}: accounts cancelled over 5,000 queries",
            "attack costs × 3.8–16",
            f"× {5_000 / np.median(lasting):.1f} ({summary(at)})",
        )
    for pool in (TINY, HUNDRED):
        found = alarms(rival, clients(world.pools[pool], 20, 2_000, rng))
        yield Row("seat", f"Knockoff←{pool}, 2,000 queries", "not its aim", summary(found))


def add(bench: Bench) -> Iterator[Row]:
    """ADD against an energy score of the same windows, and against PRADA."""
    world, rng = bench.world(), np.random.default_rng(SEED)
    normals = ClassNormals.of(world.victim, world.reference)

    def energies(asked: Pictures) -> np.ndarray:
        with torch.inference_mode():
            parts = [world.victim.model(as_input(each)) for each in np.array_split(asked.pixels, 12)]
        return -torch.cat(parts).logsumexp(dim=1).numpy()

    def scored(asked: Pictures) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ADD of windows that do not overlap, the energy of each query, and its means over the windows."""
        order = rng.permutation(len(asked) // ADD_WIDTH * ADD_WIDTH)
        every = AddScores(normals).push(asked[order])[ADD_WIDTH - 1 :: ADD_WIDTH]
        energy = energies(asked)[order]
        return every, energy, energy.reshape(-1, ADD_WIDTH).mean(axis=1)

    honest = scored(world.benign)
    rival = RIVALS["add"](world, clients(world.trusted, 20, 1_000, rng))
    distances = RIVALS["prada"](world, clients(world.trusted, 40, 500, rng))
    for pool in (HUNDRED, TINY):
        theirs = scored(world.pools[pool])
        own, single, mean = (
            roc_auc_score(np.repeat([0, 1], [len(pair[0]), len(pair[1])]), np.concatenate(pair))
            for pair in zip(honest, theirs, strict=True)
        )
        yield Row(
            "add",
            f"Knockoff←{pool}: AUROC of windows of 16",
            "above energy",
            f"{own:.3f}; energy of one query {single:.3f}, its mean over the window {mean:.3f}",
        )
        streams = clients(world.pools[pool], 50, 500, rng)
        yield Row(
            "add",
            f"Knockoff←{pool}: clients found within 500",
            "above PRADA",
            f"{summary(alarms(rival, streams))}; PRADA {summary(alarms(distances, streams))}",
        )
    benign = alarms(rival, clients(world.benign, 50, 500, rng))
    yield Row("add", "honest clients of 500 beside it", "", summary(benign))


def means(bench: Bench) -> Iterator[Row]:
    """Nothing is published of the two plain means: what they do is shown all the same."""
    world, rng = bench.world(), np.random.default_rng(SEED)
    for name in ("pixel-mean", "knn-mean"):
        rival = RIVALS[name](world, clients(world.trusted, 20, 1_000, rng))
        for title, part in (
            ("honest", world.benign),
            *((f"Knockoff←{p}", world.pools[p]) for p in (HUNDRED, TINY)),
        ):
            found = alarms(rival, clients(part, 50, 1_000, rng))
            yield Row(name, f"{title}, 1,000 queries", "none", summary(found))


FIGURES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "prada": prada,
    "hoda": hoda,
    "mmd": mmd,
    "seat": seat,
    "add": add,
    "means": means,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals_published", description=__doc__)
    default = os.environ.get("BANKEN_DATA")
    parser.add_argument("--data", type=Path, default=default, required=default is None)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=sorted(FIGURES), default=list(FIGURES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(given.data, given.cache)
    print("| rival | figure | published | here |\n|---|---|---|---|")
    for name in given.only:
        for row in FIGURES[name](bench):
            print(f"| {row.rival} | {row.figure} | {row.published} | {row.here} |", flush=True)


if __name__ == "__main__":
    main()
