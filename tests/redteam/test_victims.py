from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from redteam.errors import RedteamError
from redteam.victims import load_victim, save_victim
from redteam.world import World


def accuracy(world: World, scores: np.ndarray) -> float:
    return float((np.array(world.classes)[scores.argmax(axis=1)] == world.exam.labels).mean())


def test_answers_are_scores(world: World) -> None:
    scores = world.victim.scores(world.exam.pixels)
    assert scores.shape == (30, 4)
    assert scores.dtype == np.float32
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert world.victim.scores(world.exam.pixels[:0]).shape == (0, 4)


def test_it_learns_and_its_checkpoints_differ(world: World) -> None:
    assert accuracy(world, world.exam.answers) > 0.4  # a quarter by chance, after 200 pictures and 8 epochs
    assert len(world.victim.checkpoints) >= 6
    assert world.victim.checkpoints[-1] is world.victim
    first, last = (world.victim.checkpoints[place].scores(world.exam.pixels) for place in (0, -1))
    assert not np.allclose(first, last)


def test_it_survives_its_files(world: World, tmp_path: Path) -> None:
    save_victim(world.victim, tmp_path)
    again = load_victim(tmp_path, world.side)
    assert again.classes == world.classes
    for kept, made in zip(again.checkpoints, world.victim.checkpoints, strict=True):
        assert np.array_equal(kept.scores(world.exam.pixels), made.scores(world.exam.pixels))


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RedteamError, match=r"holds no victim-0\.safetensors"):
        load_victim(tmp_path, 16)
