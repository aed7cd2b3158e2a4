from __future__ import annotations

import numpy as np
import pytest

from redteam.pictures import Pictures


def made(count: int) -> Pictures:
    rng = np.random.default_rng(count)
    return Pictures(
        rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8),
        rng.random((count, 8)).astype(np.float16),
        rng.integers(0, 2**63, count).astype(np.uint64),
        rng.dirichlet(np.ones(3), count).astype(np.float32),
        np.array([f"label {number}" for number in range(count)], np.str_),
    )


@pytest.mark.parametrize(
    "rows", [slice(1, 4), np.array([4, 0, 0]), np.array([True, False, False, True, True])]
)
def test_rows_stay_together(rows: slice | np.ndarray) -> None:
    five = made(5)
    some = five[rows]
    kept = np.arange(5)[rows]
    assert len(some) == len(kept)
    assert some.labels.tolist() == [f"label {row}" for row in kept]
    assert np.array_equal(some.pixels, five.pixels[kept])
    assert np.array_equal(some.answers, five.answers[kept])


def test_join_undoes_cutting_and_takes_empty_parts() -> None:
    five = made(5)
    again = Pictures.join([five[:2], five[2:2], five[2:]])
    assert np.array_equal(again.embeddings, five.embeddings)
    assert again.labels.tolist() == five.labels.tolist()


def test_margin_is_best_minus_second() -> None:
    five = made(5)
    ordered = np.sort(five.answers, axis=1)
    assert np.allclose(five.margins, ordered[:, -1] - ordered[:, -2])
    assert five.margins.dtype == np.float32
