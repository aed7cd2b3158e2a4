"""The script that makes the demo data, piece by piece, on pictures made up here."""

from __future__ import annotations

import gzip
import hashlib
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from redteam.errors import SourceDataError
from redteam.garments import FILES, make
from redteam.garments_answers import answer, train_classifier
from redteam.garments_clients import Client, Phase, play
from redteam.garments_drawings import dress, drop_lookalikes, held_out, read_drawings, render
from redteam.garments_habits import WINTER, Picture, Stock, drifting, health_check, near_duplicates
from redteam.garments_images import LABELS, Garments, decode_png, encode_png, read_garments, read_idx, split

FASHION = Path("/usr/share/datasets/fashion-mnist")
CLIPART = Path("/usr/share/openclipart/png")


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def stock(rng):
    images = rng.integers(0, 256, (400, 28, 28), dtype=np.uint8)
    return Stock(images, np.arange(400) % 10, images[:30])


@pytest.fixture
def torch_settings():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def idx(array):
    header = b"\0\0\x08" + bytes([array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(header + array.tobytes())


def test_split_uses_nothing_twice(rng):
    labels = np.arange(4_000) % 10
    garments = Garments(np.zeros((4_000, 28, 28), np.uint8), labels, np.arange(4_000) >= 3_000)
    parts = split(garments, rng, spare=1_000, per_label=40)
    shares = (parts.classifier, parts.reference, parts.donors, parts.trusted, parts.log)
    assert not any(np.intersect1d(one, other).size for one, other in combinations(shares, 2))
    assert sum(map(len, shares)) == 4_000
    assert np.bincount(labels[parts.reference]).tolist() == [40] * 10
    assert garments.test[parts.log].all()
    assert garments.test[parts.trusted].all()


def test_split_says_which_label_is_short(rng):
    garments = Garments(np.zeros((100, 28, 28), np.uint8), np.zeros(100, np.int64), np.arange(100) >= 90)
    with pytest.raises(SourceDataError, match="trousers"):
        split(garments, rng, spare=50, per_label=10)


def test_read_garments_drops_exact_duplicates(tmp_path, rng):
    train = rng.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    test = np.concatenate([train[:1], rng.integers(0, 256, (2, 28, 28), dtype=np.uint8)])
    for part, images in (("train", train), ("t10k", test)):
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(len(images), dtype=np.uint8)))
    garments = read_garments(tmp_path)
    assert garments.test.tolist() == [False] * 6 + [True] * 2
    assert garments.labels.tolist() == [0, 1, 2, 3, 4, 5, 1, 2]
    assert (garments.images[6:] == test[1:]).all()


@pytest.mark.parametrize("content", [None, b"not gzip", gzip.compress(b"not idx")])
def test_a_bad_idx_file_is_named(tmp_path, content):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceDataError, match=path.name):
        read_idx(path)


def test_png_keeps_every_pixel(rng):
    image = rng.integers(0, 256, (28, 28), dtype=np.uint8)
    assert (decode_png(encode_png(image)) == image).all()


def test_half_of_the_clip_art_is_held_out_by_content():
    for content in (bytes([n]) for n in range(64)):
        assert held_out(content) == (int(hashlib.sha256(content).hexdigest()[0], 16) % 2 == 1)


def test_a_drawing_becomes_an_object_on_black(tmp_path):
    canvas = Image.new("RGBA", (300, 200), (255, 255, 255, 0))
    ImageDraw.Draw(canvas).ellipse((50, 40, 250, 140), fill=(200, 30, 30, 255))
    canvas.save(tmp_path / "ellipse.png")
    picture = render(tmp_path / "ellipse.png")
    assert picture.shape == (28, 28)
    assert picture[0, 0] == 0
    assert picture[14, 14] > 0.5
    assert (picture > 0.04).any(axis=0).all()


@pytest.mark.parametrize("colour", [(0, 0, 0, 0), (255, 255, 255, 255), (9, 9, 9, 255)])
def test_empty_and_flat_drawings_are_dropped(tmp_path, colour):
    Image.new("RGBA", (64, 64), colour).save(tmp_path / "flat.png")
    assert render(tmp_path / "flat.png") is None


def test_enormous_and_foreign_files_are_dropped_undecoded(tmp_path):
    Image.new("1", (3_000, 3_000)).save(tmp_path / "huge.png")
    (tmp_path / "short.png").write_bytes(b"\x89PNG")
    assert render(tmp_path / "huge.png") is None
    assert render(tmp_path / "short.png") is None


def test_a_folder_without_drawings_is_an_error(tmp_path):
    with pytest.raises(SourceDataError, match="openclipart-png"):
        read_drawings(tmp_path)


def test_lookalikes_are_kept_once(rng):
    pictures = rng.random((5, 28, 28), dtype=np.float32)
    doubled = np.concatenate([pictures, pictures * 0.5 + 0.1])
    assert (drop_lookalikes(doubled) == pictures).all()


def test_dressed_drawings_have_their_donors_histogram_and_their_own_shape(rng):
    donors = np.where(rng.random((4, 28, 28)) < 0.4, rng.integers(20, 256, (4, 28, 28)), 0).astype(np.uint8)
    drawings = rng.random((9, 28, 28), dtype=np.float32)
    dressed = dress(drawings, donors)
    assert (np.sort(dressed.reshape(4, -1)) == np.sort(donors.reshape(4, -1))).all()
    for picture in dressed:
        likeness = [np.corrcoef(picture.ravel(), drawing.ravel())[0, 1] for drawing in drawings]
        assert max(likeness) > 0.7
    with pytest.raises(SourceDataError, match="3 usable drawings"):
        dress(drawings[:3], donors)


def test_stock_hands_out_each_picture_once(stock):
    taken = [stock.garment("bag").image.tobytes() for _ in range(40)]
    assert len(set(taken)) == 40
    with pytest.raises(SourceDataError, match="no bag is left"):
        stock.garment("bag")


def test_bursts_are_near_and_not_equal(stock, rng):
    groups = near_duplicates(stock, rng, 40)
    assert sum(map(len, groups)) == 40
    assert len({picture.image.tobytes() for group in groups for picture in group}) == 40


def test_season_turns(rng):
    labels = np.arange(400) % 10
    images = np.full((400, 28, 28), labels[:, None, None], np.uint8)
    groups = drifting(Stock(images, labels, images[:0]), rng, 100)
    cold = [LABELS[group[0].image[0, 0]] in WINTER for group in groups]
    assert sum(cold[:30]) < 12
    assert sum(cold[70:]) > 18


def test_a_health_check_repeats_to_the_bit(stock):
    groups = health_check(stock, 12)
    assert len({group[0].image.tobytes() for group in groups}) == 1
    assert len(groups) == 12


def test_play_keeps_each_clients_order(rng):
    pictures = [Picture(np.full((28, 28), n, np.uint8), foreign=False) for n in range(60)]
    burst = Phase([pictures[:20], pictures[20:40], pictures[40:]], 0, 1, "192.0.2.1")
    client = Client("key-1", "bursts", True, None, "agent", (burst,))
    shots = play([client], rng)
    assert [int(shot.picture.image[0, 0]) for shot in shots] == list(range(60))
    assert [shot.time for shot in shots] == sorted(shot.time for shot in shots)


@pytest.mark.usefixtures("torch_settings")
def test_the_classifier_learns_and_repeats_itself(rng):
    labels = np.arange(600) % 10
    images = rng.integers(0, 60, (600, 28, 28), dtype=np.uint8)
    images[np.arange(600), labels * 2 + 3] = 250
    first, again = (train_classifier(images, labels, seed=3, epochs=8) for _ in range(2))
    answers = answer(first, images)
    assert answers.dtype == np.float32
    assert np.allclose(answers.sum(axis=1), 1, atol=1e-5)
    assert (answers.argmax(axis=1) == labels).mean() > 0.9
    assert (answer(again, images) == answers).all()


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.usefixtures("torch_settings")
@pytest.mark.skipif(not (FASHION.is_dir() and CLIPART.is_dir()), reason="the Debian packages of the sources")
def test_the_script_makes_the_same_files_twice(tmp_path):
    for run in ("first", "second"):
        make(FASHION, CLIPART, tmp_path / run, epochs=1)
    for name in (*FILES, "DATA.md"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
