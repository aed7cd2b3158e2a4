"""From sentence embeddings to the image embedding: the teacher of the text tower.

A small residual network maps a sentence embedding into the space of the locked image tower, so it can be
trained in minutes on many more texts than images (Zhai et al. 2022, LiT). The loss is CLIP's (Radford et al.
2021) from image to text, with two changes that WordNet's captions ask for: several captions are true of one
image, and a caption that is true is never a negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from embeddings.compact.pairs import Pairs
from embeddings.compact.sentences import WIDTH

__all__ = ["Bridge", "BridgeSettings", "train_bridge"]


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """How the bridge is trained. MODEL_CARD.md says how this was chosen."""

    steps: int = 900
    batch: int = 512
    negatives: int = 1024
    hidden: int = 768
    rate: float = 1e-3
    scale: float = 20.0
    noise: float = 0.3
    taught: float = 0.5


class Bridge(nn.Module):
    """Sentence embeddings (n, 384) to L2-normalised text embeddings (n, d)."""

    def __init__(self, dimensions: int, hidden: int) -> None:
        super().__init__()
        self.direct = nn.Linear(WIDTH, dimensions, bias=False)
        self.curved = nn.Sequential(
            nn.Linear(WIDTH, hidden), nn.GELU(), nn.Dropout(0.2), nn.Linear(hidden, dimensions)
        )

    def forward(self, sentences: torch.Tensor) -> torch.Tensor:
        """Embed sentence embeddings."""
        return functional.normalize(self.direct(sentences) + self.curved(sentences), dim=-1)


def train_bridge(
    pairs: Pairs, images: torch.Tensor, sentences: torch.Tensor, settings: BridgeSettings
) -> Bridge:
    """Train the bridge on image embeddings and what is true of them.

    For an image z with a drawn true concept p, the loss is −log(e^{s·z·p} / (e^{s·z·p} + Σₙ e^{s·z·n})) over
    the drawn concepts n that are untrue of z. To it comes the cross-entropy of the names of the
    ImageNet classes with the classifier's softmax (the teacher).

    Args:
        pairs: What is true of the images.
        images: Image embeddings, L2-normalised float32, shape (n, d).
        sentences: Sentence embeddings of `pairs.concepts`, float32, shape (c, 384).
        settings: How to train.
    """
    bridge = Bridge(images.shape[1], settings.hidden)
    optimiser = torch.optim.AdamW(bridge.parameters(), lr=settings.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=settings.steps)
    spoken = pairs.truths.sum(1) > 0
    coarse = torch.nonzero(pairs.coarse & spoken).squeeze(1)
    fine = torch.nonzero(~pairs.coarse & spoken).squeeze(1)
    by_class = pairs.truths[len(pairs.truths) - len(pairs.taught) :]
    for _ in range(settings.steps):
        rows = torch.cat([part[torch.randint(len(part), (settings.batch // 2,))] for part in (coarse, fine)])
        seen = functional.normalize(images[rows] + settings.noise * _noise(images, settings.batch), dim=-1)
        truths = pairs.truths[rows]
        guessed = by_class[torch.multinomial(pairs.teacher[rows], 1).squeeze(1)]
        drawn = torch.where(torch.rand(len(rows), 1) < settings.taught / 2, guessed, truths)
        truths = truths + guessed
        positive = torch.multinomial(drawn, 1).squeeze(1)
        chosen = torch.cat([positive, torch.randint(len(pairs.concepts), (settings.negatives,))])
        with torch.autocast("cpu", torch.bfloat16):
            texts, names = bridge(sentences[chosen]), bridge(sentences[pairs.taught])
            logits = settings.scale * seen @ texts.T
            guesses = settings.scale * seen @ names.T
        logits, guesses = logits.float(), guesses.float()
        untrue = logits.masked_fill(truths[:, chosen] > 0, -torch.inf).logsumexp(1)
        loss = functional.softplus(untrue - logits.diagonal()).mean()
        loss = loss + settings.taught * functional.cross_entropy(guesses, pairs.teacher[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return bridge.eval()


def _noise(images: torch.Tensor, count: int) -> torch.Tensor:
    scale: float = images.shape[1] ** -0.5
    return torch.randn(count, images.shape[1]) * scale
