"""SEAT: does an account keep asking pictures that look like ones it asked before?

Zhang, Chen and Wagner, "SEAT: Similarity Encoder by Adversarial Training for Detecting Model Extraction
Attack Queries", AISec 2021: an encoder trained so that a picture stays close to its perturbed self and far
from others, a distance below which two queries are similar, and a number of similar queries at which the
account is cancelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from redteam.errors import RedteamError
from redteam.pictures import Pictures
from redteam.rivals.rival import CHUNK, Watch, peaks
from redteam.victims import Victim, as_input
from redteam.world import World

__all__ = ["FALSE_POSITIVES", "LIMIT", "SeatScores", "SimilarityEncoder", "fit_seat"]

FALSE_POSITIVES = 1e-4
"""Share of pairs of different honest pictures that may be taken for similar ones."""

LIMIT = 50
"""Similar queries that an account may ask, at least."""

_MARGIN = 10**0.5  # of the contrastive loss
_STEPS = 3  # of projected gradient ascent
_DIFFERENT = 3_000  # pictures whose pairs the distance is fitted on, at most
_SPARED = 0.95  # share of the trusted clients that the distance keeps within the limit


@dataclass(frozen=True, slots=True)
class SimilarityEncoder:
    """The victim's features, trained on as a similarity encoder."""

    model: nn.Module

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Encode pictures of shape (n, side, side, 3) to float32, shape (n, d)."""
        with torch.inference_mode():
            parts = [self.model(as_input(pixels[at : at + 500])) for at in range(0, len(pixels), 500)]
        return torch.cat(parts).numpy()

    @staticmethod
    def train(
        victim: Victim,
        pixels: npt.NDArray[np.uint8],
        *,
        reach: float = 0.5,
        epochs: int = 2,
        most: int = 3_000,
        seed: int = 0,
    ) -> SimilarityEncoder:
        """Minimise ‖f(x) − f(x + δ)‖² + max(0, m² − ‖f(x) − f(z)‖²), δ the worst found within the reach.

        Starts from the victim's features and keeps its batch statistics.

        Args:
            victim: whose features to start from.
            pixels: of the domain, uint8, shape (n, side, side, 3).
            reach: greatest change of a pixel, on the scale [-1, 1]; that of T-RND, which is beyond JBDA's.
            epochs: passes over the pictures.
            most: pictures used, drawn at random.
            seed: of the draw, the order and the perturbations.
        """
        generator = torch.Generator().manual_seed(seed)
        model = nn.Sequential(*deepcopy(list(victim.model.children())[:-1])).eval().requires_grad_()
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-4)
        images = as_input(pixels[torch.randperm(len(pixels), generator=generator)[:most].numpy()])
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(images), generator=generator), 64):
                if len(rows) < 2:
                    continue
                batch = images[rows]
                worst = _worst(model, batch, reach, generator)
                encoded, moved = model(torch.cat([batch, worst])).chunk(2)
                similar = (encoded - moved).square().sum(dim=1)
                different = (encoded - encoded.roll(1, dims=0)).square().sum(dim=1)
                optimiser.zero_grad()
                (similar + F.relu(_MARGIN**2 - different)).mean().backward()
                optimiser.step()
        return SimilarityEncoder(model.requires_grad_(False))


def _worst(model: nn.Module, batch: torch.Tensor, reach: float, generator: torch.Generator) -> torch.Tensor:
    """Pictures within ``reach`` of each that the encoder moves far, by projected gradient ascent on signs."""
    with torch.no_grad():
        home = model(batch)
    moved = batch + reach * (2 * torch.rand(batch.shape, generator=generator) - 1)
    for _ in range(_STEPS):
        moved = moved.clamp(-1, 1).requires_grad_()
        gradient = torch.autograd.grad((model(moved) - home).square().sum(), moved)[0]
        moved = batch + (moved.detach() + reach / 2 * gradient.sign() - batch).clamp(-reach, reach)
    return moved.clamp(-1, 1)


@dataclass(slots=True)
class SeatScores:
    """How many of one account's queries were similar to one that it had asked before."""

    encoder: SimilarityEncoder
    distance: float
    _history: list[npt.NDArray[np.float32]] = field(default_factory=list)
    _similar: int = 0

    def nearest(self, asked: Pictures) -> npt.NDArray[np.float64]:
        """Distance of each further query to the nearest of the account's earlier ones, shape (n,)."""
        fresh = self.encoder(asked.pixels)
        found = _nearest(fresh, fresh, earlier_only=True)
        for earlier in self._history:
            found = np.minimum(found, _nearest(fresh, earlier))
        self._history.append(fresh)
        return found

    def push(self, asked: Pictures) -> npt.NDArray[np.float64]:
        """Similar queries so far, after each query, shape (n,)."""
        if not len(asked):
            return np.empty(0)
        counts = self._similar + np.cumsum(self.nearest(asked) < self.distance)
        self._similar = int(counts[-1])
        return counts.astype(np.float64)


def _distances(rows: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Euclidean distances, shape (rows, others)."""
    norms = np.einsum("ij,ij->i", rows, rows)[:, None] + np.einsum("ij,ij->i", others, others)
    return np.asarray(np.sqrt(np.maximum(norms - 2 * rows @ others.T, 0)), np.float32)


def _nearest(
    rows: npt.NDArray[np.float32], others: npt.NDArray[np.float32], *, earlier_only: bool = False
) -> npt.NDArray[np.float64]:
    """Distance of each row to the nearest other one, or to the nearest above it; inf without any."""
    distances = _distances(rows, others)
    if earlier_only:
        distances[np.triu_indices(len(rows))] = np.inf
    return np.asarray(distances.min(axis=1, initial=np.inf), np.float64)


def fit_seat(world: World, trusted: Sequence[Pictures]) -> Watch:
    """SEAT: encoder trained on the reference, distance and limit from the trusted clients.

    The distance is that within which 0.01 % of the pairs of different trusted pictures lie, or less: so much
    less that 95 % of the trusted clients stay within the limit of 50. The limit is then raised to the most
    that any of them reached. Similar queries add up over an account's life, and faster the longer it is, so
    trusted streams should be as long as those that are watched.

    Raises:
        RedteamError: trusted clients asked fewer than two different pictures.
    """
    different = {pixels.tobytes(): pixels for asked in trusted for pixels in asked.pixels}
    if len(different) < 2:
        raise RedteamError(
            f"seat: {len(trusted)} trusted clients asked {len(different)} different pictures: give more"
        )
    encoder = SimilarityEncoder.train(world.victim, world.reference.pixels)
    encoded = encoder(np.stack(list(different.values())[:_DIFFERENT]))
    pairs = _distances(encoded, encoded)[np.triu_indices(len(encoded), 1)]
    within = [float(np.quantile(pairs, FALSE_POSITIVES))]
    kept = [
        np.sort(_all_nearest(SeatScores(encoder, 0.0), asked))[LIMIT]
        for asked in trusted
        if len(asked) > LIMIT
    ]
    if kept:
        within.append(float(np.quantile(kept, 1 - _SPARED)))
    start = partial(SeatScores, encoder, min(within))
    return Watch("seat", max(float(LIMIT), float(peaks("seat", start, trusted).max())), start)


def _all_nearest(state: SeatScores, asked: Pictures) -> npt.NDArray[np.float64]:
    """`SeatScores.nearest` of a whole stream."""
    parts = [state.nearest(asked[at : at + CHUNK]) for at in range(0, len(asked), CHUNK)]
    return np.concatenate([np.empty(0), *parts])
