from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from redteam.datasets import main, write
from redteam.errors import SourceDataError
from redteam.garments_drawings import held_out
from redteam.garments_images import decode_png


def idx(path: Path, values: np.ndarray) -> None:
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))


def drawing(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 4), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)


def test_fashion_mnist_becomes_a_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("t10k", 5)):
        idx(tmp_path / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    main(["fashion-mnist", str(tmp_path / "out"), "--source", str(tmp_path)])
    assert "12 train, 5 test; 10 classes" in capsys.readouterr().out
    rows = pq.read_table(tmp_path / "out" / "fashion-mnist.parquet").to_pylist()
    assert rows[0]["label"] == "t-shirt"
    assert decode_png(rows[0]["image"]).shape == (28, 28)


def test_clip_art_is_the_held_out_half_in_small(tmp_path: Path) -> None:
    for seed in range(12):
        drawing(tmp_path / "food" / f"{seed}.png", seed, (400, 300))
    drawing(tmp_path / "food" / "huge.png", 99, (2_500, 2_000))
    (tmp_path / "food" / "empty.png").touch()
    (tmp_path / "food" / "again.png").write_bytes((tmp_path / "food" / "0.png").read_bytes())
    half = [held_out((tmp_path / "food" / f"{seed}.png").read_bytes()) for seed in range(12)]
    rows = pq.read_table(write("openclipart", tmp_path / "out", tmp_path)).to_pylist()
    assert len(rows) == sum(half)
    assert {(row["label"], row["split"]) for row in rows} == {("food", "pool")}


def test_frames_of_one_animation_count_once(tmp_path: Path) -> None:
    for seed in range(50):
        drawing(tmp_path / "units" / "elves" / f"{seed}.png", seed)
        drawing(tmp_path / "units" / "elves" / f"{seed}-again.png", seed)
    drawing(tmp_path / "units" / "rare" / "one.png", 1_000)
    rows = pq.read_table(write("wesnoth", tmp_path / "out", tmp_path)).to_pylist()
    assert len(rows) == 50
    assert {row["label"] for row in rows} == {"elves"}
    assert sum(row["split"] == "test" for row in rows) == 15


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceDataError, match="no data set 'mnist'; there are fashion-mnist"):
        write("mnist", tmp_path)
    with pytest.raises(SourceDataError, match="holds no picture; install openclipart-png"):
        write("openclipart", tmp_path, tmp_path)
