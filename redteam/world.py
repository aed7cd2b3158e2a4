"""One protected domain, parted once and for all: who may use which picture.

Every picture of the domain serves one party only. What is expensive (embeddings, the victim's training) is
done once and kept in the cache; loading it again takes seconds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image

from detector.baseline import EncoderKey
from embeddings.checkpoints import COMPACT
from embeddings.decoding import decode
from embeddings.errors import DecodeError
from embeddings.preprocess import Preprocess
from redteam.errors import RedteamError, SourceDataError
from redteam.pictures import Pictures
from redteam.sending import Encoded, Sender
from redteam.victims import Victim, load_victim, save_victim, train_victim

__all__ = ["World", "load_world"]

Progress = Callable[[str, int, int], None]

_EDITION = 1
"""Raised when the cached files would mean something else."""

_SEED = 2026
_TRAIN, _TEST, _POOL = 20_000, 8_000, 12_000
"""Pictures used at most of the two splits of the domain, and of each foreign pool."""

_OF_TRAIN = {"victim": 0.3, "reference": 0.4, "trusted": 0.15, "thief": 0.15}
_OF_TEST = {"benign": 0.75, "exam": 0.25}
_LESSONS = 168_000
"""Pictures that a victim is shown in its training: a small domain goes through more epochs."""
_LARGEST = 64
"""Longest side of the domain's pictures; the clients of an endpoint with larger ones send thumbnails."""


@dataclass(frozen=True)
class World:
    """A domain, its victim, and everybody's pictures.

    Attributes:
        name: of the domain.
        classes: the victim's, in the order of its scores.
        encoder: the detector's.
        reference: what the baseline is fitted on; the victim saw them too.
        trusted: what the clients of the trusted history draw from.
        benign: what the honest clients of the evaluation draw from.
        thief: pictures of the domain that a thief holds; also the seeds of JBDA and T-RND.
        exam: held out by the owner, to measure agreement on.
        pools: foreign pictures by name; none of them is also in the domain.
        victim: the model that is stolen.
        sender: encodes fresh pictures.
        home: this world's folder in the cache; what a thief trains once may be kept there.
    """

    name: str
    classes: tuple[str, ...]
    encoder: EncoderKey
    reference: Pictures
    trusted: Pictures
    benign: Pictures
    thief: Pictures
    exam: Pictures
    pools: Mapping[str, Pictures]
    victim: Victim
    sender: Sender
    home: Path

    @property
    def side(self) -> int:
        """Of the pictures that the victim sees, in pixels."""
        return int(self.exam.pixels.shape[1])

    def send(self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.str_] | None = None) -> Pictures:
        """Ask fresh pictures; the encoder's work is cached on disk by their content.

        Args:
            pixels: uint8, shape (n, side, side, 3).
            labels: what they show, where it is known.
        """
        embeddings, fingerprints = self.sender.pixels(pixels)
        known = np.full(len(pixels), "", np.str_) if labels is None else labels
        return Pictures(pixels, embeddings, fingerprints, self.victim.scores(pixels), known)


def load_world(
    data: Path,
    cache: Path,
    domain: str = "cifar10",
    *,
    small: bool = False,
    encoder: str = COMPACT,
    on_progress: Progress = lambda what, done, total: None,
) -> World:
    """Read, part, train and encode; or read what an earlier call left in the cache.

    Args:
        data: holds ``NAME.parquet`` files with the columns ``image`` (encoded bytes), ``label`` and
            ``split``. The domain's has the splits ``train`` and ``test``. Every other file is a foreign
            pool: its split ``pool``, or all of it where it has none.
        cache: folder for everything that is computed once.
        domain: name of the protected domain's file.
        small: a tenth of the pictures and a short training.
        encoder: as `embeddings.encoder.Encoder.load` takes it.
        on_progress: hears what is being done, how much of it, of how much.

    Raises:
        SourceDataError: a file is missing or malformed, or a split has too few pictures.
        EncoderError: the encoder cannot be loaded.
    """
    scale = 10 if small else 1
    paths = _sources(data, domain)
    sender = Sender(cache / "encoded.sqlite", encoder)
    home = cache / "-".join(
        [domain, *(["small"] if small else []), _digest(paths[domain], sender.key, scale)]
    )
    home.mkdir(parents=True, exist_ok=True)
    files = _Files(home, sender, on_progress)
    if not (home / "parts.npz").exists():
        _save(home / "parts.npz", _part(paths[domain], scale))
    with np.load(home / "parts.npz") as stored:
        parts = {name: (stored[f"{name}-pixels"], stored[f"{name}-labels"]) for name in _OF_TRAIN | _OF_TEST}
    side = parts["exam"][0].shape[1]
    victim = _victim(home, parts, on_progress)
    made = {name: files.domain(name, *parts[name], victim) for name in parts if name != "victim"}
    # Shown to nobody but the victim; kept out of the foreign pools all the same.
    owned = {_content(row) for pixels, _ in parts.values() for row in pixels}
    pools = {
        name: files.pool(name, path, victim, owned=owned, side=side, most=_POOL // scale)
        for name, path in paths.items()
        if name != domain
    }
    return World(
        domain, victim.classes, sender.key, **made, pools=pools, victim=victim, sender=sender, home=home
    )


class _Files:
    """Parts and pools in the cache, one npz file each."""

    def __init__(self, home: Path, sender: Sender, on_progress: Progress) -> None:
        self._home, self._sender, self._on_progress = home, sender, on_progress

    def domain(
        self, name: str, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.str_], victim: Victim
    ) -> Pictures:
        """A part of the domain. Its pixels are what is sent: larger pictures were made thumbnails before."""
        path = self._home / f"{name}.npz"
        if not path.exists():
            encoded = self._sender.pixels(pixels, lambda done, total: self._on_progress(name, done, total))
            self._write(path, pixels, labels, encoded, victim)
        return _read(path)

    def pool(
        self, name: str, source: Path, victim: Victim, *, owned: set[bytes], side: int, most: int
    ) -> Pictures:
        """A foreign pool, in random order; its pictures are sent as the files they are."""
        path = self._home / f"pool-{name}-{_digest(source)}.npz"
        if not path.exists():
            images, labels, splits = _table(source)
            rows = np.flatnonzero(splits == "pool") if "pool" in splits else np.arange(len(images))
            rows = np.random.default_rng(_SEED).permutation(rows)
            kept: dict[bytes, tuple[int, npt.NDArray[np.uint8]]] = {}
            for row, pixels in _decoded(images, rows, side):
                if _content(pixels) not in owned:
                    kept.setdefault(_content(pixels), (row, pixels))
                if len(kept) == most:
                    break
            if not kept:
                raise SourceDataError(f"{source}: no picture that could serve as a foreign pool")
            chosen = [row for row, _ in kept.values()]
            encoded = self._sender.files(
                [images[row] for row in chosen], lambda done, total: self._on_progress(name, done, total)
            )
            self._write(path, np.stack([made for _, made in kept.values()]), labels[chosen], encoded, victim)
        return _read(path)

    def _write(
        self,
        path: Path,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.str_],
        encoded: Encoded,
        victim: Victim,
    ) -> None:
        embeddings, fingerprints = encoded
        _save(
            path,
            {
                "pixels": pixels,
                "embeddings": embeddings,
                "fingerprints": fingerprints,
                "answers": victim.scores(pixels),
                "labels": labels,
            },
        )


def _sources(data: Path, domain: str) -> dict[str, Path]:
    paths = {path.stem: path for path in sorted(data.glob("*.parquet"))}
    if domain not in paths:
        raise SourceDataError(
            f"{data} holds no {domain}.parquet; it holds {', '.join(paths) or 'no Parquet file'}"
        )
    return paths


def _table(path: Path) -> tuple[list[bytes], npt.NDArray[np.str_], npt.NDArray[np.str_]]:
    table = pq.read_table(path)
    missing = {"image", "label", "split"} - set(table.column_names)
    if missing:
        raise SourceDataError(
            f"{path} has no column {', '.join(sorted(missing))}; it needs image, label, split"
        )
    labels = np.array([str(label) for label in table["label"].to_pylist()], np.str_)
    splits = np.array([str(split) for split in table["split"].to_pylist()], np.str_)
    return table["image"].to_pylist(), labels, splits


def _part(path: Path, scale: int) -> dict[str, npt.NDArray[Any]]:
    """The domain's parts as ``PART-pixels`` and ``PART-labels``: by image, stratified, disjoint."""
    images, labels, splits = _table(path)
    rng = np.random.default_rng(_SEED)
    side = _side(path, images, splits)
    parts: dict[str, npt.NDArray[Any]] = {}
    seen: set[bytes] = set()
    for split, shares, most in (("train", _OF_TRAIN, _TRAIN), ("test", _OF_TEST, _TEST)):
        fresh: list[int] = []
        pixels: list[npt.NDArray[np.uint8]] = []
        for row, picture in _decoded(images, np.flatnonzero(splits == split), side):
            if _content(picture) not in seen:
                seen.add(_content(picture))
                fresh.append(row)
                pixels.append(picture)
        order = _stratified(labels[fresh], rng)[: most // scale]
        bounds = np.round(np.cumsum([0, *shares.values()]) * len(order)).astype(int)
        for name, first, last in zip(shares, bounds[:-1], bounds[1:], strict=True):
            if last - first < 20:
                raise SourceDataError(
                    f"{path} gives {last - first} different pictures to the part {name!r}, of {len(order)} "
                    f"in its split {split!r}; a domain needs hundreds in both train and test"
                )
            chosen = order[first:last]
            parts[f"{name}-pixels"] = np.stack([pixels[row] for row in chosen])
            parts[f"{name}-labels"] = labels[fresh][chosen]
    return parts


def _side(path: Path, images: list[bytes], splits: npt.NDArray[np.str_]) -> int:
    """The shorter side that most of the first training pictures have, at most 64."""
    sides = []
    for row in np.flatnonzero(splits == "train")[:200]:
        try:
            sides.append(_size(images[row]))
        except OSError:
            continue
    if not sides:
        raise SourceDataError(f"{path} has no picture of the split 'train' that can be read")
    return min(max(set(sides), key=sides.count), _LARGEST)


def _size(image: bytes) -> int:
    with Image.open(BytesIO(image)) as opened:
        return min(opened.size)


def _decoded(
    images: list[bytes], rows: npt.NDArray[np.int64], side: int
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Rows with their pictures as the victim sees them; what cannot be decoded is left out."""
    thumbnail = Preprocess(size=side, mean=(0.0,) * 3, std=(1.0,) * 3)
    for row in rows:
        try:
            yield int(row), decode(images[row], thumbnail).pixels
        except DecodeError:
            continue


def _stratified(labels: npt.NDArray[np.str_], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A random order in which every stretch holds all classes in proportion."""
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        place[own] = (np.arange(len(own)) + rng.random(len(own))) / len(own)
    return np.argsort(place, kind="stable")


def _victim(
    home: Path,
    parts: Mapping[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]],
    on_progress: Progress,
) -> Victim:
    folder = home / "victim"
    side = parts["exam"][0].shape[1]
    if not folder.exists():
        pixels, labels = (
            np.concatenate([parts["victim"][column], parts["reference"][column]]) for column in (0, 1)
        )
        classes, targets = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise RedteamError(f"a victim needs two classes at least, not {len(classes)}: check the labels")
        victim = train_victim(
            pixels,
            targets,
            tuple(str(name) for name in classes),
            epochs=int(np.clip(_LESSONS // len(pixels), 12, 40)),
            on_progress=lambda done, total: on_progress("victim", done, total),
        )
        unfinished = home / f"victim-{os.getpid()}"
        save_victim(victim, unfinished)
        unfinished.rename(folder)
    return load_victim(folder, side)


def _content(pixels: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()


def _digest(path: Path, *also: object) -> str:
    """Twelve digits that name a file's content and what else matters."""
    digest = hashlib.sha256(f"{_EDITION} {also!r}".encode())
    digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _save(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """All or nothing, so that an interrupted run leaves no half file."""
    unfinished = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(unfinished, **arrays)  # type: ignore[arg-type]
    unfinished.replace(path)


def _read(path: Path) -> Pictures:
    with np.load(path) as stored:
        return Pictures(**{name: stored[name] for name in Pictures.__slots__})
