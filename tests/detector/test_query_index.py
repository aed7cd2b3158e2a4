"""The duplicate rule, and the index that it asks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from detector.errors import DetectorError
from detector.groups import NETWORK
from detector.perturbation import FINGERPRINT_BITS
from detector.query_index import NO_OWNER, QueryIndex, QueryPool, owner_of
from detector.subjects import CLIENT, SubjectKey
from tests.detector.world import DIM, baseline, foreign, normalised

NEAR = 0.95


def index(kinds: int = 1, half: int = 64, count: int = 0) -> QueryIndex:
    return QueryIndex(baseline().domain, kinds, NEAR, half=half, count=count)


def pool(
    embeddings: np.ndarray, owners: list[int] | list[list[int]], fingerprints: list[int] | None = None
) -> QueryPool:
    n = len(embeddings)
    return QueryPool(
        embeddings.astype(np.float16),
        np.array([0] * n if fingerprints is None else fingerprints, np.uint64),
        np.array(owners, np.int64).reshape(n, np.size(owners) // n if n else 1),
    )


def at_similarity(vector: np.ndarray, similarity: float, seed: int = 0) -> np.ndarray:
    """A direction with this cosine to ``vector``, shape (1, d)."""
    vector = vector.astype(np.float64) / np.linalg.norm(vector.astype(np.float64))
    other = np.random.default_rng(seed).normal(size=vector.shape)
    other -= (other @ vector) * vector
    other /= np.linalg.norm(other)
    return normalised((similarity * vector + np.sqrt(1 - similarity**2) * other)[None])


@pytest.fixture(params=["one batch", "one by one"])
def duplicates(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """Judge a pool in both ways; what is a duplicate must not depend on it."""

    def judge(queries: QueryPool) -> list[list[bool]]:
        one = index(queries.owners.shape[1])
        parts = (
            [queries] if request.param == "one batch" else [queries[i : i + 1] for i in range(len(queries))]
        )
        return [row for part in parts for row in one.observe(part)[0].tolist()]

    return judge


def test_exact_and_near_repeats_are_duplicates_and_others_are_not(duplicates) -> None:  # type: ignore[no-untyped-def]
    a, b = foreign(2, seed=1)
    queries = np.concatenate([[a], [b], [a], at_similarity(a, NEAR + 0.01), at_similarity(a, NEAR - 0.01)])
    assert duplicates(pool(queries, [1] * 5)) == [[False], [False], [True], [True], [False]]


def test_the_same_embedding_of_unlike_pictures_is_no_duplicate(duplicates) -> None:  # type: ignore[no-untyped-def]
    a = foreign(1, seed=1).repeat(5, axis=0)
    first = 0x0F0F0F0F
    like, unlike = first ^ (2**FINGERPRINT_BITS - 1) << 20, first ^ (2 ** (FINGERPRINT_BITS + 1) - 1) << 20
    assert duplicates(pool(a, [1] * 5, [first, like, unlike, unlike, 0])) == [
        [False],
        [True],
        [False],
        [True],
        [True],  # an embedding without a picture is compared as an embedding
    ]


def test_other_clients_copies_are_not_ones_own_however_many(duplicates) -> None:  # type: ignore[no-untyped-def]
    a = foreign(1, seed=1).repeat(43, axis=0)
    owners = [1, *range(2, 42), 1, 50]
    seen = duplicates(pool(a, owners))
    assert [row[0] for row in seen] == [False] * 41 + [True, False]


def test_each_group_has_its_own_duplicates(duplicates) -> None:  # type: ignore[no-untyped-def]
    a = foreign(1, seed=1).repeat(5, axis=0)
    owners = [[1, 10], [2, 10], [1, 20], [1, 20], [3, NO_OWNER]]
    assert duplicates(pool(a, owners)) == [
        [False, False],
        [False, True],
        [True, False],
        [True, True],  # the repeat from the second network was remembered there
        [False, False],
    ]


def test_a_chain_of_small_steps_is_not_one_picture(duplicates) -> None:  # type: ignore[no-untyped-def]
    """Only novel queries are compared with: the third is near the second, which was a duplicate itself."""
    a, b = foreign(2, seed=1).astype(np.float64)
    b -= (a @ b) * a
    steps = [np.cos(t) * a + np.sin(t) * b / np.linalg.norm(b) for t in (0.0, 0.25, 0.5, 0.75)]
    assert np.cos(0.25) > NEAR + 0.01 > NEAR - 0.01 > np.cos(0.5)
    assert duplicates(pool(normalised(np.array(steps)), [1] * 4)) == [[False], [True], [False], [True]]


def test_numbers_run_over_novel_queries_only() -> None:
    a = foreign(3, seed=2)
    one = index()
    _, numbers = one.observe(pool(a[[0, 0, 1]], [1, 1, 1]))
    assert numbers.tolist() == [0, -1, 1]
    assert one.observe(pool(a[[2]], [1]))[1].tolist() == [2]
    assert one.count == 3
    assert one.observe(pool(a[:0], []))[0].shape == (0, 1)


def test_between_one_and_two_generations_are_remembered() -> None:
    a = foreign(160, seed=3)
    one = index(half=64)
    one.observe(pool(a[:64], [1] * 64))
    assert one.observe(pool(a[:1], [1]))[0].all()
    one.observe(pool(a[64:127], [1] * 63))
    assert one.observe(pool(a[:1], [1]))[0].all()  # number 0 is 127 back
    one.observe(pool(a[127:128], [1]))
    assert QueryIndex.first_needed(one.count, 64) == 64
    assert not one.observe(pool(a[:1], [1]))[0].any()  # its generation has gone
    assert one.observe(pool(a[64:65], [1]))[0].all()


def crowd(n: int = 700) -> QueryPool:
    """Copies, near copies and near misses, of many owners; some pictures many times over."""
    rng = np.random.default_rng(4)
    base = foreign(60, seed=5)
    picked = base[rng.integers(60, size=n) % rng.integers(1, 61, size=n)].astype(np.float64)
    jitter = rng.normal(size=(n, DIM)) * rng.choice([0.0, 0.03, 0.057, 0.08], size=n)[:, None]
    owners = np.stack([rng.integers(1, 9, size=n), rng.integers(0, 5, size=n), np.ones(n)], axis=1)
    prints = rng.choice(np.array([0, 7, 15, 2**40 - 1], np.uint64), size=n)
    return QueryPool(normalised(picked + jitter), prints, owners.astype(np.int64))


@pytest.mark.parametrize("seed", range(4))
def test_cuts_and_restarts_change_nothing(seed: int) -> None:
    queries = crowd()
    whole = index(3)
    seen, numbers = whole.observe(queries)
    assert whole.count > 4 * 64
    assert ((seen.mean(axis=0) > 0.05) & (seen.mean(axis=0) < 0.8)).all()
    rng = np.random.default_rng(seed)
    edges = [0, *sorted(set(rng.integers(1, 700, size=40).tolist())), 700]
    if seed == 0:
        edges = list(range(701))
    one = index(3)
    for first, last in pairwise(edges):
        part_seen, part_numbers = one.observe(queries[first:last])
        assert part_seen.tolist() == seen[first:last].tolist()
        assert part_numbers.tolist() == numbers[first:last].tolist()
        if rng.random() < 0.2:
            stored = queries[numbers >= 0]
            count = one.count
            one = index(3, count=count)
            one.restore(stored[QueryIndex.first_needed(count, 64) : count])


def test_the_answer_is_that_of_comparing_with_every_remembered_query() -> None:
    queries = crowd(400)
    seen, numbers = index(3, half=512).observe(queries)
    similar = queries.embeddings.astype(np.float64) @ queries.embeddings.astype(np.float64).T
    cells = baseline().domain.centroids
    probed = index(3)._cells(queries)
    assert len(cells) > probed.shape[1]
    for i in range(400):
        before = np.flatnonzero(numbers[:i] >= 0)
        bits = np.bitwise_count(queries.fingerprints[before] ^ queries.fingerprints[i])
        pictures = (queries.fingerprints[before] != 0) & (queries.fingerprints[i] != 0)
        near = (similar[i, before] >= NEAR) & ~(pictures & (bits > FINGERPRINT_BITS))
        near &= np.isin(probed[before, 0], probed[i])
        same = (queries.owners[before] == queries.owners[i]) & (queries.owners[i] != NO_OWNER)
        assert seen[i].tolist() == (same & near[:, None]).any(axis=0).tolist()


def test_restoring_another_number_of_queries_is_an_error() -> None:
    with pytest.raises(DetectorError, match="expected 10"):
        index(count=10).restore(pool(foreign(9, seed=1), [1] * 9))


def test_owners_are_numbers_that_do_not_change() -> None:
    key = SubjectKey(CLIENT, "key-7f3a")
    assert owner_of(key) == owner_of(SubjectKey(*key)) == 7835221019502286113
    assert owner_of(None) == NO_OWNER
    owners = {owner_of(SubjectKey(kind, str(i))) for kind in (CLIENT, NETWORK) for i in range(1000)}
    assert len(owners) == 2000
    assert all(0 < owner < 2**63 for owner in owners)
