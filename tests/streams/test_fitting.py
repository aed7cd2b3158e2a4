from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detector.errors import DetectorError
from embeddings.encoder import Encoder
from streams.embedding import Embedder
from streams.errors import StreamError
from streams.events import DeadLetter, QueryEvent, Response
from streams.fitting import Fitted, fit, read_reference
from tests.integration.world import NOWHERE, START, WEIGHTS, World, embeddings_only, lines, write_log
from tests.streams.pictures import Pixels, png

WORLD = World()


def sent(
    n: int, *, clients: int = 1, endpoint: str = "garments", seed: int = 0, encoder: str = WEIGHTS
) -> list[QueryEvent]:
    """Honest queries of several clients in turn."""
    return [
        QueryEvent(
            f"{endpoint}-{seed}-{i}",
            START + i,
            f"key-{i % clients}",
            endpoint,
            NOWHERE,
            embedding=vector,
            encoder=encoder,
        )
        for i, vector in enumerate(WORLD.honest(n, seed))
    ]


def fit_log(reference: Path, trusted: Path | None = None, endpoint: str = "garments") -> Fitted:
    with embeddings_only() as embedder:
        return fit(endpoint, str(reference), embedder, trusted=None if trusted is None else str(trusted))


def pixels() -> Embedder:
    return Embedder(lambda: cast(Encoder, Pixels()), threads=2)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return write_log(tmp_path / "reference.jsonl", sent(600))


def test_a_log_of_embeddings(reference: Path) -> None:
    told: list[tuple[str, int]] = []
    with embeddings_only() as embedder:
        fitted = fit(
            "garments", str(reference), embedder, on_progress=lambda stage, done: told.append((stage, done))
        )
    assert (fitted.reference, fitted.trusted, fitted.skipped) == (600, 0, ())
    assert fitted.baseline.endpoint == "garments"
    assert fitted.baseline.encoder.weights == WEIGHTS
    assert fitted.baseline.encoder.dim == WORLD.dim
    assert {rate.source for rate in fitted.baseline.rates.channels} == {
        "cautious default: no trusted history was given"
    }
    assert fitted.unasked == ()
    assert told == [("reference", done) for done in (0, 256, 512, 600)]
    assert fit_log(reference).baseline.content_hash == fitted.baseline.content_hash


def test_of_a_mixed_log_only_the_endpoint_counts(reference: Path, tmp_path: Path) -> None:
    mine, others = sent(600), sent(600, endpoint="cars", seed=1)
    mixed = write_log(tmp_path / "mixed.jsonl", [e for pair in zip(mine, others, strict=True) for e in pair])
    fitted = fit_log(mixed)
    assert fitted.reference == 600
    assert fitted.baseline.content_hash == fit_log(reference).baseline.content_hash
    with pytest.raises(StreamError, match="no query of endpoint shoes; its endpoints are cars, garments"):
        fit_log(mixed, endpoint="shoes")


def test_a_trusted_history_sets_the_rates(reference: Path, tmp_path: Path) -> None:
    events = sent(1200, clients=20, seed=5) + sent(300, endpoint="cars", seed=6)
    log = tmp_path / "trusted.jsonl"
    log.write_bytes(lines(events[:700]) + b"{broken\n" + lines(events[700:]))
    fitted = fit_log(reference, log)
    assert fitted.trusted == 1200
    rates = fitted.baseline.rates
    # These queries bring neither pictures nor scores, so two signals cannot judge them.
    assert [rate.source for rate in rates.channels[:4]] == ["trusted history"] * 4
    assert all("0 clients that this signal can judge" in rate.source for rate in rates.channels[4:])
    assert {(rate.clients, rate.queries) for rate in rates.channels[:4]} == {(20, 1200)}
    assert (fitted.unasked, rates.outliers) == ((), ())
    (skipped,) = fitted.skipped
    assert (skipped.stage, skipped.at.source) == ("parse", log.as_uri())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lines(sent(300, endpoint="cars")), "no query of endpoint garments; its endpoints are cars"),
        (lambda: b"", "no query of endpoint garments; it is empty"),
        (lambda: lines(sent(300, encoder="ab" * 30)), "comes from weights abababababab.*one encoder"),
        (
            lambda: b"{broken\n" * 3 + lines(sent(2)),
            "3 of 5 cannot be used; the first: .*@0: the format is not recognised",
        ),
    ],
)
def test_a_trusted_history_that_cannot_be_used(
    reference: Path, tmp_path: Path, make: Callable[[], bytes], words: str
) -> None:
    log = tmp_path / "trusted.jsonl"
    log.write_bytes(make())
    with pytest.raises(StreamError, match=words):
        fit_log(reference, log)


def test_a_reference_that_cannot_be_used(reference: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with pytest.raises(StreamError, match=r"no such file: .*/log\.jsonl"):
        fit_log(log)
    good = reference.read_bytes()
    faults: list[tuple[bytes, type[Exception], str]] = [
        (b"", StreamError, "no query of endpoint garments; it is empty"),
        (lines(sent(100)), DetectorError, "100 distinct images of 100; give at least 330"),
        (b"{broken\n" * 700 + good, StreamError, "700 of 1300 cannot be used"),
        (good + lines(sent(1, seed=9, encoder="ab" * 30)), StreamError, r"log\.jsonl.*weights abababababab"),
        (good + lines([shorter(sent(1, seed=9)[0])]), StreamError, "has 5 numbers.*makes 32"),
    ]
    for content, error, words in faults:
        log.write_bytes(content)
        with pytest.raises(error, match=words):
            fit_log(log)


def test_reference_images_that_nobody_asks_about_are_named(tmp_path: Path) -> None:
    """A pile of something else, mixed into the reference, is a region where no honest client goes."""
    pile = WORLD.foreign(1, seed=30)[0] + 0.05 * np.random.default_rng(0).standard_normal((120, WORLD.dim))
    mixed = [
        QueryEvent(f"pile-{i}", START, "key-0", "garments", NOWHERE, embedding=vector, encoder=WEIGHTS)
        for i, vector in enumerate((pile / np.linalg.norm(pile, axis=1, keepdims=True)).astype(np.float32))
    ]
    reference = write_log(tmp_path / "reference.jsonl", sent(600) + mixed)
    fitted = fit_log(reference, write_log(tmp_path / "trusted.jsonl", sent(1200, clients=20, seed=5)))
    found = {int(place.rpartition("@")[2]) for place in fitted.unasked}
    offsets = np.cumsum([0, *(len(line) for line in reference.read_bytes().splitlines(keepends=True))])
    theirs = set(offsets[600:720].tolist())
    assert len(found & theirs) >= 110
    assert len(found - theirs) <= 5


def test_answers_and_pictures_are_judged_by_all_six_channels(reference: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    scored = [
        replace(event, response=Response("coat", {"coat": high, "shirt": 1 - high}))
        for event, high in zip(sent(1200, clients=24, seed=5), 0.5 + rng.random(1200) / 2, strict=True)
    ]
    rates = fit_log(reference, write_log(tmp_path / "trusted.jsonl", scored)).baseline.rates
    assert rates.margin == pytest.approx(0.05, abs=0.02)
    assert (rates.channels[5].source, rates.channels[5].clients) == ("trusted history", 12)


def shorter(event: QueryEvent) -> QueryEvent:
    assert event.embedding is not None
    return replace(event, embedding=event.embedding[:5])


def test_a_directory_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "some pictures"
    (folder / "below").mkdir(parents=True)
    for seed in range(340):
        (folder / ("below" if seed % 2 else ".") / f"{seed}.{'PNG' if seed % 3 else 'png'}").write_bytes(
            png(seed)
        )
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "folder.png").mkdir()
    (folder / "notes.txt").write_text("not looked at")
    monkeypatch.chdir(tmp_path)
    with pixels() as embedder:
        fitted = fit("garments", "some pictures", embedder)
    assert fitted.reference == 340
    assert fitted.baseline.encoder.name == "pixels"
    assert [(letter.at.source.rsplit("/", 1)[1], letter.stage) for letter in fitted.skipped] == [
        ("broken.png", "decode"),
        ("gone.jpg", "decode"),
    ]
    assert "No such file" in fitted.skipped[1].reason
    assert fitted.skipped[0].at.source.startswith("file:///")


def test_a_directory_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pixels() as embedder, pytest.raises(StreamError, match=r"no pictures in it; looked for \.bmp"):
        fit("garments", str(tmp_path), embedder)
    (tmp_path / "folder.png").mkdir()
    with pixels() as embedder, pytest.raises(StreamError, match="0 of 0 cannot be used"):
        fit("garments", str(tmp_path), embedder)


def test_a_table_that_has_pictures_only(tmp_path: Path) -> None:
    table = pa.table({"image": [png(seed) for seed in range(340)] + [None, b"no picture"]})
    pq.write_table(table, tmp_path / "reference.parquet")
    with pixels() as embedder:
        fitted = fit("garments", str(tmp_path / "reference.parquet"), embedder)
    assert fitted.reference == 340
    assert [letter.stage for letter in fitted.skipped] == ["parse", "decode"]
    assert [letter.at.offset for letter in fitted.skipped] == [340, 341]


def test_large_pictures_are_not_all_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.fitting._BATCH_BYTES", 3 * len(png(0)))
    for seed in range(330):
        (tmp_path / f"{seed}.png").write_bytes(png(seed))
    told: list[int] = []
    with pixels() as embedder:
        fit("garments", str(tmp_path), embedder, on_progress=lambda stage, done: told.append(done))
    assert max(np.diff(told)) <= 5
    assert told[-1] == 330


def test_what_a_reference_holds(reference: Path) -> None:
    events = list(read_reference(str(reference), "garments"))
    assert len(events) == 600
    assert not any(isinstance(event, DeadLetter) for event in events)
    with pytest.raises(StreamError, match="no format 'csv'"):
        list(read_reference(str(reference), "garments", "csv"))
