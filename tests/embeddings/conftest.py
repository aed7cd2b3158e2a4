"""A real, tiny open_clip model on disk, the compact one, and pictures drawn with Pillow."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from embeddings.encoder import Encoder
from embeddings.preprocess import Preprocess

TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def encoded(image: Image.Image, format_name: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def drawing(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """A few shapes on a coloured ground."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), tuple(generator.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = int(generator.integers(0, width)), int(generator.integers(0, height))
        size = int(generator.integers(6, 30))
        shape = draw.ellipse if generator.random() < 0.5 else draw.rectangle
        shape((x - size, y - size, x + size, y + size), fill=tuple(generator.integers(0, 256, 3).tolist()))
    return image


@pytest.fixture(scope="session")
def preprocess() -> Preprocess:
    return Preprocess(48, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a randomly initialised ViT in the layout of a hub snapshot."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    model = open_clip.CLIP(**TINY)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    config = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def compact() -> Encoder:
    torch.set_num_threads(2)
    return Encoder.load(device="cpu")
