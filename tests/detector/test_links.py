"""Which accounts belong together by what they ask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from detector.links import Content, Pool, complementary_slices, shared_duplicates
from tests.detector.world import DIM, foreign, native, normalised

NEAR = 0.95


def content(
    *accounts: npt.NDArray[np.float16], places: list[list[int]] | None = None, prints: int = 0
) -> Content:
    owners = np.repeat(np.arange(len(accounts)), [len(one) for one in accounts])
    return Content(
        np.concatenate(accounts).astype(np.float32),
        np.arange(1, len(owners) + 1, dtype=np.uint64) * np.uint64(prints * 0x9E3779B97F4A7C15 % 2**64),
        np.zeros(len(owners), np.int64) if places is None else np.concatenate(places),
        owners,
    )


def other_pool(n: int, seed: int) -> npt.NDArray[np.float16]:
    """Foreign pictures of another kind: far from the others in one direction."""
    vectors = foreign(n, seed).astype(np.float64)
    vectors[:, -1] += 1.5
    return normalised(vectors)


def test_shared_pictures_are_counted_for_both_accounts() -> None:
    theirs = foreign(8, seed=1)
    mine = np.concatenate([theirs[:3], foreign(4, seed=2)])
    both = content(mine, theirs, foreign(5, seed=3))
    assert shared_duplicates(both, both, NEAR) == {(0, 1): 3, (1, 0): 3}


def test_one_shared_picture_is_no_link() -> None:
    theirs = foreign(8, seed=1)
    both = content(np.concatenate([theirs[:1], foreign(4, seed=2)]), theirs)
    assert shared_duplicates(both, both, NEAR) == {}


def test_pictures_that_only_the_encoder_confuses_are_not_shared() -> None:
    both = content(foreign(8, seed=1), foreign(8, seed=1), prints=1)
    assert shared_duplicates(both, both, NEAR) == {}


def test_an_account_fits_its_pool_and_no_other() -> None:
    origin = native(500, seed=1).astype(np.float64).mean(axis=0)
    pools = content(*(foreign(8, seed=i) for i in range(6)), *(other_pool(8, seed=i) for i in range(6)))
    pool = Pool.of(pools, 12, origin)
    first = np.arange(12) < 6
    assert pool.fit(first).fits.tolist() == first.tolist()
    assert pool.fit(~first).fits.tolist() == (~first).tolist()
    assert abs(pool.fit(first).along[:6].mean() - 1) < 0.3


def test_honest_accounts_do_not_fit_a_foreign_pool() -> None:
    origin = native(500, seed=1).astype(np.float64).mean(axis=0)
    accounts = content(*(foreign(6, seed=i) for i in range(10)), *(native(6, seed=i) for i in range(50)))
    fits = Pool.of(accounts, 60, origin).fit(np.arange(60) < 10).fits
    assert fits[:10].sum() >= 9
    assert fits[10:].sum() <= 5


def test_nobody_fits_a_pool_that_is_like_other_clients_queries() -> None:
    origin = foreign(2000, seed=99).astype(np.float64).mean(axis=0)
    accounts = content(*(foreign(8, seed=i) for i in range(10)))
    assert not Pool.of(accounts, 10, origin).fit(np.ones(10, np.bool_)).fits.any()


def test_accounts_without_queries_fit_nothing() -> None:
    pool = Pool.of(content(foreign(8, seed=1), foreign(8, seed=2)), 4, np.zeros(DIM))
    assert not pool.fit(np.array([True, True, False, False])).fits[2:].any()


@pytest.mark.parametrize("accounts", [3, 5, 10])
def test_slices_are_found(accounts: int) -> None:
    places = [list(range(10 * i, 10 * i + 10)) * 2 for i in range(accounts)]
    sliced = content(*(foreign(20, seed=i) for i in range(accounts)), places=places)
    assert complementary_slices(sliced, accounts) == dict.fromkeys(range(accounts), 1.0)


def test_who_asks_everywhere_has_no_slice() -> None:
    rng = np.random.default_rng(1)
    places = [list(range(10 * i, 10 * i + 10)) * 2 for i in range(5)]
    places += [rng.integers(0, 50, 20).tolist() for _ in range(5)]
    mixed = content(*(foreign(20, seed=i) for i in range(10)), places=places)
    assert set(complementary_slices(mixed, 10)) <= set(range(5))
    spread = content(*(foreign(20, seed=i) for i in range(5)), places=places[5:])
    assert complementary_slices(spread, 5) == {}
    assert complementary_slices(content(foreign(3, seed=1), places=[[1, 2, 3]]), 1) == {}
