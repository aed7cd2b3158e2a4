"""Thieves without any data: the pictures of a generator, before and after it has learnt from the victim."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from redteam.pictures import Pictures
from redteam.thieves.substitute import Substitute
from redteam.thieves.thief import Rows, register
from redteam.victims import Victim
from redteam.world import World

__all__ = ["DataFreeEarly", "DataFreeLate"]

_NOISE = 100
_BATCH = 64
_STEPS = 100


@register("data-free-early")
@dataclass(frozen=True, slots=True)
class DataFreeEarly:
    """The first queries of data-free extraction (DFME: Truong et al. 2021, arXiv 2011.14779, section 3).

    Each replicate's generator has random weights of its own; what it draws is noise.
    """

    foreign: ClassVar[bool] = False
    in_domain: ClassVar[bool] = False
    seeds: ClassVar[int] = 0
    makes: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """``data-free-early``."""
        return "data-free-early"

    def ask(
        self, world: World, budget: int, rng: np.random.Generator, *, slice_: Rows = slice(None)
    ) -> Pictures:
        """What an untrained generator draws."""
        return world.send(_drawn(_generator(world.side, rng), budget, rng))


@register("data-free-late")
@dataclass(frozen=True, slots=True)
class DataFreeLate:
    """Later queries of the same thief, when the generator has learnt where the student still disagrees.

    Generator and student play DFME's game (section 3.1): the generator raises, the student lowers, the mean
    absolute difference of the logits. A real thief estimates the victim's gradient from further queries;
    this one is handed the gradient itself. So it is the strongest of its kind, and what it asks is
    only the pictures, not the small steps around them that would give it away. The game is played once for
    each world; replicates differ in the noise.
    """

    foreign: ClassVar[bool] = False
    in_domain: ClassVar[bool] = False
    seeds: ClassVar[int] = 0
    makes: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """``data-free-late``."""
        return "data-free-late"

    def ask(
        self, world: World, budget: int, rng: np.random.Generator, *, slice_: Rows = slice(None)
    ) -> Pictures:
        """What the trained generator draws."""
        path = world.home / f"generator-{_STEPS}.safetensors"
        generator = _generator(world.side, np.random.default_rng(0))
        if path.exists():
            generator.load_state_dict(load_file(path))
        else:
            _play(generator, world.victim, np.random.default_rng(0))
            unfinished = path.with_suffix(f".{os.getpid()}")
            save_file(generator.state_dict(), unfinished)
            unfinished.replace(path)
        return world.send(_drawn(generator, budget, rng))


class _Crop(nn.Module):
    """Cut to a side that is no multiple of four."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self._side = side

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The upper left corner."""
        return images[:, :, : self._side, : self._side]


def _generator(side: int, rng: np.random.Generator) -> nn.Sequential:
    """DFME's generator, narrower: noise (n, 100) to pictures in [-1, 1], shape (n, 3, side, side)."""
    start = -(-side // 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        return nn.Sequential(
            nn.Linear(_NOISE, 64 * start * start),
            nn.Unflatten(1, (64, start, start)),
            nn.BatchNorm2d(64),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 3, 3, padding=1),
            nn.Tanh(),
            nn.BatchNorm2d(3, affine=False),
            _Crop(side),
        )


def _play(generator: nn.Module, victim: Victim, rng: np.random.Generator) -> None:
    """One step of the generator and one of the student a round; leaves the generator trained."""
    student = Substitute(len(victim.classes), rng).model
    draws = torch.optim.Adam(generator.parameters(), lr=1e-3)
    learns = torch.optim.Adam(student.parameters(), lr=2e-3)
    for _ in range(_STEPS):
        pictures = generator(_noise(_BATCH // 2, rng)).clamp(-1, 1)
        logits = victim.model(pictures)
        draws.zero_grad()
        (-_disagreement(logits, student(pictures))).backward()  # type: ignore[no-untyped-call]
        draws.step()
        learns.zero_grad()
        _disagreement(logits.detach(), student(pictures.detach())).backward()  # type: ignore[no-untyped-call]
        learns.step()


def _disagreement(victim: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of logits, each brought to mean 0: scores do not tell it (section 3.3)."""
    centred = [logits - logits.mean(dim=1, keepdim=True) for logits in (victim, student)]
    return (centred[0] - centred[1]).abs().mean()


def _drawn(generator: nn.Module, count: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Pictures in batches of 64, whose statistics the norms take; uint8, shape (count, side, side, 3)."""
    batches = []
    with torch.inference_mode():
        for _ in range(-(-count // _BATCH)):
            images = generator(_noise(_BATCH, rng)).permute(0, 2, 3, 1)
            batches.append(((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy())
    return np.concatenate(batches)[:count]


def _noise(count: int, rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal((count, _NOISE)).astype(np.float32))
