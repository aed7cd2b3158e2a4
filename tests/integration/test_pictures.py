"""Pictures through the encoder that ships with Banken: fitted, watched, judged; bad ones are dead letters."""

from __future__ import annotations

import io
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, PngImagePlugin

import storage.baselines
import storage.findings
from detector.baseline import Baseline
from detector.findings import FindingState
from embeddings.encoder import Encoder
from storage.database import Database
from streams.embedding import Embedder
from streams.events import QueryEvent
from streams.fitting import fit
from streams.formats import named
from streams.pipeline import Feed, Pipeline, Rules
from streams.sources import open_source
from tests.integration.world import MINUTE, NOWHERE, START, contents, draft, letters, stored_ids, write_log

pytestmark = pytest.mark.parametrize("new_url", ["sqlite"], indirect=True)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def discs(seed: int) -> bytes:
    """What honest clients ask about: dark discs on a light ground."""
    rng = np.random.default_rng([seed, 0])
    image = Image.new("L", (48, 48), int(rng.integers(200, 256)))
    x, y, r = rng.integers(16, 32), rng.integers(16, 32), rng.integers(6, 16)
    ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=int(rng.integers(0, 90)))
    return encoded(image)


def stripes(seed: int) -> bytes:
    """What a thief asks about."""
    rng = np.random.default_rng([seed, 1])
    image = Image.new("RGB", (48, 48), tuple(rng.integers(0, 256, 3).tolist()))
    for _ in range(8):
        ends = rng.integers(0, 48, 4).tolist()
        ImageDraw.Draw(image).line(ends, fill=tuple(rng.integers(0, 256, 3).tolist()), width=4)
    return encoded(image)


def query(number: int, image: bytes | None, *, client: str = "key-1", text: str | None = None) -> QueryEvent:
    return QueryEvent(
        f"q-{number}", START + number * MINUTE, client, "garments", NOWHERE, image=image, text=text
    )


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    torch.set_num_threads(2)
    with Embedder(lambda: Encoder.load(device="cpu")) as made:
        yield made


@pytest.fixture(scope="module")
def baseline(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    folder = tmp_path_factory.mktemp("reference")
    for seed in range(350):
        (folder / f"{seed}.png").write_bytes(discs(seed))
    fitted = fit("garments", str(folder), embedder)
    assert fitted.skipped == ()
    return fitted.baseline


def watch(
    database: Database, embedder: Embedder, baseline: Baseline, log: Path, batch_size: int = 256
) -> None:
    with database.transaction() as connection:
        storage.baselines.add(connection, draft(baseline))
    with closing(open_source(str(log), once=True)) as source:
        pipeline = Pipeline(database, embedder, Rules(batch_size=batch_size))
        pipeline.run([Feed(source, named(None))], threading.Event())


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def vast() -> bytes:
    """A PNG of 20,000 × 20,000 pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("picture.png", b"\0" * 50_000_000)
    return stream.getvalue()


def text_bomb() -> bytes:
    """A small PNG with a comment that inflates to 100 MB."""
    comment = PngImagePlugin.PngInfo()
    comment.add_text("Comment", "x" * 100_000_000, zip=True)
    return encoded(Image.new("L", (8, 8)), pnginfo=comment)


def test_a_thief_is_found_by_pictures(
    database: Database, embedder: Embedder, baseline: Baseline, tmp_path: Path
) -> None:
    events = [
        query(number, (stripes if number % 2 else discs)(1000 + number), client=f"key-{number % 2}")
        for number in range(120)
    ]
    watch(database, embedder, baseline, write_log(tmp_path / "log.jsonl", events))
    with database.snapshot() as connection:
        alerted = storage.findings.page(connection, states=[FindingState.ALERTED])
    clients = {r.finding.subject.value for r in alerted if r.finding.subject.kind == "client"}
    assert clients == {"key-1"}
    assert len(stored_ids(database)) == 120


def test_bad_pictures_are_dead_letters(
    database: Database, embedder: Embedder, baseline: Baseline, tmp_path: Path
) -> None:
    truncated = encoded(Image.open(io.BytesIO(stripes(0))), "JPEG")[:-300]
    bad = [b"GET / HTTP/1.1", discs(0)[:100], truncated, vast(), zip_bomb(), text_bomb()]
    events = [query(0, discs(0))]
    for number, image in enumerate(bad, 1):
        events += [query(100 + number, image), query(number, discs(number))]
    watch(database, embedder, baseline, write_log(tmp_path / "log.jsonl", events))
    found = letters(database)
    assert [letter.event_id for letter in found] == [f"q-{100 + number}" for number in range(1, len(bad) + 1)]
    assert {letter.stage for letter in found} == {"decode"}
    assert {letter.raw for letter in found} == {b""}
    reasons = [letter.reason for letter in found]
    assert reasons[0].startswith("not a picture of an allowed format (JPEG, PNG")
    assert reasons[1].startswith(reasons[2][:14])
    assert "too many pixels" in reasons[3]
    assert reasons[4] == reasons[0]
    assert reasons[5].startswith("broken picture")
    assert stored_ids(database) == [f"q-{number}" for number in range(len(bad) + 1)]


def test_odd_pictures_are_judged(
    database: Database, embedder: Embedder, baseline: Baseline, tmp_path: Path
) -> None:
    events = [
        query(0, encoded(Image.new("L", (1, 1)))),
        query(1, encoded(Image.new("RGB", (64, 48)), "BMP")),
        query(2, encoded(Image.new("CMYK", (8, 8)), "JPEG")),
        query(3, None, text="a photo of a coat"),
    ]
    watch(database, embedder, baseline, write_log(tmp_path / "log.jsonl", events))
    assert stored_ids(database) == ["q-0", "q-1", "q-2"]
    (letter,) = letters(database)
    assert (letter.event_id, letter.reason) == (
        "q-3",
        "it is a text query, and the baseline is one of pictures: fit an endpoint on a log of texts",
    )


def test_pictures_are_the_same_whatever_the_batches(
    new_url: Callable[[], str], embedder: Embedder, baseline: Baseline, tmp_path: Path
) -> None:
    events = [query(number, (stripes if number % 3 else discs)(number % 10)) for number in range(12)]
    log = write_log(tmp_path / "log.jsonl", events)
    found = []
    for batch_size in (3, 256):
        database = Database.open(new_url())
        with Embedder(lambda: embedder.encoder) as fresh:  # with an empty cache
            watch(database, fresh, baseline, log, batch_size)
        found.append(contents(database))
        database.close()
    assert found[0]["queries"]
    assert found[1] == found[0]
