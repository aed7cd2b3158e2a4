from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from redteam.errors import RedteamError
from redteam.honest import HONEST, trusted_history
from redteam.honest.frames import FAULTS, garbage, retaken
from redteam.pictures import Pictures
from redteam.world import World


def keys(pictures: Pictures) -> list[bytes]:
    return [row.tobytes() for row in pictures.pixels]


def ask(world: World, family: str, queries: int = 60, seed: int = 0) -> Pictures:
    return HONEST[family].ask(world, world.benign, queries, np.random.default_rng(seed))


@pytest.mark.parametrize("family", list(HONEST))
def test_a_family_asks_as_often_as_told_and_the_same_twice(world: World, family: str) -> None:
    asked, again = ask(world, family), ask(world, family)
    assert len(asked) == 60
    assert keys(asked) == keys(again)
    assert keys(asked) != keys(ask(world, family, seed=1))
    assert len(ask(world, family, queries=7)) == 7


def test_even_draws_repeat_nothing_before_all_were_asked(world: World) -> None:
    asked = keys(ask(world, "i.i.d.", queries=100))
    assert len(set(asked[:90])) == 90
    assert set(asked) == set(keys(world.benign))


def test_a_single_class_is_one(world: World) -> None:
    assert len(set(ask(world, "single class").labels)) == 1


def test_skew_differs_from_client_to_client(world: World) -> None:
    most = {
        Counter(ask(world, "class skew", seed=seed).labels.tolist()).most_common(1)[0][0] for seed in range(9)
    }
    assert len(most) > 1


def test_drift_moves_the_mix(world: World) -> None:
    moved = []
    for seed in range(5):
        labels = ask(world, "drift", queries=400, seed=seed).labels
        moved.append(
            np.mean(
                [
                    abs((labels[:100] == name).mean() - (labels[-100:] == name).mean())
                    for name in world.classes
                ]
            )
        )
    assert np.mean(moved) > 0.1


def test_a_health_check_posts_one_picture_every_tenth_query(world: World) -> None:
    often = Counter(keys(ask(world, "health check"))).most_common(1)[0]
    assert often[1] == 6
    assert often[0] in set(keys(world.pools["stains"]))


def test_junk_comes_first_and_ends(world: World) -> None:
    foreign = set(keys(world.pools["stains"]))
    odd = [key in foreign for key in keys(ask(world, "junk on day one"))]
    assert odd == [True] * 18 + [False] * 42


def test_another_camera_shows_classes_of_the_domain(world: World) -> None:
    assert set(ask(world, "other camera").labels) == {"tabby, tabby cat"}
    alone = replace(world, pools={"stains": world.pools["stains"][world.pools["stains"].labels == "stain"]})
    with pytest.raises(RedteamError, match="no foreign pool of shapes shows a class"):
        ask(alone, "other camera")


def test_junk_needs_a_pool(world: World) -> None:
    with pytest.raises(RedteamError, match="no foreign pool to draw junk from"):
        ask(replace(world, pools={}), "junk on day one")


def test_bursts_are_frames_of_one_scene(world: World) -> None:
    asked = ask(world, "near-duplicate bursts")
    steps = np.abs(np.diff(asked.pixels.astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert np.median(steps) < 25  # most neighbours differ by a shift of a pixel
    assert len(set(keys(asked))) > 40  # frames, not copies


def test_a_broken_camera_breaks(world: World) -> None:
    plain = set(keys(world.benign))
    broken = [key not in plain for key in keys(ask(world, "broken camera"))]
    assert 10 <= sum(broken) < 60


def test_retaking_is_the_pictures_own_chance() -> None:
    scene = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert retaken(scene, 0) is scene
    assert np.array_equal(retaken(scene, 3), retaken(scene.copy(), 3))
    assert not np.array_equal(retaken(scene, 3), retaken(scene, 4))


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_moderate(fault: str) -> None:
    ramp = np.linspace(40, 160, 32, dtype=np.uint8)
    scene = np.stack([np.add.outer(ramp, -ramp // 4)] * 3, axis=-1)
    spoilt = FAULTS[fault](scene)
    assert spoilt.shape == scene.shape
    assert spoilt.dtype == np.uint8
    assert np.corrcoef(scene.ravel(), spoilt.ravel())[0, 1] > 0.85


def test_garbage_comes_in_five_kinds() -> None:
    frames = [garbage(16, number) for number in range(5)]
    assert frames[0].max() < 10
    assert frames[1].min() > 240
    assert len({frame.tobytes() for frame in frames}) == 5


def test_the_trusted_history_keeps_to_its_pictures_and_habits(world: World) -> None:
    history = trusted_history(world, np.random.default_rng(4), clients=20, shortest=10, longest=30)
    clients = history.of_client()
    assert len(clients) == 20
    assert all(10 <= len(own) <= 30 for own in clients.values())
    assert not history.attack.any()
    trusted, benign = set(keys(world.trusted)), set(keys(world.benign))
    asked = set(keys(history.pictures))
    assert not asked & benign
    assert len(asked - trusted) < len(asked) / 5  # retakes are fresh pictures
    assert len({said["ip"].rpartition(".")[0] for said in history.attributes}) == 20


def test_represented_families_are_named() -> None:
    represented = {name for name, family in HONEST.items() if family.represented}
    assert represented == {"i.i.d.", "class skew", "single class", "drift", "retakes"}
