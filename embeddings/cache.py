"""Embeddings of pictures that were seen before."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embeddings.errors import EncoderError

if TYPE_CHECKING:
    from embeddings.encoder import EncoderIdentity

__all__ = ["EmbeddingCache"]


class EmbeddingCache:
    """A bounded map from a picture's content hash to its embedding by one encoder.

    The least recently used entry leaves first. A cache belongs to one encoder for life, so vectors of two
    encoders cannot meet in it. Safe to share between threads. An entry of 512 dimensions takes about 1.3 kB.

    Args:
        identity: of the encoder.
        entries: kept at most; 0 keeps none.

    Examples:
        >>> from embeddings.encoder import EncoderIdentity
        >>> cache = EmbeddingCache(EncoderIdentity("tiny", "0" * 64, 2), entries=1)
        >>> cache.put(b"cat", np.array([1, 0], np.float16))
        >>> cache.put(b"dog", np.array([0, 1], np.float16))
        >>> cache.get(b"cat") is None, cache.get(b"dog")
        (True, array([0., 1.], dtype=float16))
    """

    def __init__(self, identity: EncoderIdentity, entries: int = 65_536) -> None:
        if entries < 0:
            raise EncoderError(f"an embedding cache cannot hold {entries} entries; give 0 or more")
        self.identity = identity
        self._entries = entries
        self._vectors: OrderedDict[bytes, npt.NDArray[np.float16]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, content: bytes) -> npt.NDArray[np.float16] | None:
        """The embedding of a picture, shape (d,), read-only; None where it is not known (any more)."""
        with self._lock:
            vector = self._vectors.get(content)
            if vector is not None:
                self._vectors.move_to_end(content)
            return vector

    def put(self, content: bytes, embedding: npt.NDArray[np.float16]) -> None:
        """Remember an embedding.

        Args:
            content: hash of the encoded picture.
            embedding: float16, shape (d,). Copied, so that a batch is not kept alive by one of its rows.

        Raises:
            EncoderError: the vector is not one of this encoder's.
        """
        if embedding.dtype != np.float16 or embedding.shape != (self.identity.dim,):
            raise EncoderError(
                f"a {embedding.dtype} vector of shape {embedding.shape} is no embedding of "
                f"{self.identity.name}, "
                f"which gives float16 of shape ({self.identity.dim},)"
            )
        vector = embedding.copy()
        vector.flags.writeable = False
        with self._lock:
            self._vectors[content] = vector
            self._vectors.move_to_end(content)
            if len(self._vectors) > self._entries:
                self._vectors.popitem(last=False)
