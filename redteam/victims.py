"""The model that thieves want: a small residual network, trained from scratch on the domain.

Its features are its own. Nothing of the detector's encoder is in it, so that a signal which works here does
not work because the two see alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from redteam.errors import RedteamError

__all__ = ["Victim", "load_victim", "save_victim", "train_victim"]

_LARGE = 40
"""Pictures of a longer side are halved by the first convolution: the cost of an epoch stays the same."""


class Victim:
    """A classifier that answers queries.

    Args:
        model: pictures in [-1, 1], shape (n, 3, side, side), to logits, shape (n, classes).
        classes: names, in the order of the scores.
        checkpoints: the same model earlier in its training, oldest first, itself last.

    Attributes:
        classes: names, in the order of the scores.
        model: in evaluation mode.
    """

    def __init__(
        self, model: nn.Module, classes: tuple[str, ...], checkpoints: tuple[Victim, ...] = ()
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.classes = classes
        self._earlier = checkpoints

    @property
    def checkpoints(self) -> tuple[Victim, ...]:
        """Training, oldest first; the last is this victim itself."""
        return (*self._earlier, self)

    def scores(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Answer queries.

        Args:
            pixels: uint8, shape (n, side, side, 3).

        Returns:
            Softmax scores, float32, shape (n, classes).
        """
        with torch.inference_mode():
            found = [self.model(as_input(chunk)).softmax(dim=1) for chunk in _chunks(pixels)]
        return torch.cat(found).numpy() if found else np.empty((0, len(self.classes)), np.float32)


class _Residual(nn.Module):
    """x + f(x), He et al. 2016, with batch norm after each convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(width, width), _convolution(width, width))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, width, side, side) to the same shape."""
        made: torch.Tensor = images + self.body(images)
        return made


def train_victim(
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    classes: tuple[str, ...],
    *,
    epochs: int = 12,
    checkpoints: int = 8,
    width: int = 32,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Victim:
    """Train a victim by SGD with Nesterov momentum, a warm-up and a cosine, on flipped and shifted pictures.

    Checkpoints are spaced evenly over the epochs. HODA (Sadeghzadeh et al., arXiv 2106.11424, section 4)
    reads a query's hardness off them.

    Args:
        pixels: uint8, shape (n, side, side, 3).
        labels: index into ``classes``, shape (n,).
        classes: names.
        epochs: passes over the pictures.
        checkpoints: models kept, at most ``epochs``.
        width: channels of the first convolution.
        seed: of weights, order and augmentation.
        on_progress: hears how many epochs are done, of how many.
    """
    torch.manual_seed(seed)
    # On a busy machine two threads that wait for each other at every step are slower than one.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    batch = 128
    model = _network(pixels.shape[1], len(classes), width).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * -(-len(pixels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.2, total_steps=steps, pct_start=0.2)
    keep = {round((kept + 1) * epochs / checkpoints) for kept in range(checkpoints)}
    images, targets = torch.from_numpy(pixels), torch.from_numpy(labels)
    # Twice as fast where the processor multiplies bfloat16, and slower where it has to pretend.
    short = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    states = []
    for epoch in range(1, epochs + 1):
        model.train()
        for rows in torch.split(torch.randperm(len(images)), batch):
            optimiser.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=short):
                logits = model(_augmented(as_input(images[rows])))
                loss = F.cross_entropy(logits, targets[rows], label_smoothing=0.1)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        if epoch in keep:
            states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        on_progress(epoch, epochs)
    torch.set_num_threads(threads)
    return _assemble(states, pixels.shape[1], classes, width)


def save_victim(victim: Victim, folder: Path) -> None:
    """Write one safetensors file a checkpoint, ``victim-0.safetensors`` the earliest."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, checkpoint in enumerate(victim.checkpoints):
        state = {name: tensor.contiguous() for name, tensor in checkpoint.model.state_dict().items()}
        save_file(state, folder / f"victim-{number}.safetensors", {"classes": json.dumps(victim.classes)})


def load_victim(folder: Path, side: int) -> Victim:
    """Read what `save_victim` wrote. Nothing is unpickled.

    Raises:
        RedteamError: the folder holds no victim.
    """
    paths = sorted(folder.glob("victim-*.safetensors"), key=lambda path: int(path.stem.split("-")[1]))
    if not paths:
        raise RedteamError(f"{folder} holds no victim-0.safetensors; train one with train_victim")
    with safe_open(paths[0], "pt") as file:
        classes = tuple(json.loads(file.metadata()["classes"]))
    states = [load_file(path) for path in paths]
    return _assemble(states, side, classes, len(states[0]["0.0.weight"]))


def as_input(pixels: npt.NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
    """Uint8 (n, side, side, 3) to float32 in [-1, 1], shape (n, 3, side, side), channels last in memory."""
    return torch.as_tensor(pixels).permute(0, 3, 1, 2).float().mul(2 / 255).sub(1)


def _network(side: int, classes: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(3, width, stride=2 if side > _LARGE else 1),
        nn.MaxPool2d(2),
        _convolution(width, 2 * width),
        nn.MaxPool2d(2),
        _Residual(2 * width),
        _convolution(2 * width, 4 * width),
        nn.MaxPool2d(2),
        _Residual(4 * width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def _convolution(inward: int, outward: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outward),
        nn.ReLU(),
    )


def _assemble(
    states: list[dict[str, torch.Tensor]], side: int, classes: tuple[str, ...], width: int
) -> Victim:
    victims = []
    for state in states:
        model = _network(side, len(classes), width)
        model.load_state_dict(state)
        victims.append(Victim(model, classes))
    return Victim(victims[-1].model, classes, tuple(victims[:-1]))


def _augmented(images: torch.Tensor) -> torch.Tensor:
    """Shift by up to an eighth of the side and flip, one draw for each picture."""
    count, _, side, _ = images.shape
    reach = side // 8
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    offsets = torch.randint(0, 2 * reach + 1, (2, count, 1))
    line = torch.arange(side)
    rows, columns = offsets[0] + line, offsets[1] + line
    columns = torch.where(torch.rand(count, 1) < 0.5, columns, columns.flip(1))
    picked = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[picked, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _chunks(pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    return [pixels[first : first + 500] for first in range(0, len(pixels), 500)]
