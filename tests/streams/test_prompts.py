"""A file of prompts to a baseline, with the encoder that ships."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from detector.baseline import Baseline
from detector.rates import DEFAULT_RATES
from embeddings.decoding import DecodeLimits, decode
from embeddings.encoder import Encoder
from streams.embedding import Embedder
from streams.errors import StreamError
from streams.fitting import fit_prompts
from streams.prompts import MOST_PROMPTS, read_prompts
from tests.streams.test_fitting import pixels

DEMO = Path(__file__).parents[2] / "console/demo"
GARMENTS = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        (b"a coat\n\n# garments\n  a   shirt \na coat\n", ("a coat", "a shirt")),
        (b"\xef\xbb\xbfa coat\r\nun caf\xc3\xa9", ("a coat", "un café")),
    ],
)
def test_a_prompt_a_line(tmp_path: Path, content: bytes, prompts: tuple[str, ...]) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    assert read_prompts(str(tmp_path / "prompts.txt")) == prompts


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "no prompt in it"),
        (b"\n # nothing\n \n", "no prompt in it"),
        (b"a coat\n\xff\xfe", "not UTF-8 at byte 7"),
        (b"\n".join(b"%d" % i for i in range(MOST_PROMPTS + 1)), "1,001 prompts, at most 1,000"),
        (b"x" * 1_000_001, "more than 1,000,000 bytes"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(StreamError, match=fault):
        read_prompts(str(tmp_path / "prompts.txt"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for missing in (tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(StreamError, match=r"cannot be read: (No such file|Is a directory)"):
            read_prompts(str(missing))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.set_num_threads(1)
    return Encoder.load(device="cpu")


@pytest.fixture(scope="module")
def baseline(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    file = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    file.write_text("\n".join(GARMENTS))
    with Embedder(lambda: encoder) as embedder:
        fitted = fit_prompts("garments", str(file), embedder)
    assert (fitted.reference, fitted.trusted, fitted.skipped, fitted.prompts) == (0, 0, (), GARMENTS)
    return fitted.baseline


def test_the_baseline_of_a_few_words(baseline: Baseline, encoder: Encoder) -> None:
    assert (baseline.encoder.weights, baseline.domain.kind) == (encoder.identity.weights, "prompts")
    rates = baseline.rates.channels
    assert all("declared in words" in rate.source for rate in rates[:3])
    assert rates[0].bound > rates[1].bound >= rates[2].bound
    assert [rate.bound for rate in rates[3:]] == [rate.bound for rate in DEFAULT_RATES.channels[3:]]
    assert not baseline.has_coverage
    again = Baseline.from_bytes(baseline.to_bytes(), content_hash=baseline.content_hash)
    assert again.rates == baseline.rates
    garments, others = (again.judge(encoder.embed(pictures)) for pictures in _demo(encoder))
    assert garments.foreign[:, 0].mean() < 0.2
    assert np.median(garments.scores) < np.quantile(others.scores, 0.25)


def _demo(encoder: Encoder) -> Iterator[np.ndarray]:
    """Some of the demo's garments, and of what its thieves ask beside them."""
    rows = pq.read_table(DEMO / "log.parquet", columns=["id", "image"])
    odd = set(chain.from_iterable(pq.read_table(DEMO / "truth.parquet")["foreign"].to_pylist()))
    foreign = np.array([one in odd for one in rows["id"].to_pylist()])
    for which in (~foreign, foreign):
        pictures = rows["image"].take(np.flatnonzero(which)[:50]).to_pylist()
        yield np.stack([decode(one, encoder.preprocess, DecodeLimits()).pixels for one in pictures])


def test_an_encoder_without_a_calibration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a coat")
    with pixels() as embedder, pytest.raises(ValueError, match="fit on reference images"):
        fit_prompts("garments", str(tmp_path / "prompts.txt"), embedder)
