from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embeddings.cache import EmbeddingCache
from embeddings.encoder import EncoderIdentity
from embeddings.errors import EncoderError

IDENTITY = EncoderIdentity("tiny", "0" * 64, 4)


def vector(value: float) -> np.ndarray:
    return np.full(4, value, np.float16)


def test_the_least_recently_used_leaves_first() -> None:
    cache = EmbeddingCache(IDENTITY, entries=2)
    cache.put(b"a", vector(1))
    cache.put(b"b", vector(2))
    assert cache.get(b"a") is not None
    cache.put(b"c", vector(3))
    assert cache.get(b"b") is None
    np.testing.assert_array_equal(cache.get(b"a"), vector(1))
    np.testing.assert_array_equal(cache.get(b"c"), vector(3))
    assert len(cache) == 2


def test_a_row_does_not_keep_its_batch_alive() -> None:
    cache = EmbeddingCache(IDENTITY, entries=10)
    batch = np.zeros((100, 4), np.float16)
    cache.put(b"a", batch[3])
    batch[3] = 9
    kept = cache.get(b"a")
    assert kept is not None
    assert kept.base is None
    np.testing.assert_array_equal(kept, vector(0))
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1


@pytest.mark.parametrize(
    "wrong", [np.zeros(4, np.float32), np.zeros(5, np.float16), np.zeros((1, 4), np.float16)]
)
def test_vectors_of_another_encoder_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(EncoderError, match="no embedding of tiny"):
        EmbeddingCache(IDENTITY).put(b"a", wrong)


def test_no_entries_keep_nothing_and_fewer_are_refused() -> None:
    cache = EmbeddingCache(IDENTITY, entries=0)
    cache.put(b"a", vector(1))
    assert cache.get(b"a") is None
    with pytest.raises(EncoderError, match="-1"):
        EmbeddingCache(IDENTITY, entries=-1)


def test_memory_is_bounded() -> None:
    cache = EmbeddingCache(IDENTITY, entries=100)
    for i in range(10_000):
        cache.put(i.to_bytes(16, "big"), vector(i % 7))
    assert len(cache) == 100
    assert sys.getsizeof(cache._vectors) < 50_000


def test_threads_may_share_it() -> None:
    cache = EmbeddingCache(IDENTITY, entries=50)

    def work(seed: int) -> None:
        for i in range(2000):
            key = ((i * seed) % 97).to_bytes(16, "big")
            found = cache.get(key)
            if found is None:
                cache.put(key, vector((i * seed) % 97))
            else:
                assert found[0] == (i * seed) % 97

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, (1, 3, 5, 7)))
    assert len(cache) == 50
