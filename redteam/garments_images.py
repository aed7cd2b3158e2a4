"""The garments of the demo: Fashion-MNIST as it is read, split and stored."""

from __future__ import annotations

import gzip
import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from redteam.errors import SourceDataError

__all__ = [
    "LABELS",
    "SIDE",
    "Garments",
    "Split",
    "decode_png",
    "encode_png",
    "read_garments",
    "read_idx",
    "split",
]

SIDE = 28
LABELS = (
    "t-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


@dataclass(frozen=True, slots=True)
class Garments:
    """Fashion-MNIST, training part first, without exact duplicates (the first copy stays).

    Attributes:
        images: grey values, uint8, shape (n, 28, 28).
        labels: index into ``LABELS``, int64, shape (n,).
        test: whether the picture is of the test part, bool, shape (n,).
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    test: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Split:
    """Indices into ``Garments``, pairwise disjoint, int64, one-dimensional.

    Attributes:
        classifier: training pictures of the endpoint's classifier.
        reference: what the owner fits the baseline on; the same number of every label.
        donors: lend their grey values to the drawings; never queried themselves.
        trusted: what the clients of the trusted history ask.
        log: what the clients of the log ask.
    """

    classifier: npt.NDArray[np.int64]
    reference: npt.NDArray[np.int64]
    donors: npt.NDArray[np.int64]
    trusted: npt.NDArray[np.int64]
    log: npt.NDArray[np.int64]


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    Raises:
        SourceDataError: the file is missing or is no IDX file of unsigned bytes.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except OSError as error:
        raise SourceDataError(f"{path}: cannot be read ({error}); install dataset-fashion-mnist") from error
    if data[:3] != b"\0\0\x08":
        raise SourceDataError(f"{path}: not an IDX file of unsigned bytes")
    rank = data[3]
    shape = struct.unpack_from(f">{rank}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_garments(folder: Path) -> Garments:
    """Read both parts of Fashion-MNIST and drop exact duplicates.

    Args:
        folder: holds ``train-images-idx3-ubyte.gz`` and its three companions.

    Raises:
        SourceDataError: a file is missing or malformed.
    """
    parts = ("train", "t10k")
    images = [read_idx(folder / f"{part}-images-idx3-ubyte.gz") for part in parts]
    labels = [read_idx(folder / f"{part}-labels-idx1-ubyte.gz") for part in parts]
    stacked = np.concatenate(images)
    rows = stacked.reshape(len(stacked), -1)
    first = np.sort(np.unique(rows, axis=0, return_index=True)[1])
    test = np.arange(len(stacked)) >= len(images[0])
    return Garments(stacked[first], np.concatenate(labels)[first].astype(np.int64), test[first])


def split(garments: Garments, rng: np.random.Generator, *, spare: int = 5_000, per_label: int = 200) -> Split:
    """Part the pictures so that nothing serves twice.

    The training part gives the classifier, the reference and the donors; the test part, which the
    classifier never saw, gives the queries, half to the trusted history and half to the log.

    Args:
        garments: what to part.
        rng: decides the order.
        spare: training pictures kept from the classifier, for the reference and the donors.
        per_label: reference pictures of each label.

    Raises:
        SourceDataError: a label has too few spare pictures.
    """
    train = rng.permutation(np.flatnonzero(~garments.test))
    queried = rng.permutation(np.flatnonzero(garments.test))
    kept = train[:spare]
    of_label = [kept[garments.labels[kept] == label][:per_label] for label in range(len(LABELS))]
    short = [LABELS[label] for label, indices in enumerate(of_label) if len(indices) < per_label]
    if short:
        raise SourceDataError(f"fewer than {per_label} spare pictures of {', '.join(short)}; raise spare")
    reference = rng.permutation(np.concatenate(of_label))
    half = len(queried) // 2
    return Split(
        classifier=train[spare:],
        reference=reference,
        donors=np.setdiff1d(kept, reference),
        trusted=queried[:half],
        log=queried[half:],
    )


def encode_png(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode one grey picture, shape (28, 28), as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def decode_png(data: bytes) -> npt.NDArray[np.uint8]:
    """Undo ``encode_png``."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        return np.asarray(picture, np.uint8)
