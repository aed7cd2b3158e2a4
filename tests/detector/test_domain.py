"""The out-of-domain score against its definition, and its sameness in every batch."""

from __future__ import annotations

import numpy as np
import pytest

from detector.base_domain import PROBES
from detector.domain import Domain, product
from tests.detector.world import DIM, baseline, foreign, native, normalised


@pytest.fixture(scope="module")
def domain() -> Domain:
    return baseline().domain


def test_the_score_is_the_sum_of_two_standardised_parts(domain: Domain) -> None:
    queries = np.concatenate([native(30, seed=70), foreign(30, seed=70)])
    scores, cells = domain.score(queries)
    x = queries.astype(np.float64)
    reference = domain.reference.astype(np.float64)
    home = np.argmax(reference @ domain.centroids.T, axis=1)
    for i, one in enumerate(x):
        centred = one - domain.mean
        residual = np.linalg.norm(centred - domain.components @ (domain.components.T @ centred))
        order = np.argsort(-(domain.centroids @ one))
        assert cells[i] == order[0]
        similar = np.sort(reference[np.isin(home, order[:PROBES])] @ one)[::-1]
        parts = np.array([residual, 1.0 - similar[domain.neighbours - 1]])
        assert scores[i] == pytest.approx(((parts - domain.location) / domain.scale).sum(), abs=1e-4)


def test_a_query_has_the_same_score_in_every_batch(domain: Domain) -> None:
    queries = np.concatenate([native(1500, seed=71), foreign(800, seed=71)])  # more than a block
    scores, cells = domain.score(queries)
    rng = np.random.default_rng(0)
    for _ in range(12):
        part = rng.choice(len(queries), size=int(rng.integers(1, 300)), replace=False)
        some, where = domain.score(queries[part])
        assert some.tobytes() == scores[part].tobytes()
        assert where.tobytes() == cells[part].tobytes()
    assert (scores == scores.astype(np.float32)).all()


def test_foreign_queries_score_higher(domain: Domain) -> None:
    assert domain.score(foreign(200, seed=72))[0].min() > np.median(domain.score(native(200, seed=72))[0])


def test_the_index_keeps_every_bit_of_the_reference(domain: Domain) -> None:
    similar, found = domain.index.search(domain.reference[:50].astype(np.float32), 1)
    exact = (domain.reference[:50].astype(np.float64) ** 2).sum(axis=1)
    assert found[:, 0].tolist() == list(range(50))
    np.testing.assert_allclose(similar[:, 0], exact, atol=1e-6)


def test_a_cell_with_fewer_images_than_neighbours_is_as_far_as_can_be() -> None:
    vectors = native(30, seed=73)
    domain = Domain.fit(vectors[:12], vectors[12:], neighbours=12)
    assert np.isfinite(domain.score(foreign(20, seed=73))[0]).all()
    empty = Domain(
        domain.reference[:3], domain.mean, domain.components, domain.centroids, 12, np.zeros(2), np.ones(2)
    )
    parts, _ = empty._parts(vectors)
    assert (parts[:, 1] == 2.0).all()


def test_nearest_cells_come_best_first(domain: Domain) -> None:
    similarity = np.random.default_rng(0).normal(size=(20, 9))
    assert domain.nearest_cells(similarity).tolist() == np.argsort(-similarity, axis=1)[:, :PROBES].tolist()
    assert domain.nearest_cells(similarity[:, :2]).shape == (20, 2)


def test_zero_and_opposite_vectors_are_scored_like_any_other(domain: Domain) -> None:
    queries = np.concatenate([np.zeros((1, DIM)), -domain.centroids[:1].astype(np.float64)])
    assert np.isfinite(domain.score(queries.astype(np.float16))[0]).all()


def test_one_thread_makes_the_same_product() -> None:
    a = normalised(np.random.default_rng(0).normal(size=(50, DIM))).astype(np.float64)
    np.testing.assert_allclose(product(a, a.T), a @ a.T, atol=1e-12)
    assert product(a.astype(np.float32), a.T.astype(np.float32)).dtype == np.float32
