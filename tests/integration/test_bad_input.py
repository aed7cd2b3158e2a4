"""Bad records become dead letters with their place and reason; the good ones around them are judged."""

from __future__ import annotations

import base64
import gzip
import json
import random
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import storage.subjects
from storage.database import Database
from storage.records import DeadLetterRecord
from streams.formats import named
from streams.pipeline import BatchReport, Feed, Pipeline, Rules
from streams.sources import open_source
from tests.integration.world import MINUTE, START, World, embeddings_only, letters, lines, stored_ids

WORLD = World()
NOW = START + 60 * MINUTE


def line(number: int, **changes: Any) -> bytes:
    """A good native line with some of its keys changed, or left out where the change is None."""
    record = json.loads(lines([WORLD.query(number)])) | changes
    return json.dumps({key: value for key, value in record.items() if value is not None}).encode() + b"\n"


def watch(database: Database, log: Path, **rules: Any) -> list[BatchReport]:
    reports: list[BatchReport] = []
    with embeddings_only() as embedder, closing(open_source(str(log), once=True)) as source:
        pipeline = Pipeline(database, embedder, Rules(**rules), clock=lambda: NOW)
        pipeline.run([Feed(source, named(None))], threading.Event(), reports.append)
    return reports


def judge(database: Database, tmp_path: Path, bad: list[bytes], **rules: Any) -> list[DeadLetterRecord]:
    """Put bad lines between good ones; every good one is judged, every bad one has its dead letter."""
    WORLD.install(database, "garments")
    parts = [line(0)]
    for number, one in enumerate(bad, 1):
        parts += [one, line(number)]
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(parts))
    reports = watch(database, log, **rules)
    assert stored_ids(database) == [f"garments-{number}" for number in range(len(bad) + 1)]
    found = letters(database)
    assert sum(report.dead for report in reports) == len(found) == len(bad)
    begins = [sum(map(len, parts[:index])) for index in range(1, len(parts), 2)]
    assert [(letter.source, letter.offset, letter.item) for letter in found] == [
        (log.as_uri(), begin, 0) for begin in begins
    ]
    return found


def number_without_end() -> bytes:
    return line(90).replace(b'"embedding": [', b'"embedding": [' + b"9" * 5000 + b", ")


BAD: dict[str, tuple[bytes, str, str]] = {
    "no JSON": (b"{broken\n", "parse", "invalid JSON"),
    "another format half-way": (b"q-1,2026-11-22,key-1,garments,coat\n", "parse", "looks like CSV"),
    "invalid UTF-8": (line(90).replace(b"garments-90", b"\xff\xfe"), "parse", "invalid UTF-8"),
    "10 MB": (line(90, attributes={"note": "x" * 11_000_000}), "parse", "at most 10485760 are allowed"),
    "deep": (b"[" * 100_000 + b"\n", "parse", "nested too deeply"),
    "a number without end": (number_without_end(), "parse", "too many digits"),
    "no client": (line(90, client=None), "parse", "client is missing"),
    "no time": (line(90, time=None), "parse", "time is missing"),
    "NUL": (line(90, client="a\0b"), "parse", "NUL"),
    "half a surrogate pair": (line(90, client="a\ud800"), "parse", "half a surrogate pair"),
    "a very long id": (line(90, id="x" * 100_000), "parse", "at most 512"),
    "a NaN": (line(90, embedding=[float("nan")] * WORLD.dim), "parse", "not a finite float32"),
    "zeros": (line(90, embedding=[0.0] * WORLD.dim), "validate", "all zeros"),
    "too short": (line(90, embedding=[1.0] * 5), "validate", "has 5 numbers, world makes 32"),
    "another encoder": (line(90, encoder="ab" * 32), "validate", "comes from weights abababababab"),
    "the future": (
        line(90, time=NOW + 1000 * MINUTE * 60),
        "validate",
        "is over 24 h ahead of this machine",
    ),
    "the same id in the batch": (line(0, client="other"), "validate", "was seen before"),
    "unknown endpoint": (line(90, endpoint="cars"), "observe", "`banken fit cars"),
    "a reference to a picture": (
        line(90, embedding=None, encoder=None, image={"uri": "s3://queries/1.png"}),
        "decode",
        "no prefix is allowed",
    ),
}


@pytest.mark.parametrize("batch_size", [1, 256])
def test_each_bad_record_is_a_dead_letter(database: Database, tmp_path: Path, batch_size: int) -> None:
    found = judge(database, tmp_path, [bad for bad, _, _ in BAD.values()], batch_size=batch_size)
    for letter, (name, (bad, stage, words)) in zip(found, BAD.items(), strict=True):
        assert letter.stage == stage, name
        assert words in letter.reason, name
        assert letter.raw == (bad.rstrip(b"\n")[:4096] if stage == "parse" else b""), name
        if stage != "parse":
            assert letter.event_id in {"garments-90", "garments-0"}, name
            assert letter.endpoint in {"garments", "cars"}, name


def test_names_that_no_index_takes(database: Database, tmp_path: Path) -> None:
    draw = random.Random(0)
    name = "".join(chr(draw.randint(0x20000, 0x2A6DF)) for _ in range(512))
    found = judge(
        database,
        tmp_path,
        [line(90, client=name), line(92, client=name[:201])],
    )
    assert [letter.reason for letter in found] == [
        "its client has 2048 bytes; at most 800 are allowed",
        "its client has 804 bytes; at most 800 are allowed",
    ]
    log = tmp_path / "longest.jsonl"
    log.write_bytes(line(93, id=name, client=name[:200], attributes={"org": name * 4, "other": name}))
    watch(database, log, groups=("org",))
    assert stored_ids(database)[-1] == name
    with database.snapshot() as connection:
        (group,) = storage.subjects.page(connection, "garments", kind="org")
    assert group.key.value.startswith(f"{name[:200]}…")


def test_ids_that_were_stored_before(database: Database, tmp_path: Path) -> None:
    WORLD.install(database, "garments")
    log = tmp_path / "log.jsonl"
    log.write_bytes(line(0) + line(1))
    watch(database, log)
    with log.open("ab") as file:
        file.write(line(1, client="other") + line(2) + line(0, client="other"))
    for batch_size in (1, 256):
        watch(database, log, batch_size=batch_size)
    assert stored_ids(database) == ["garments-0", "garments-1", "garments-2"]
    again = letters(database)
    assert [(letter.event_id, letter.stage) for letter in again] == [
        ("garments-1", "validate"),
        ("garments-0", "validate"),
    ]
    assert "ids must be unique" in again[0].reason


def test_a_record_that_was_moved_is_no_other_one(database: Database, tmp_path: Path) -> None:
    WORLD.install(database, "garments")
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(line(0) + line(1) + line(1))
    (first,) = watch(database, folder)
    (folder / "a.jsonl").rename(folder / "b.jsonl")
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(line(1) + line(2)))
    (second,) = watch(database, folder)
    assert [(report.queries, report.repeated) for report in (first, second)] == [(2, 1), (1, 4)]
    assert stored_ids(database) == ["garments-0", "garments-1", "garments-2"]
    assert letters(database) == []


def test_a_dead_letter_keeps_no_picture(database: Database, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    picture = base64.b64encode(bytes(range(256)) * 12).decode()
    whole = line(0, client=None, embedding=None, encoder=None, image={"b64": picture})
    slashes = whole.replace(b"/", b"\\/")
    log.write_bytes(whole + slashes + whole[: whole.index(picture[:9].encode()) + 3000] + b"\n")
    watch(database, log)
    kept = whole.replace(picture.encode(), b"<%d bytes>")
    more = picture.count("/")
    assert more
    assert [letter.raw for letter in letters(database)] == [
        kept[:-1] % len(picture),
        kept[:-1] % (len(picture) + more),
        kept[:-3] % 3000,
    ]


def test_time_that_runs_backwards_is_no_fault(database: Database, tmp_path: Path) -> None:
    WORLD.install(database, "garments")
    log = tmp_path / "log.jsonl"
    times = [START + 50 * MINUTE, START, 100_000_000_000, NOW + 23 * 60 * MINUTE, START]
    log.write_bytes(b"".join(line(number, time=time) for number, time in enumerate(times)))
    watch(database, log)
    assert len(stored_ids(database)) == len(times)
    assert letters(database) == []
