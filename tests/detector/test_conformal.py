"""Conformal p-values: valid for exchangeable data, in every group; and how cells are merged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from detector.conformal import Calibration

CENTROIDS = np.array([[0.0, 0.0], [1.0, 0.0], [10.0, 0.0], [11.0, 0.0]])


def test_a_p_value_is_the_rank_among_the_group() -> None:
    calibration = Calibration.fit(
        np.array([1.0, 2.0, 3.0, 10.0]), np.array([0, 0, 0, 2]), CENTROIDS[[0, 1, 2]], minimum=1
    )
    assert calibration.group_of_cell[0] == calibration.group_of_cell[1] != calibration.group_of_cell[2]
    scores = np.array([0.0, 2.0, 2.5, 4.0, 4.0, 11.0])
    p = calibration.p_values(scores, np.array([0, 0, 1, 1, 2, 2]))
    assert p.tolist() == [1.0, 3 / 4, 2 / 4, 1 / 4, 1.0, 1 / 2]
    assert calibration.p_values(np.zeros(0), np.zeros(0, np.int64)).shape == (0,)


def test_a_p_value_does_not_depend_on_the_batch() -> None:
    rng = np.random.default_rng(0)
    calibration = Calibration.fit(rng.normal(size=400), rng.integers(4, size=400), CENTROIDS, minimum=50)
    scores, cells = rng.normal(size=60), rng.integers(4, size=60)
    alone = [calibration.p_values(scores[i : i + 1], cells[i : i + 1])[0] for i in range(60)]
    assert calibration.p_values(scores, cells).tolist() == alone


@pytest.mark.parametrize("tau", [0.05, 0.01])
def test_exchangeable_queries_hit_no_more_often_than_the_level_in_every_group(tau: float) -> None:
    """Each trial draws its own calibration images, because the guarantee is over them too."""
    rng = np.random.default_rng(5)
    trials, hits = 6000, np.zeros(2, np.int64)
    cells = np.arange(2).repeat(120)
    for _ in range(trials):
        scale = np.array([1.0, 5.0])  # one region is much harder than the other
        calibration = Calibration.fit(
            rng.normal(size=240) * scale[cells], cells, CENTROIDS[[0, 2]], minimum=100
        )
        assert len(calibration.bounds) == 3
        hits += calibration.p_values(rng.normal(size=2) * scale, np.arange(2)) <= tau
    assert (hits <= binom.ppf(1 - 1e-6, trials, tau)).all()
    assert (hits >= binom.ppf(1e-6, trials, tau - 1 / 121)).all()  # and it is not trivially cautious


def test_poor_cells_join_their_neighbours_until_every_group_is_rich_enough() -> None:
    cells = np.array([0] * 150 + [1] * 60 + [2] * 140 + [3] * 70)
    calibration = Calibration.fit(np.arange(420.0), cells, CENTROIDS, minimum=100)
    assert calibration.group_of_cell.tolist() == [0, 0, 1, 1]
    assert np.diff(calibration.bounds).tolist() == [210, 210]
    for group in range(2):
        part = calibration.scores[calibration.bounds[group] : calibration.bounds[group + 1]]
        assert (np.diff(part) > 0).all()


def test_too_few_images_make_one_group() -> None:
    calibration = Calibration.fit(np.arange(12.0), np.arange(12) % 4, CENTROIDS, minimum=100)
    assert calibration.group_of_cell.tolist() == [0, 0, 0, 0]
    assert calibration.bounds.tolist() == [0, 12]


def test_in_many_dimensions_no_group_swallows_the_others() -> None:
    rng = np.random.default_rng(2)
    centroids = rng.normal(size=(60, 512))
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    calibration = Calibration.fit(rng.normal(size=3000), rng.integers(60, size=3000), centroids, minimum=200)
    sizes = np.diff(calibration.bounds)
    assert sizes.min() >= 200
    assert len(sizes) >= 5
