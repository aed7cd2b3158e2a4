"""Measure banken-compact: the tables of its model card.

`python -m embeddings.compact.evaluate --data DIR` prints them as Markdown. `--choose` compares the trunk's
features, the projected embedding and their concatenation on training sources alone, as the choice was made.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from embeddings.compact.captions import file_name_words, load_wordnet
from embeddings.compact.features import FeatureSet, load_features, pixels_of
from embeddings.compact.pairs import held_names
from embeddings.compact.projection import Projection, fit_projection
from embeddings.compact.scores import fit_domain, separation
from embeddings.compact.sources import read
from embeddings.compact.tower import HERE, new_model

__all__ = ["load_compact", "main"]

FOREIGN = ("tiny-imagenet-pool", "cifar100-pool", "openclipart-odd", "fashion-mnist")
REFERENCE, CALIBRATION, COUNT = 5_000, 1_500, 4_000
PROBE = 6_000
RETRIEVED = 1_000
Encode = Callable[[np.ndarray], np.ndarray]


def load_compact() -> Any:
    """The model as it ships, in fp32."""
    model = new_model()
    model.load_state_dict(load_file(HERE / "weights.safetensors"))
    return model.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m embeddings.compact.evaluate", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the parquet files")
    parser.add_argument("--cache", type=Path, default=Path("compact-cache"), help="folder for trunk features")
    parser.add_argument("--choose", action="store_true", help="compare embeddings on training sources only")
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)

    def load(source: str) -> FeatureSet:
        return load_features(source, options.data, options.cache)

    if options.choose:
        _choose(load)
        return
    model = load_compact()
    weight, bias = model.visual.head.proj.weight, model.visual.head.proj.bias
    embed = Projection(weight.detach().numpy(), bias.detach().numpy())
    drift = _drift(model, embed, options.data, load)
    print(f"Least cosine of the shipped encoder with the fp32 trunk: {drift:.5f}\n")
    _zero_shot(model, embed, load)
    _probe(embed, load)
    _retrieval(model, embed, load)
    _detection(model, embed, load)


def _texts(model: Any, texts: list[str]) -> np.ndarray:
    """Text embeddings, the mean over all templates, L2-normalised float32, shape (n, 512)."""
    tokenise = SimpleTokenizer(context_length=model.context_length)
    templates = (HERE / "templates.txt").read_text("utf-8").splitlines()
    said = []
    with torch.inference_mode():
        for form in templates:
            tokens = tokenise([form.format(text) for text in texts])
            said.append(torch.cat([model.encode_text(part, normalize=True) for part in tokens.split(256)]))
    embedded: np.ndarray = functional.normalize(torch.stack(said).mean(0), dim=1).numpy()
    return embedded


def _drift(model: Any, embed: Projection, data: Path, load: Callable[[str], FeatureSet]) -> float:
    sample = [pixels_of(example) for example in islice(read("cifar10-test", data), 64)]
    pixels = torch.stack([pixels for pixels in sample if pixels is not None])
    with torch.inference_mode():
        shipped = model.encode_image(pixels, normalize=True).numpy()
    return float((shipped * embed(load("cifar10-test").features[:64])).sum(1).min())


def _zero_shot(model: Any, embed: Projection, load: Callable[[str], FeatureSet]) -> None:
    print("| zero-shot top-1 | classes | images | accuracy |\n|---|---|---|---|")
    held = held_names({name: load(name) for name in ("tiny-imagenet-encoder", "cifar100-encoder")})
    tasks = (
        ("CIFAR-10 test", "cifar10-test", None),
        ("CIFAR-100 pool", "cifar100-pool", None),
        ("CIFAR-100 pool, held classes", "cifar100-pool", held["cifar100-encoder"]),
        ("Tiny-ImageNet pool, held classes", "tiny-imagenet-pool", held["tiny-imagenet-encoder"]),
    )
    for title, source, only in tasks:
        given = load(source)
        labels = np.array(given.captions)
        kept = np.isin(labels, sorted(only)) if only is not None else np.ones(len(labels), bool)
        names, truth = np.unique(labels[kept], return_inverse=True)
        texts = _texts(model, [name.split(",")[0].lower() for name in names])
        right = (embed(given.features[kept]) @ texts.T).argmax(1) == truth
        print(f"| {title} | {len(names)} | {len(truth):,} | {right.mean():.1%} |")


def _probe(embed: Projection, load: Callable[[str], FeatureSet]) -> None:
    train, test = load("cifar10-train"), load("cifar10-test")
    print(f"\n| linear probe, CIFAR-10, {PROBE:,} training images | accuracy |\n|---|---|")
    mean, spread = train.features[:PROBE].mean(0), train.features[:PROBE].std(0) + 1e-3
    embeds: dict[str, Encode] = {
        "embedding, 512": lambda features: embed(features) * 512**0.5,
        "raw trunk, 1280": lambda features: (features - mean) / spread,
    }
    for title, encode in embeds.items():
        images, labels = encode(train.features[:PROBE]), np.array(train.captions[:PROBE])
        # The strength of the penalty is chosen on the last quarter of the training images.
        cut = PROBE * 3 // 4
        strengths = (3e-4, 1e-3, 3e-3, 1e-2)
        scores = [
            _regression(strength).fit(images[:cut], labels[:cut]).score(images[cut:], labels[cut:])
            for strength in strengths
        ]
        best = strengths[int(np.argmax(scores))]
        accuracy = _regression(best).fit(images, labels).score(encode(test.features), np.array(test.captions))
        print(f"| {title} (C = {best:g}) | {accuracy:.1%} |")


def _regression(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=300, tol=1e-3)


def _retrieval(model: Any, embed: Projection, load: Callable[[str], FeatureSet]) -> None:
    given = load("openclipart-odd")
    first: dict[str, int] = {}
    for row, caption in enumerate(given.captions):
        named = file_name_words(caption, load_wordnet())
        if len(named) > 2:
            first.setdefault(named, row)
    words, rows = list(first)[:RETRIEVED], list(first.values())[:RETRIEVED]
    similar = _texts(model, words) @ embed(given.features[rows]).T
    print(f"\n| retrieval among {len(words):,} held-out drawings | at 1 | at 10 | by chance at 10 |")
    print("|---|---|---|---|")
    for title, scores in (("text to image", similar), ("image to text", similar.T)):
        rank = (scores > np.diag(scores)[:, None]).sum(1)
        print(f"| {title} | {(rank < 1).mean():.1%} | {(rank < 10).mean():.1%} | {10 / len(words):.1%} |")


def _detection(model: Any, embed: Projection, load: Callable[[str], FeatureSet]) -> None:
    train, own = load("cifar10-train").features, load("cifar10-test").features[:COUNT]
    kinds: dict[str, Encode] = {
        "embedding, 512": embed,
        "raw trunk, 1280": _raw,
        "both, 1792": lambda features: np.hstack([_raw(features), embed(features)]) / np.float32(2**0.5),
    }
    print("\n| AUROC, domain CIFAR-10 | foreign | residual | neighbour | sum |\n|---|---|---|---|---|")
    foreign = {source: load(source).features[:COUNT] for source in FOREIGN}
    for title, encode in kinds.items():
        domain = fit_domain(encode(train[:REFERENCE]), encode(train[REFERENCE:][:CALIBRATION]))
        for source, features in foreign.items():
            found = separation(domain, encode(own), encode(features))
            print(f"| {title} | {source} | " + " | ".join(f"{value:.3f}" for value in astuple(found)) + " |")
    texts = _texts(model, sorted(set(load("cifar10-test").captions)))
    print("\n| domain declared in words (10 class names) | AUROC |\n|---|---|")
    for source, features in foreign.items():
        truth = np.repeat([0, 1], [len(own), len(features)])
        scores = 1 - (embed(np.concatenate([own, features])) @ texts.T).max(1)
        print(f"| {source} | {roc_auc_score(truth, scores):.3f} |")


def _raw(features: np.ndarray) -> np.ndarray:
    normalised: np.ndarray = features / np.linalg.norm(features, axis=1, keepdims=True)
    return normalised


def _choose(load: Callable[[str], FeatureSet]) -> None:
    """Projections fitted on the first halves of the encoder splits, foreign images from the second halves."""
    train = load("cifar10-train").features
    reference, calibration, own = (
        train[:REFERENCE],
        train[REFERENCE:][:CALIBRATION],
        train[REFERENCE + CALIBRATION :],
    )
    near, far, emoji = (
        load(name).features for name in ("cifar100-encoder", "tiny-imagenet-encoder", "noto-emoji")
    )
    photographs = np.concatenate([near[:2_500], far[:10_000]])
    every = np.concatenate([photographs, emoji[::2]])
    foreign = {"cifar100": near[2_500:], "tiny-imagenet": far[-3_000:], "emoji": emoji[1::2]}
    kinds: dict[str, Encode] = {"raw trunk, 1280": _raw}
    for ridge in (2e-4, 5e-3, 1e-2, 2e-2):
        kinds[f"whitened, 512, ridge {ridge:g}"] = fit_projection(every, photographs, 512, ridge)
    best = fit_projection(every, photographs, 512, 1e-2)
    kinds["whitened, 768, ridge 0.01"] = fit_projection(every, photographs, 768, 1e-2)
    kinds["both, 1792"] = lambda features: np.hstack([_raw(features), best(features)]) / np.float32(2**0.5)
    print(
        "| validation AUROC | components | foreign | residual | neighbour | sum |\n|---|---|---|---|---|---|"
    )
    for title, encode in kinds.items():
        for components in (32, 64):
            domain = fit_domain(encode(reference), encode(calibration), components)
            for source, features in foreign.items():
                found = separation(domain, encode(own), encode(features))
                values = " | ".join(f"{value:.3f}" for value in astuple(found))
                print(f"| {title} | {components} | {source} | {values} |", flush=True)


if __name__ == "__main__":
    main()
