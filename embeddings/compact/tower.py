"""The text tower: a small transformer that learns to say what the bridge says, without the sentence model.

Token embeddings start from the sentence embeddings of the token strings, reduced to the tower's width, so
words that no caption holds still stand near their like. Then the tower is distilled from the bridge on
captions, the vocabulary and every word of the tokenizer, bare and inside prompt templates.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch.nn import functional

__all__ = ["TowerSettings", "initialise_tokens", "new_model", "token_words", "train_tower", "training_texts"]

HERE = Path(__file__).parent
MAX_WORDS = 4  # longer captions would pad every batch


@dataclass(frozen=True, slots=True)
class TowerSettings:
    """How the tower is distilled."""

    steps: int = 1_000
    batch: int = 512
    rate: float = 1e-3
    captions: float = 0.6  # share of a batch that is drawn from the captions, the rest are other words


def new_model() -> Any:
    """banken-compact with random weights."""
    config = json.loads((HERE / "banken-compact.json").read_text("utf-8"))["model_cfg"]
    return open_clip.CLIP(**config)


def token_words() -> dict[int, str]:
    """The tokens of open_clip's tokenizer that are plain letters, by id."""
    words = {token: text.removesuffix("</w>") for token, text in SimpleTokenizer().decoder.items()}
    return {token: text for token, text in words.items() if text.isascii() and text.isalpha()}


def training_texts(concepts: list[str]) -> tuple[list[str], list[str]]:
    """What the tower is distilled on: short captions with the vocabulary, and the tokenizer's words."""
    vocabulary = (HERE / "vocabulary.txt").read_text("utf-8").splitlines()
    captions = sorted(text for text in {*concepts, *vocabulary} if text.count(" ") < MAX_WORDS)
    return captions, [word for word in dict.fromkeys(token_words().values()) if len(word) > 2]


def initialise_tokens(model: Any, sentences: np.ndarray) -> None:
    """Set the embeddings of `token_words()` to the principal components of their sentence embeddings.

    Args:
        model: The model; changed in place.
        sentences: Sentence embeddings of the token strings in the dictionary's order, shape (n, 384).
    """
    centred = sentences - sentences.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    reduced = centred @ vectors[:, ::-1][:, : model.token_embedding.weight.shape[1]]
    scaled = torch.from_numpy(0.04 * reduced / reduced.std()).float()
    with torch.no_grad():
        model.token_embedding.weight[list(token_words())] = scaled


def train_tower(
    model: Any, captions: list[str], words: list[str], targets: torch.Tensor, settings: TowerSettings
) -> float:
    """Distil the text tower from the bridge.

    Args:
        model: The model whose text tower is trained, in place.
        captions: Texts that count most.
        words: Other texts.
        targets: What the bridge says of captions and then words, L2-normalised, shape (n, d).
        settings: How to train.

    Returns:
        The mean cosine between tower and bridge over the last 50 steps.
    """
    tokenise = SimpleTokenizer(context_length=model.context_length)
    templates = (HERE / "templates.txt").read_text("utf-8").splitlines()
    texts = captions + words
    tower = [parameter for name, parameter in model.named_parameters() if not name.startswith("visual")]
    optimiser = torch.optim.AdamW(tower, lr=settings.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.rate, total_steps=settings.steps, pct_start=0.1
    )
    said = []
    first = round(settings.captions * settings.batch)
    for step in range(settings.steps):
        other = torch.randint(len(captions), len(texts), (settings.batch - first,))
        rows = torch.cat([torch.randint(len(captions), (first,)), other])
        # Steps take turns: bare texts, as captions and search words come, and texts inside one template.
        form = "{}" if step % 2 else templates[int(torch.randint(len(templates), ()))]
        tokens = tokenise([form.format(texts[row]) for row in rows.tolist()])
        with torch.autocast("cpu", torch.bfloat16):
            said_here = _encode(model, tokens)
        cosine = functional.cosine_similarity(said_here.float(), targets[rows]).mean()
        optimiser.zero_grad()
        (1 - cosine).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(tower, 1.0)
        optimiser.step()
        schedule.step()
        said.append(cosine.item())
        if step % 100 == 99:
            print(f"tower: step {step + 1} of {settings.steps}, cosine {np.mean(said[-50:]):.3f}", flush=True)
    return float(np.mean(said[-50:]))


def _encode(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """`encode_text`, cut at the longest text: attention is causal, so padding changes nothing."""
    length = int(tokens.argmax(1).max()) + 1
    hidden = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
    ends = hidden[torch.arange(len(tokens)), tokens.argmax(1)]
    embedded: torch.Tensor = ends @ model.text_projection
    return embedded
