"""Domains declared in words: choose the score, calibrate it, and measure how much weaker it is than images.

    python -m benchmarks.prompt_domains choose --data DIR
    python -m benchmarks.prompt_domains calibrate --data DIR
    python -m benchmarks.prompt_domains measure --data DIR

`choose` and `calibrate` see splits named `encoder` alone, and of them, as what belongs to a domain, only the
40 classes whose names and images were held from the text tower. `calibrate` writes
`embeddings/compact/prompts.json`; run it again whenever the weights change. `measure` prints the tables of
docs/prompts.md. DIR is that of `python -m embeddings.compact.train`, whose `--cache` is shared.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.metrics import roc_auc_score

from detector.baseline import Baseline, EncoderKey
from detector.conformal import Calibration
from detector.findings import FindingState
from detector.monitor import Batch, Monitor
from detector.prompt_domain import PromptDomain
from detector.rates import fit_rate
from detector.signals import CHANNELS, LEVELS
from embeddings.compact.features import FeatureSet, load_features
from embeddings.compact.pairs import held_names
from embeddings.compact.projection import Projection
from embeddings.decoding import DecodeLimits, decode
from embeddings.encoder import Encoder
from embeddings.prompts import PromptCalibration, embed_concepts, embed_prompts
from streams.prompts import declare

HERE = Path(__file__).parent.parent
SHIPPED = HERE / "embeddings/compact/prompts.json"
DEMO = HERE / "console/demo"
PHOTOGRAPHS = ("tiny-imagenet-encoder", "cifar100-encoder")
FOREIGN = ("tiny-imagenet-pool", "cifar100-pool", "openclipart-odd")
DOMAINS, FEWEST, MOST = 40, 5, 20  # random domains, and the classes of one
QUANTILES = 1000
ASKED = 1000  # queries of one client, or half of the images where they are fewer than twice that
CHOSEN = {"temperature": 80.0, "nothing": 0.2, "apart": 0.5}
GARMENTS = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


@dataclass(frozen=True)
class Class:
    """One class with the embeddings of its name, shape (d,), and of its images, shape (n, d)."""

    name: np.ndarray
    images: np.ndarray


class Bench:
    """The encoder with its cached trunk features."""

    def __init__(self, data: Path, cache: Path) -> None:
        self.data, self.cache = data, cache
        self.encoder = Encoder.load(device="cpu")
        head = self.encoder.model.visual.head.proj
        self.embed = Projection(head.weight.detach().numpy(), head.bias.detach().numpy())
        self.concepts = embed_concepts(self.encoder)

    def source(self, name: str) -> FeatureSet:
        """Trunk features of a source."""
        return load_features(name, self.data, self.cache)

    def images(self, name: str) -> np.ndarray:
        """Embeddings of a source's images."""
        return self.embed(self.source(name).features).astype(np.float16)

    def held(self) -> tuple[list[Class], np.ndarray]:
        """The held classes, and images of all others."""
        sources = {name: self.source(name) for name in PHOTOGRAPHS}
        classes, others = [], []
        for name, labels in held_names(sources).items():
            captions, images = np.array(sources[name].captions), self.images(name)
            names = embed_prompts(self.encoder, [label.split(",")[0].lower() for label in sorted(labels)])
            classes += [
                Class(vector, images[captions == label])
                for vector, label in zip(names, sorted(labels), strict=True)
            ]
            others.append(images[~np.isin(captions, sorted(labels))][::10])
        return classes, np.concatenate(others)


def domains(classes: list[Class]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Prompts and images of random domains."""
    rng = np.random.default_rng(0)
    for _ in range(DOMAINS):
        drawn = rng.choice(len(classes), rng.integers(FEWEST, MOST + 1), replace=False)
        yield (
            np.stack([classes[i].name for i in drawn]),
            np.concatenate([classes[i].images for i in drawn]),
        )


def choose(bench: Bench) -> None:
    """Compare settings by how well they tell held domains from other training classes and drawings."""
    classes, others = bench.held()
    foreign = {"photographs": others, "drawings": bench.images("openclipart-even")[:1000]}
    print("| temperature | nothing | apart | " + " | ".join(foreign) + " | mean |\n|---|---|---|---|---|---|")
    for temperature in (20.0, 40.0, 80.0, 160.0):
        for nothing in (-1.0, 0.1, 0.15, 0.2, 0.25, 0.3):
            for apart in (0.5,) if nothing != 0.2 else (0.3, 0.5, 0.7):
                setting = {"temperature": temperature, "nothing": nothing, "apart": apart}
                found = []
                for prompts, own in list(domains(classes))[:12]:
                    domain = PromptDomain.declare(prompts, bench.concepts, **setting)
                    found.append([_auroc(domain, own[::4], images) for images in foreign.values()])
                means = np.mean(found, axis=0)
                figures = " | ".join(f"{figure:.3f}" for figure in (*means, means.mean()))
                print(f"| {temperature:g} | {nothing:g} | {apart:g} | {figures} |", flush=True)


def calibrate(bench: Bench) -> None:
    """Score held domains under their own names and write the calibration."""
    classes, _ = bench.held()
    own = [
        PromptDomain.declare(prompts, bench.concepts, **CHOSEN).score(images)[0]
        for prompts, images in domains(classes)
    ]
    every = np.quantile(np.concatenate(own), (np.arange(QUANTILES) + 0.5) / QUANTILES)
    quantiles = every.astype(np.float32).astype(np.float64)
    group = Calibration(np.zeros(1, np.int64), quantiles, np.array([0, QUANTILES]))
    p_values = [group.p_values(scores, np.zeros(len(scores), np.int64)) for scores in own]
    hits = np.array([[(p <= tau).sum() for tau in LEVELS] for p in p_values])
    trials = np.array([len(scores) for scores in own], np.float64)
    rates = [
        fit_rate(channel, trials, hits[:, place], int(trials.sum()))
        for place, channel in enumerate(CHANNELS[: len(LEVELS)])
    ]
    images = bench.images(PHOTOGRAPHS[0])[:4000].astype(np.float32)
    nearest = (images @ images.T - 2 * np.eye(len(images), dtype=np.float32)).max(axis=1)
    calibration = PromptCalibration(
        weights=bench.encoder.identity.weights,
        **CHOSEN,
        near_duplicate=round(float(np.clip(np.quantile(nearest, 0.999), 0.9, 0.9999)), 4),
        domains=DOMAINS,
        bound=tuple(round(rate.bound, 4) for rate in rates),
        mean=tuple(round(rate.mean, 4) for rate in rates),
        scores=tuple(float(f"{score:.7g}") for score in quantiles),
    )
    SHIPPED.write_text(json.dumps(asdict(calibration)) + "\n", encoding="ascii")
    print(f"{SHIPPED.name}: bound {calibration.bound}, mean {calibration.mean}")
    shares = hits[:, 0] / [len(scores) for scores in own]
    print(f"hits of a domain's own images at 0.05: {np.quantile(shares, [0, 0.5, 1]).round(3)}")


def measure(bench: Bench) -> None:
    """Print how words and images tell a domain from what is foreign to it."""
    encoder = bench.encoder
    key = EncoderKey(encoder.identity.name, encoder.identity.weights, encoder.identity.dim)
    foreign = {name: bench.images(name) for name in FOREIGN}
    names = sorted(set(bench.source("cifar10-test").captions))
    train, own = bench.images("cifar10-train"), bench.images("cifar10-test")
    print("| domain | declared by | pictures | AUROC | hits at τ = 0.05 | at 0.01 | suspected | alerted |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, baseline in (
        ("10 class names", declare("cifar10", names, encoder)),
        ("8,000 images", Baseline.fit("cifar10", key, train)),
    ):
        _report("CIFAR-10", kind, baseline, own, foreign)

    rows = pq.read_table(DEMO / "log.parquet", columns=["id", "image"])
    truth = pq.read_table(DEMO / "truth.parquet")
    odd = {one for ids in truth["foreign"].to_pylist() for one in ids}
    log = _decoded(encoder, rows["image"].to_pylist())
    is_foreign = np.array([one in odd for one in rows["id"].to_pylist()])
    reference = _decoded(encoder, pq.read_table(DEMO / "reference.parquet")["image"].to_pylist())
    for kind, baseline in (
        ("10 garments", declare("garments", GARMENTS, encoder)),
        ("2,000 images", Baseline.fit("garments", key, reference)),
    ):
        _report("the demo's garments", kind, baseline, log[~is_foreign], {"no garment": log[is_foreign]})


def _report(
    domain: str, kind: str, baseline: Baseline, own: np.ndarray, foreign: dict[str, np.ndarray]
) -> None:
    for title, images in {"its own": own, **foreign}.items():
        hits = baseline.judge(images).foreign.mean(axis=0)
        auroc = "" if images is own else f"{_auroc(baseline.domain, own, images):.3f}"
        figures = f"{auroc} | {hits[0]:.1%} | {hits[1]:.1%} | {_found(baseline, images)}"
        print(f"| {domain} | {kind} | {title} | {figures} |", flush=True)


def _found(baseline: Baseline, images: np.ndarray) -> str:
    """How many of 20 clients who draw on these images are suspected, how many alerted, and after what."""
    rng, clients = np.random.default_rng(0), 20
    queries = min(ASKED, len(images) // 2)
    drawn = np.stack([rng.permutation(len(images))[:queries] for _ in range(clients)], axis=1).ravel()
    batch = Batch(
        ids=[str(i) for i in range(len(drawn))],
        times=np.arange(len(drawn), dtype=np.int64),
        clients=[str(i % clients) for i in range(len(drawn))],
        groups=[()] * len(drawn),
        embeddings=images[drawn],
        fingerprints=np.zeros(len(drawn), np.uint64),
        margins=np.full(len(drawn), np.nan, np.float32),
    )
    monitor = Monitor(baseline, groups=())
    moments: dict[FindingState, dict[str, int]] = {FindingState.SUSPECTED: {}, FindingState.ALERTED: {}}
    seen = monitor.observe(batch)
    for cause, change in zip(seen.causes, seen.changes, strict=True):
        if change.finding.state in moments:
            # Who is alerted at once was suspected in the same query.
            moments[FindingState.SUSPECTED].setdefault(batch.clients[cause], cause // clients + 1)
            moments[change.finding.state].setdefault(batch.clients[cause], cause // clients + 1)
    return " | ".join(
        f"{len(at)} of {clients}" + (f", {np.median(list(at.values())):.0f}" if at else "")
        for at in moments.values()
    )


def _auroc(domain: object, own: np.ndarray, foreign: np.ndarray) -> float:
    scores = [domain.score(images)[0] for images in (own, foreign)]  # type: ignore[attr-defined]
    return float(roc_auc_score(np.repeat([0, 1], [len(own), len(foreign)]), np.concatenate(scores)))


def _decoded(encoder: Encoder, pictures: list[bytes]) -> np.ndarray:
    pixels = [decode(picture, encoder.preprocess, DecodeLimits()).pixels for picture in pictures]
    return encoder.embed(np.stack(pixels))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("choose", "calibrate", "measure"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the parquet files")
    parser.add_argument("--cache", type=Path, default=Path("compact-cache"), help="folder for trunk features")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = {"choose": choose, "calibrate": calibrate, "measure": measure}[options.what]
    run(Bench(options.data, options.cache))


if __name__ == "__main__":
    main()
