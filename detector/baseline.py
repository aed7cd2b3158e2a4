"""A baseline: what normal looks like for one endpoint. Immutable, content-hashed, bound to an encoder."""

from __future__ import annotations

import hashlib
import io
import json
import tokenize
import zipfile
import zlib
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from detector.conformal import Calibration
from detector.coverage import MOST_CELLS
from detector.domain import Domain
from detector.errors import DetectorError
from detector.progress import Exam
from detector.prompt_domain import PromptDomain
from detector.rates import DEFAULT_RATES, BenignRate, BenignRates
from detector.signals import LEVELS

__all__ = ["MINIMUM_REFERENCE", "Baseline", "EncoderKey", "Verdict"]

FORMAT = 3
_KINDS: dict[str, type[Domain | PromptDomain]] = {kind.kind: kind for kind in (Domain, PromptDomain)}

MINIMUM_REFERENCE = 330
"""Distinct reference images that a baseline needs: 30 % calibrate, and p ≤ 0.01 takes 99 of those."""


# What NumPy, zipfile, zlib and our own reading raise over an archive that is cut short or altered.
_DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class EncoderKey:
    """Which encoder made the embeddings.

    Attributes:
        name: as a person knows it.
        weights: SHA-256 of the weights, hex.
        dim: length of an embedding.
    """

    name: str
    weights: str
    dim: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a baseline says of single queries.

    Attributes:
        scores: out-of-domain scores, larger is more foreign, shape (n,).
        p_values: Mondrian conformal p-values in (0, 1], shape (n,).
        cells: nearest cell of the domain, shape (n,).
        foreign: p ≤ τ, by level, shape (n, levels).
    """

    scores: npt.NDArray[np.float64]
    p_values: npt.NDArray[np.float64]
    cells: npt.NDArray[np.int64]
    foreign: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        endpoint: the model it is for.
        encoder: the encoder that its embeddings came from.
        domain: what the reference images span, or what prompts name.
        calibration: conformal calibration by group of cells.
        deep: the same for the deepest level, which takes larger groups.
        mass: reference images by cell and one more, int64, shape (cells,); empty where coverage is no signal.
        held_out: calibration embeddings, float16, shape (m, d); none where the domain was declared in words.
        near_duplicate: cosine similarity from which two queries may be near duplicates, in (0, 1).
        rates: benign rates π₀ and m₀.
        exam: held-out pictures with the endpoint's answers, for extraction progress; None without answers.
    """

    endpoint: str
    encoder: EncoderKey
    domain: Domain | PromptDomain
    calibration: Calibration
    deep: Calibration
    mass: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.float16]
    near_duplicate: float
    rates: BenignRates = DEFAULT_RATES
    exam: Exam | None = None

    @classmethod
    def fit(cls, endpoint: str, encoder: EncoderKey, embeddings: npt.NDArray[np.float16]) -> Baseline:
        """Fit on reference images; rates are the cautious defaults until :meth:`with_rates`.

        Exact duplicates count once. A seeded permutation gives 60 % of the images to the subspace,
        cells and index, 10 % to the scales of the score, and 30 % to calibration alone.

        Args:
            endpoint: the model the images belong to.
            encoder: which encoder embedded them.
            embeddings: L2-normalised float16, shape (n, d).

        Raises:
            DetectorError: wrong shape, not finite, too few distinct images, or all nearly the same.
        """
        check_embeddings(embeddings, encoder.dim)
        distinct = np.unique(embeddings, axis=0)
        if len(distinct) < MINIMUM_REFERENCE:
            raise DetectorError(
                f"reference for {endpoint}: {len(distinct)} distinct images of {len(embeddings)}; "
                f"give at least {MINIMUM_REFERENCE}, better 2,000 or more"
            )
        order = np.random.default_rng(0).permutation(len(distinct))
        fit, scale, held_out = np.split(distinct[order], [round(0.6 * len(order)), round(0.7 * len(order))])
        if float(fit.astype(np.float64).std(axis=0).max()) < 1e-4:
            raise DetectorError(
                f"reference for {endpoint}: all images look the same to the encoder; check the files"
            )
        domain = Domain.fit(fit, scale)
        scores, cells = domain.score(held_out)
        calibration, deep = (
            Calibration.fit(scores, cells, domain.centroids, minimum=round(2 / level)) for level in LEVELS[1:]
        )
        # Counted on images that placed no cell. One more each: a cell where none fell is not impossible.
        _, scaled = domain.score(scale)
        mass = 1 + np.bincount(np.append(cells, scaled), minlength=len(domain.centroids))
        return cls(
            endpoint, encoder, domain, calibration, deep, mass, held_out, _near_duplicate(domain, held_out)
        )

    @classmethod
    def declare(
        cls,
        endpoint: str,
        encoder: EncoderKey,
        domain: PromptDomain,
        scores: npt.NDArray[np.float64],
        *,
        near_duplicate: float,
        rates: BenignRates,
    ) -> Baseline:
        """A baseline without reference images, calibrated on other domains that were declared in words.

        Args:
            endpoint: the model that the domain is of.
            encoder: which encoder embedded the words.
            domain: what they declare.
            scores: of images that belong to such domains, each under its own, shape (n,); one group.
            near_duplicate: cosine similarity from which two queries may be near duplicates.
            rates: benign rates over such domains.

        Raises:
            DetectorError: wrong shape, or not finite.
        """
        check_embeddings(domain.centroids.astype(np.float16), encoder.dim)
        group = np.zeros(domain.size, np.int64)
        calibration = Calibration(group, np.sort(scores), np.array([0, len(scores)], np.int64))
        none = np.empty((0, encoder.dim), np.float16)
        return cls(
            endpoint,
            encoder,
            domain,
            calibration,
            calibration,
            np.empty(0, np.int64),
            none,
            near_duplicate,
            rates,
        )

    def with_rates(self, rates: BenignRates) -> Baseline:
        """The same baseline with other benign rates."""
        return replace(self, rates=rates)

    def with_exam(self, exam: Exam) -> Baseline:
        """The same baseline with an exam."""
        check_embeddings(exam.embeddings, self.encoder.dim)
        return replace(self, exam=exam)

    def judge(self, embeddings: npt.NDArray[np.float16]) -> Verdict:
        """Score queries, each on its own: history plays no part here.

        Args:
            embeddings: L2-normalised float16, shape (n, d).
        """
        scores, cells = self.domain.score(embeddings)
        p_values = self.calibration.p_values(scores, cells)
        deep = self.deep.p_values(scores, cells)
        by_level = np.stack([p_values, p_values, deep], axis=1)
        return Verdict(scores, p_values, cells, by_level <= np.array(LEVELS))

    @property
    def has_coverage(self) -> bool:
        """Whether the domain's cells have a mass and a bit each in a subject's state."""
        return 0 < len(self.mass) <= MOST_CELLS

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over everything the baseline consists of, hex."""
        digest = hashlib.sha256()
        for name, array in sorted(self._arrays().items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def to_bytes(self) -> bytes:
        """The baseline as an ``.npz`` archive of plain arrays; nothing in it is pickled."""
        stream = io.BytesIO()
        np.savez_compressed(stream, allow_pickle=False, **self._arrays())
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, archive: bytes, *, content_hash: str | None = None) -> Baseline:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            DetectorError: damaged, of another format version, or not the content that was expected.
        """
        try:
            with np.load(io.BytesIO(archive), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            meta = json.loads(arrays["meta"].tobytes())
            written = meta["format"]
            baseline = None if written != FORMAT else cls._from_parts(meta, arrays)
        except _DAMAGE as error:
            raise DetectorError(
                f"baseline archive is damaged ({error}); fit it again or restore a backup"
            ) from error
        if baseline is None:
            raise DetectorError(
                f"baseline archive has format {written}, this version reads {FORMAT}; fit the baseline again"
            )
        if content_hash is not None and baseline.content_hash != content_hash:
            raise DetectorError(
                f"baseline of {baseline.endpoint}: content hash is {baseline.content_hash[:12]}, expected "
                f"{content_hash[:12]}; it was changed after it was fitted: fit it again or restore a backup"
            )
        return baseline

    @classmethod
    def _from_parts(cls, meta: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Baseline:
        rates = meta["rates"] | {
            "channels": tuple(BenignRate(**rate) for rate in meta["rates"]["channels"]),
            "outliers": tuple(meta["rates"]["outliers"]),
        }
        return cls(
            endpoint=meta["endpoint"],
            encoder=EncoderKey(**meta["encoder"]),
            domain=_KINDS[meta["kind"]].from_parts(meta["domain"], arrays),
            calibration=Calibration(arrays["group_of_cell"], arrays["scores"], arrays["bounds"]),
            deep=Calibration(arrays["deep_group_of_cell"], arrays["deep_scores"], arrays["deep_bounds"]),
            mass=arrays["mass"],
            held_out=arrays["held_out"],
            near_duplicate=meta["near_duplicate"],
            rates=BenignRates(**rates),
            exam=Exam.from_arrays(arrays),
        )

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        meta = {
            "format": FORMAT,
            "endpoint": self.endpoint,
            "encoder": asdict(self.encoder),
            "kind": self.domain.kind,
            "domain": self.domain.settings(),
            "near_duplicate": self.near_duplicate,
            "rates": asdict(self.rates),
        }
        return {
            "meta": np.frombuffer(json.dumps(meta, sort_keys=True).encode(), np.uint8),
            **self.domain.arrays(),
            "group_of_cell": self.calibration.group_of_cell,
            "scores": self.calibration.scores,
            "bounds": self.calibration.bounds,
            "deep_group_of_cell": self.deep.group_of_cell,
            "deep_scores": self.deep.scores,
            "deep_bounds": self.deep.bounds,
            "mass": self.mass,
            "held_out": self.held_out,
            **({} if self.exam is None else self.exam.arrays()),
        }


def check_embeddings(embeddings: npt.NDArray[np.float16], dim: int) -> None:
    """Refuse embeddings that no encoder of this length made.

    Raises:
        DetectorError: not two-dimensional, another length, or not finite.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] != dim:
        raise DetectorError(f"embeddings have shape {embeddings.shape}, the encoder makes (n, {dim})")
    # An all-ones exponent is NaN or infinity; numpy's own test of half precision is forty times slower.
    exponent = np.uint16(0x7C00)
    if embeddings.size and (embeddings.view(np.uint16) & exponent).max() == exponent:
        raise DetectorError("embeddings hold NaN or infinity; check the encoder")


def _near_duplicate(domain: Domain, held_out: npt.NDArray[np.float16]) -> float:
    """The similarity that one distinct image in a thousand has to its nearest other one, in [0.9, 0.9999]."""
    similar, _ = domain.index.search(held_out.astype(np.float32), 1)
    return float(np.clip(np.quantile(similar[:, 0], 0.999), 0.9, 0.9999))
