from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.distance import cdist

from detector.coverage_figures import (
    NEIGHBOURS,
    CoverageFigures,
    Neighbourhoods,
    coverage_of,
    unseen_mass,
    visited_mass,
)


def unit(n: int, seed: int, dim: int = 16) -> npt.NDArray[np.float16]:
    vectors = np.random.default_rng(seed).standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def test_visited_mass() -> None:
    mass = np.array([50, 30, 20])
    assert visited_mass(mass, np.array([], np.int64)) == 0.0
    assert visited_mass(mass, np.array([2, 2, 0])) == pytest.approx(0.7)
    assert visited_mass(mass, np.array([0, 1, 2])) == 1.0


def test_unseen_mass_is_about_right() -> None:
    """Good–Turing estimates the mass of the cells that a sample missed."""
    weights = np.random.default_rng(0).dirichlet(np.full(200, 0.5))
    errors = []
    for seed in range(50):
        cells = np.random.default_rng(seed).choice(200, 300, p=weights)
        errors.append(unseen_mass(cells) - weights[np.setdiff1d(np.arange(200), cells)].sum())
    assert abs(np.mean(errors)) < 0.01
    assert unseen_mass(np.array([], np.int64)) == 1.0
    assert unseen_mass(np.array([3, 3, 3])) == 0.0


def test_prdc_coverage_is_the_papers() -> None:
    reference, queries = unit(300, seed=1), unit(40, seed=2)
    neighbourhoods = Neighbourhoods.of(reference)
    assert neighbourhoods is not None
    apart = cdist(reference.astype(float), reference.astype(float))
    radius = np.sort(apart, axis=1)[:, NEIGHBOURS]  # the nearest is the picture itself
    nearest = cdist(reference.astype(float), queries.astype(float)).min(axis=1)
    assert neighbourhoods.covered(queries) == pytest.approx((nearest <= radius).mean(), abs=0.01)
    assert neighbourhoods.covered(queries[:0]) == 0.0
    assert neighbourhoods.covered(reference) == 1.0


def test_a_large_reference_is_thinned() -> None:
    neighbourhoods = Neighbourhoods.of(unit(2500, seed=3))
    assert neighbourhoods is not None
    assert len(neighbourhoods.pictures) == 834


def test_figures_without_a_reference() -> None:
    assert Neighbourhoods.of(unit(NEIGHBOURS, seed=4)) is None
    none = np.empty(0, np.int64)
    assert coverage_of(none, None, none, unit(3, seed=5)) == CoverageFigures(None, 1.0, None)
    assert coverage_of(np.array([4, 6]), None, np.array([1]), unit(3, seed=5)) == CoverageFigures(
        0.6, 1.0, None
    )
