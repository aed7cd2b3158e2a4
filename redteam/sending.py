"""What the endpoint makes of a picture that arrives: decoded, encoded and fingerprinted, each once ever."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from detector.baseline import EncoderKey
from embeddings.checkpoints import COMPACT, resolve
from embeddings.decoding import decode, fingerprint
from embeddings.encoder import Encoder

__all__ = ["Encoded", "Sender"]

Encoded = tuple[npt.NDArray[np.float16], npt.NDArray[np.uint64]]
"""Embeddings, L2-normalised, shape (n, d), and fingerprints, shape (n,)."""

_CHUNK = 512
_TABLE = """
CREATE TABLE IF NOT EXISTS encoded (
    weights TEXT, content BLOB, embedding BLOB, fingerprint BLOB, PRIMARY KEY (weights, content)
) WITHOUT ROWID
"""


class Sender:
    """Encodes pictures as the product does, and keeps what it made on disk by the picture's content.

    The store is one SQLite file that several processes may share. It is written after every few hundred
    pictures, so that what was interrupted goes on where it stopped. The encoder is loaded on the first
    picture that the store does not know.

    Args:
        store: the file; made if missing, with its folder.
        spec: of the encoder, as `embeddings.encoder.Encoder.load` takes it.

    Attributes:
        key: which encoder it is.
    """

    def __init__(self, store: Path, spec: str = COMPACT) -> None:
        self._store = store
        self._spec = spec
        self._encoder: Encoder | None = None
        self._process = os.getpid()
        store.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as connection, connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(_TABLE)
        checkpoint = resolve(spec)
        self.key = EncoderKey(
            checkpoint.name,
            checkpoint.sha256 or self.encoder.identity.weights,
            int(checkpoint.model["embed_dim"]),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}

    @property
    def encoder(self) -> Encoder:
        """The encoder of this process: its threads do not survive a fork."""
        if self._encoder is None or self._process != os.getpid():
            self._encoder = Encoder.load(self._spec, device="cpu")
            self._process = os.getpid()
        return self._encoder

    def files(
        self, files: Sequence[bytes], on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Encoded:
        """Encode pictures as they were sent, in any format and size.

        Args:
            files: encoded pictures.
            on_progress: hears how many are done, of how many.

        Raises:
            DecodeError: one of them is no picture.
        """

        def read(row: int) -> tuple[npt.NDArray[np.uint8], int]:
            picture = decode(files[row], self.encoder.preprocess)
            return picture.pixels, picture.fingerprint

        return self._encode([_digest(b"file", file) for file in files], read, on_progress)

    def pixels(
        self,
        pixels: npt.NDArray[np.uint8],
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Encoded:
        """Encode pictures that are sent without loss (as PNG), which leaves the pixels as they are.

        Args:
            pixels: uint8, shape (n, side, side, 3).
            on_progress: hears how many are done, of how many.
        """

        def read(row: int) -> tuple[npt.NDArray[np.uint8], int]:
            picture = Image.fromarray(pixels[row])
            return self.encoder.preprocess.fit(picture), fingerprint(picture)

        shape = repr(pixels.shape[1:]).encode()
        return self._encode([_digest(shape, row.tobytes()) for row in pixels], read, on_progress)

    def _encode(
        self,
        contents: list[bytes],
        read: Callable[[int], tuple[npt.NDArray[np.uint8], int]],
        on_progress: Callable[[int, int], None],
    ) -> Encoded:
        embeddings = np.empty((len(contents), self.key.dim), np.float16)
        fingerprints = np.empty(len(contents), np.uint64)
        with closing(self._connect()) as connection:
            for rows in _chunks(len(contents)):
                known = self._known(connection, [contents[row] for row in rows])
                new = {contents[row]: row for row in rows if contents[row] not in known}
                if new:
                    made = self._fresh(new, read)
                    with connection:
                        connection.executemany(
                            "INSERT OR IGNORE INTO encoded VALUES (?, ?, ?, ?)",
                            [(self.key.weights, content, *made[content]) for content in new],
                        )
                    known |= made
                for row in rows:
                    embedding, bits = known[contents[row]]
                    embeddings[row] = np.frombuffer(embedding, np.float16)
                    fingerprints[row] = int.from_bytes(bits, "big")
                on_progress(rows[-1] + 1, len(contents))
        return embeddings, fingerprints

    def _fresh(
        self, new: dict[bytes, int], read: Callable[[int], tuple[npt.NDArray[np.uint8], int]]
    ) -> dict[bytes, tuple[bytes, bytes]]:
        pictures = [read(row) for row in new.values()]
        embedded = self.encoder.embed(np.stack([pixels for pixels, _ in pictures]))
        return {
            content: (vector.tobytes(), bits.to_bytes(8, "big"))
            for content, vector, (_, bits) in zip(new, embedded, pictures, strict=True)
        }

    def _known(
        self, connection: sqlite3.Connection, contents: list[bytes]
    ) -> dict[bytes, tuple[bytes, bytes]]:
        marks = ",".join("?" * len(contents))
        rows = connection.execute(
            f"SELECT content, embedding, fingerprint FROM encoded WHERE weights = ? AND content IN ({marks})",
            [self.key.weights, *contents],
        )
        return {content: (embedding, bits) for content, embedding, bits in rows}

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._store, timeout=120)


def _digest(kind: bytes, content: bytes) -> bytes:
    return blake2b(content, digest_size=16, key=kind).digest()


def _chunks(count: int) -> Iterator[range]:
    for first in range(0, count, _CHUNK):
        yield range(first, min(first + _CHUNK, count))
