from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embeddings.decoding import decode
from redteam.errors import SourceDataError
from redteam.pictures import Pictures
from redteam.world import World, load_world
from tests.redteam import drawn

PARTS = ("reference", "trusted", "benign", "thief", "exam")


def contents(pictures: Pictures) -> set[bytes]:
    return {row.tobytes() for row in pictures.pixels}


def test_no_picture_serves_two_parties(world: World) -> None:
    everybody = [contents(getattr(world, part)) for part in PARTS] + [contents(world.pools["stains"])]
    assert len(set.union(*everybody)) == sum(map(len, everybody))


def test_the_parts_have_their_sizes_and_all_classes(world: World) -> None:
    assert [len(getattr(world, part)) for part in PARTS] == [119, 45, 90, 45, 30]  # one row is no picture
    for part in PARTS:
        assert set(getattr(world, part).labels) == set(drawn.CLASSES)
    assert world.classes == drawn.CLASSES
    assert world.side == drawn.SIDE


def test_a_pool_leaves_out_the_domain_and_the_other_splits(world: World) -> None:
    assert len(world.pools["stains"]) == 110
    assert world.pools["stains"].pixels.shape[1:] == (drawn.SIDE, drawn.SIDE, 3)


def test_embeddings_are_the_products_own(world: World, drawn_data: Path) -> None:
    encoder = world.sender.encoder
    rows = pq.read_table(drawn_data / "stains.parquet").to_pylist()
    pictures = [decode(row["image"], encoder.preprocess) for row in rows[:3]]
    expected = encoder.embed(np.stack([picture.pixels for picture in pictures]))
    pool = world.pools["stains"]
    for picture, vector in zip(pictures, expected, strict=True):
        places = np.flatnonzero(pool.fingerprints == picture.fingerprint)
        assert any(np.array_equal(pool.embeddings[place], vector) for place in places)


def test_a_sent_picture_is_encoded_like_its_file(world: World) -> None:
    some = world.exam[:5]
    sent = world.send(some.pixels, some.labels)
    files = [drawn.png(Image.fromarray(row)) for row in some.pixels]
    embeddings, fingerprints = world.sender.files(files)
    assert np.array_equal(sent.embeddings, embeddings)
    assert np.array_equal(sent.fingerprints, fingerprints)
    assert np.array_equal(sent.embeddings, some.embeddings)
    assert np.allclose(sent.answers, some.answers, atol=1e-6)


def test_a_second_loading_computes_nothing(world: World, drawn_data: Path, world_cache: Path) -> None:
    steps: list[str] = []
    again = load_world(
        drawn_data,
        world_cache,
        "shapes",
        small=True,
        on_progress=lambda what, done, total: steps.append(what),
    )
    assert not steps
    assert np.array_equal(again.exam.answers, world.exam.answers)
    assert np.array_equal(again.victim.scores(again.exam.pixels), world.victim.scores(world.exam.pixels))


def test_an_interrupted_loading_goes_on(world: World, drawn_data: Path, world_cache: Path) -> None:
    (world.home / "exam.npz").unlink()
    again = load_world(drawn_data, world_cache, "shapes", small=True)
    assert np.array_equal(again.exam.embeddings, world.exam.embeddings)
    assert again.sender._encoder is None  # every picture was in the store


def test_a_world_travels_to_another_process(world: World) -> None:
    twin = pickle.loads(pickle.dumps(world))
    assert twin.sender._encoder is None
    assert np.array_equal(twin.send(world.exam.pixels[:2]).embeddings, world.exam.embeddings[:2])


def test_a_missing_domain_is_named(drawn_data: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceDataError, match=r"holds no cifar10\.parquet; it holds shapes, stains"):
        load_world(drawn_data, tmp_path, small=True)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b""], "label": ["x"]}), tmp_path / "odd.parquet")
    with pytest.raises(SourceDataError, match="no column split"):
        load_world(tmp_path, tmp_path / "cache", "odd", small=True)


def test_too_small_a_domain_is_refused(drawn_data: Path, tmp_path: Path) -> None:
    table = pq.read_table(drawn_data / "shapes.parquet")
    pq.write_table(table.slice(260, 80), tmp_path / "shapes.parquet")
    with pytest.raises(SourceDataError, match=r"part 'victim', of 40 in its split 'train'"):
        load_world(tmp_path, tmp_path / "cache", "shapes", small=True)


def test_a_pool_of_the_domains_own_pictures_is_refused(
    world: World, drawn_data: Path, tmp_path: Path
) -> None:
    shutil.copy(drawn_data / "shapes.parquet", tmp_path)
    shutil.copy(drawn_data / "shapes.parquet", tmp_path / "twin.parquet")
    with pytest.raises(SourceDataError, match="no picture that could serve"):
        load_world(tmp_path, world.home.parent, "shapes", small=True)
