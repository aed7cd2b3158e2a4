from __future__ import annotations

import numpy as np
import pytest
import torch

from detector.domain import Domain
from redteam.errors import RedteamError
from redteam.thieves import THIEVES, cast, data_free, thief
from redteam.thieves.active import InDomainKCentre, PoolEntropy
from redteam.thieves.synthetic import Jbda, Trnd
from redteam.world import World

NAMES = (
    "knockoff-stains",
    "activethief-entropy-stains",
    "activethief-kcentre-stains",
    "detector-aware-stains",
    "activethief-entropy-in-domain",
    "activethief-kcentre-in-domain",
    "in-domain",
    "jbda",
    "t-rnd",
    "augmentations",
    "data-free-early",
    "data-free-late",
)
BUDGET = 30


@pytest.fixture(autouse=True)
def few_seeds_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawn domain has 45 pictures for thieves; a hundred seeds, and a long game, are for real ones."""
    for kind in (Jbda, Trnd):
        monkeypatch.setattr(kind, "seeds", 12)
    monkeypatch.setattr(data_free, "_STEPS", 12)


def test_the_registry_names_every_thief_of_a_world(world: World) -> None:
    assert set(cast(world)) == set(NAMES)
    assert {thief(name).name for name in NAMES} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_thief_asks_its_budget_and_the_same_twice(world: World, name: str) -> None:
    asked, again = (thief(name).ask(world, BUDGET, np.random.default_rng(8)) for _ in range(2))
    assert len(asked) == BUDGET
    assert np.array_equal(asked.pixels, again.pixels)
    assert asked.embeddings.shape[1] == world.encoder.dim
    assert asked.answers.shape[1] == len(world.classes)
    foreign = getattr(thief(name), "foreign", False)
    source = world.pools["stains"] if foreign else world.thief
    plain = {row.tobytes() for row in source.pixels}
    share = np.mean([row.tobytes() in plain for row in asked.pixels])
    assert share == 1 if not thief(name).makes else share < 0.7


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(("stains", "in-domain"))])
def test_replicates_keep_to_their_slices(world: World, name: str) -> None:
    one, other = (
        thief(name).ask(world, 20, np.random.default_rng(1), slice_=rows)
        for rows in (slice(0, 20), np.arange(20, 40))
    )
    assert len(one) == len(other) == 20
    assert not {row.tobytes() for row in one.pixels} & {row.tobytes() for row in other.pixels}


def test_rows_are_asked_in_their_order(world: World) -> None:
    rows = np.array([9, 3, 50])
    asked = thief("knockoff-stains").ask(world, 5, np.random.default_rng(0), slice_=rows)
    assert np.array_equal(asked.pixels, world.pools["stains"].pixels[rows])


def test_an_unknown_thief_or_pool_is_named(world: World) -> None:
    with pytest.raises(RedteamError, match="no thief 'magpie'; the kinds are activethief"):
        thief("magpie")
    with pytest.raises(RedteamError, match="no thief 'knockoff'"):
        thief("knockoff")
    with pytest.raises(RedteamError, match="no foreign pool 'moon' beside shapes; there are stains"):
        thief("knockoff-moon").ask(world, 5, np.random.default_rng(0))


def test_every_kind_says_what_it_is() -> None:
    for kind in THIEVES.values():
        assert {"foreign", "in_domain", "makes", "seeds"} <= set(dir(kind))


def test_entropy_takes_the_least_sure() -> None:
    scores = np.array([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4], [0.99, 0.01]])
    assert PoolEntropy("any")._select(scores, np.array([1]), 2).tolist() == [2, 0]


def test_k_centre_takes_the_farthest_from_all_centres() -> None:
    scores = np.array([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0], [0.0, 0.9], [0.95, 0.0]])
    assert InDomainKCentre()._select(scores, np.array([0]), 3).tolist() == [2, 3, 1]


def test_jbda_moves_every_pixel_by_a_tenth(world: World) -> None:
    asked = thief("jbda").ask(world, 24, np.random.default_rng(2))
    seeds, moved = asked[:12].pixels.astype(int), asked[12:].pixels.astype(int)
    nearest = np.abs(moved[:, None] - seeds[None]).reshape(12, 12, -1)
    assert nearest.max(axis=2).min(axis=1).max() <= 26
    assert sorted(nearest.max(axis=2).argmin(axis=1)) == list(range(12))  # every seed was moved once


def test_t_rnd_stays_within_its_reach(world: World) -> None:
    asked = thief("t-rnd").ask(world, 24, np.random.default_rng(2))
    seeds, moved = asked[:12].pixels.astype(int), asked[12:].pixels.astype(int)
    farthest = np.abs(moved[:, None] - seeds[None]).reshape(12, 12, -1).max(axis=2).min(axis=1)
    assert (farthest <= 64 + 5).all()  # five steps, each rounded to a whole level
    assert (farthest > 26).all()


def test_the_detector_aware_thief_begins_with_the_most_familiar(world: World) -> None:
    asked = thief("detector-aware-stains").ask(world, len(world.pools["stains"]), np.random.default_rng(0))
    judge = Domain.fit(world.reference.embeddings[30:], world.reference.embeddings[:30])
    scores, _ = judge.score(asked.embeddings)
    assert scores[:30].mean() < scores[-30:].mean()


def test_the_late_generator_has_learnt_to_disagree(world: World) -> None:
    early, late = (
        thief(f"data-free-{age}").ask(world, 64, np.random.default_rng(3)) for age in ("early", "late")
    )
    assert not np.array_equal(early.pixels, late.pixels)
    assert (world.home / "generator-12.safetensors").exists()


def test_disagreement_ignores_what_scores_cannot_tell() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert float(data_free._disagreement(logits, logits + 5)) == pytest.approx(0)
    assert float(data_free._disagreement(logits, -logits)) == pytest.approx(4 / 3)
