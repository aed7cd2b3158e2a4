"""Fitting, judging, and the archive that a baseline travels in."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from detector.baseline import MINIMUM_REFERENCE, Baseline, EncoderKey
from detector.errors import DetectorError
from detector.rates import DEFAULT_RATES, BenignRate
from tests.detector.world import DIM, ENCODER, baseline, foreign, native


def altered(archive: bytes, **arrays: np.ndarray | None) -> bytes:
    """The archive with other arrays; None leaves one out."""
    with np.load(io.BytesIO(archive)) as stored:
        parts = {name: stored[name] for name in stored.files} | arrays
    stream = io.BytesIO()
    np.savez_compressed(stream, **{name: array for name, array in parts.items() if array is not None})
    return stream.getvalue()


def with_meta(archive: bytes, **changes: object) -> bytes:
    with np.load(io.BytesIO(archive)) as stored:
        meta = json.loads(stored["meta"].tobytes())
    return altered(archive, meta=np.frombuffer(json.dumps(meta | changes).encode(), np.uint8))


def test_native_queries_hit_at_the_level_and_foreign_ones_always() -> None:
    verdict = baseline().judge(native(4000, seed=50))
    for level, tau in enumerate((0.05, 0.01, 0.002)):
        hits = int(verdict.foreign[:, level].sum())
        # Calibrated on some 600 images, whose own spread the bound must leave room for.
        assert binom.ppf(1e-3, 4000, 0.4 * tau) <= hits <= binom.ppf(1 - 1e-3, 4000, 2.0 * tau)
    assert baseline().judge(foreign(500, seed=50)).foreign.mean() > 0.95
    assert ((verdict.p_values > 0) & (verdict.p_values <= 1)).all()


def test_a_verdict_is_the_same_in_every_batch() -> None:
    queries = np.concatenate([native(100, seed=51), foreign(100, seed=51)])
    whole = baseline().judge(queries)
    for i in range(0, 200, 7):
        alone = baseline().judge(queries[i : i + 1])
        assert alone.scores.tobytes() == whole.scores[i : i + 1].tobytes()
        assert alone.p_values.tobytes() == whole.p_values[i : i + 1].tobytes()
        assert alone.cells.tolist() == whole.cells[i : i + 1].tolist()
    assert baseline().judge(queries[:0]).foreign.shape == (0, 3)


def test_fitting_again_gives_the_same_content_in_any_order_of_files() -> None:
    images = native(700, seed=1)
    first = Baseline.fit("e", ENCODER, images)
    twice = np.concatenate([images[::-1], images[:50]])
    assert Baseline.fit("e", ENCODER, twice).content_hash == first.content_hash
    assert Baseline.fit("other", ENCODER, images).content_hash != first.content_hash


def test_the_smallest_reference_can_reach_both_levels() -> None:
    small = Baseline.fit("e", ENCODER, native(MINIMUM_REFERENCE, seed=2))
    assert small.judge(foreign(50, seed=2)).foreign[:, 1].mean() > 0.9


def test_the_deep_level_takes_499_calibration_images() -> None:
    """With fewer no p-value is as small as 0.002, however foreign the query."""
    for reference, reached in ((1640, False), (1670, True)):
        fitted = Baseline.fit("e", ENCODER, native(reference, seed=2))
        assert (len(fitted.held_out) >= 499) == reached
        hits = fitted.judge(foreign(400, seed=2)).foreign
        assert hits[:, 1].mean() > 0.9
        assert (hits[:, 2].mean() > 0.9) == hits[:, 2].any() == reached


def test_the_mass_is_counted_on_images_that_placed_no_cell() -> None:
    fitted = baseline()
    assert fitted.has_coverage
    assert fitted.mass.dtype == np.int64
    assert len(fitted.mass) == len(fitted.domain.centroids)
    assert fitted.mass.min() >= 1
    assert fitted.mass.sum() == len(fitted.mass) + 2000 - fitted.domain.size
    drawn = np.bincount(fitted.judge(native(5000, seed=52)).cells, minlength=len(fitted.mass)) / 5000
    assert np.abs(drawn - fitted.mass / fitted.mass.sum()).sum() < 0.25


@pytest.mark.parametrize(
    ("images", "fault"),
    [
        (native(MINIMUM_REFERENCE - 1, seed=1), f"{MINIMUM_REFERENCE - 1} distinct images"),
        (native(1, seed=1).repeat(2000, axis=0), "1 distinct images of 2000"),
        (np.zeros((0, DIM), np.float16), "0 distinct"),
        (native(400, seed=1)[:, 1:], "shape"),
        (native(400, seed=1)[0], "shape"),
        (np.where(np.arange(400)[:, None] == 399, np.float16("nan"), native(400, seed=1)), "NaN"),
    ],
)
def test_a_reference_that_cannot_be_fitted_is_refused(images: np.ndarray, fault: str) -> None:
    with pytest.raises(DetectorError, match=fault):
        Baseline.fit("garments", ENCODER, images)


def test_images_that_all_look_the_same_are_refused() -> None:
    rng = np.random.default_rng(0)
    vectors = np.full((600, DIM), 0.17677669, np.float16).view(np.uint16)
    vectors[:, :10] ^= rng.integers(2, size=(600, 10)).astype(np.uint16)  # the last bit only
    with pytest.raises(DetectorError, match="look the same"):
        Baseline.fit("garments", ENCODER, vectors.view(np.float16))


def test_an_archive_brings_back_the_same_baseline() -> None:
    fitted = BenignRate(0.1, 0.04, 12, 900, "trusted history")
    rates = replace(DEFAULT_RATES, channels=(fitted,) * 6, margin=0.02, share=0.95, outliers=("key-7",))
    first = baseline().with_rates(rates)
    archive = first.to_bytes()
    assert archive == first.to_bytes()
    second = Baseline.from_bytes(archive, content_hash=first.content_hash)
    assert (second.rates, second.encoder, second.endpoint) == (rates, ENCODER, "garments")
    assert second.content_hash == first.content_hash != baseline().content_hash
    queries = np.concatenate([native(50, seed=3), foreign(50, seed=3)])
    assert second.judge(queries).scores.tobytes() == first.judge(queries).scores.tobytes()


def test_an_altered_archive_is_noticed() -> None:
    archive, expected = baseline().to_bytes(), baseline().content_hash
    scores = baseline().calibration.scores.copy()
    scores[0] += 1e-9
    for other in (altered(archive, scores=scores), with_meta(archive, near_duplicate=0.5)):
        assert Baseline.from_bytes(other).content_hash != expected
        with pytest.raises(DetectorError, match="was changed after it was fitted"):
            Baseline.from_bytes(other, content_hash=expected)


def test_a_truncated_or_garbled_archive_is_damaged_and_nothing_else() -> None:
    archive, expected = baseline().to_bytes(), baseline().content_hash
    rng = np.random.default_rng(0)
    for length in (0, 1, 4, 100, len(archive) // 2, len(archive) - 1):
        with pytest.raises(DetectorError, match="damaged"):
            Baseline.from_bytes(archive[:length])
    refused = 0
    for position in rng.integers(len(archive), size=150).tolist():
        garbled = bytearray(archive)
        garbled[position] ^= int(rng.integers(1, 256))
        try:
            again = Baseline.from_bytes(bytes(garbled), content_hash=expected)
        except DetectorError:
            refused += 1
        else:
            assert again.content_hash == expected
    assert refused > 100


def test_missing_parts_and_other_formats_are_named() -> None:
    archive = baseline().to_bytes()
    for other in (
        altered(archive, centroids=None),
        altered(archive, meta=None),
        altered(archive, meta=np.frombuffer(b"[1]", np.uint8)),
        with_meta(archive, rates={}),
        with_meta(archive, encoder={"name": "x"}),
    ):
        with pytest.raises(DetectorError, match="damaged"):
            Baseline.from_bytes(other)
    with pytest.raises(DetectorError, match="format 1, this version reads 3"):
        Baseline.from_bytes(with_meta(archive, format=1))


def test_nothing_is_ever_unpickled() -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (pytest.fail, ("unpickled",))

    stream = io.BytesIO(baseline().to_bytes())
    trap = io.BytesIO()
    np.save(trap, np.array([Trap()], object), allow_pickle=True)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("trap.npy", trap.getvalue())
    for evil in (stream.getvalue(), pickle.dumps(Trap())):
        with pytest.raises(DetectorError, match="damaged"):
            Baseline.from_bytes(evil)


def test_a_baseline_knows_its_encoder() -> None:
    with pytest.raises(DetectorError, match=f"makes \\(n, {DIM + 1}\\)"):
        Baseline.fit("e", EncoderKey("x", "w", DIM + 1), native(400, seed=1))
