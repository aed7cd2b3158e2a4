from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog

from streams.errors import StreamError
from streams.formats import Detecting
from streams.sources import Position, Record, open_source
from streams.sources.directory import DirectorySource
from streams.sources.source import Source
from streams.sources.stdin import StdinSource

MORNING = datetime(2026, 11, 22, 9, tzinfo=UTC)


def table(begin: int, end: int) -> pa.Table:
    count = end - begin
    vectors = np.arange(begin * 4, end * 4, dtype=np.float32)
    return pa.table(
        {
            "id": [f"q-{n}" for n in range(begin, end)],
            "time": pa.array([MORNING] * count, pa.timestamp("ns", "Europe/Berlin")),
            "client": pa.array(["key-1"] * count).dictionary_encode(),
            "endpoint": ["garments"] * count,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors), 4),
            "encoder": ["h"] * count,
            "label": ["coat"] * count,
            "scores": pa.array([[("coat", 0.5), ("hat", None)]] * count, pa.map_(pa.string(), pa.float64())),
            "org": ["acme", None] * (count // 2) + ["acme"] * (count % 2),
            "size": list(range(count)),
        }
    )


def drain(source: Source, committed: dict[str, Position] | None = None, size: int = 100) -> list[Record]:
    """Read a bounded source to its end."""
    source.seek(committed or {})
    records: list[Record] = []
    while not source.exhausted:
        records += source.poll(size, 0.1)
    source.close()
    return records


def places(records: list[Record]) -> list[tuple[str, int]]:
    return [(record.at.partition, record.at.offset) for record in records]


def test_rows_become_events(tmp_path: Path) -> None:
    path = tmp_path / "queries.parquet"
    pq.write_table(table(0, 5), path)
    source = open_source(str(path), once=False)
    assert source.uri == path.as_uri()
    records = drain(source)
    assert places(records) == [("queries.parquet", n) for n in range(5)]
    events = [Detecting().parse(record)[0] for record in records]
    assert [event.id for event in events] == [f"q-{n}" for n in range(5)]
    assert events[1].time == 1795338000000
    assert events[1].embedding is not None
    np.testing.assert_array_equal(events[1].embedding, np.float32([4, 5, 6, 7]))
    assert events[1].response is not None
    assert events[1].response.scores == {"coat": 0.5}
    assert [event.attributes for event in events[:2]] == [{"org": "acme"}, {}]


@pytest.mark.parametrize(
    "list_type", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2)]
)
def test_lists_with_nulls(tmp_path: Path, list_type: pa.DataType) -> None:
    cells = [[1, 2], None, [3, None], None, [5, 6]]
    path = tmp_path / "queries.parquet"
    pq.write_table(pa.table({"embedding": pa.array(cells, list_type), "id": list("abcde")}), path)
    values = [record.value["embedding"] for record in drain(open_source(str(path), once=True))]  # type: ignore[call-overload, index]
    assert [value is None for value in values] == [False, True, False, True, False]
    np.testing.assert_equal([value for value in values if value is not None], [[1, 2], [3, np.nan], [5, 6]])


def test_other_payload_and_attribute_columns(tmp_path: Path) -> None:
    path = tmp_path / "queries.parquet"
    columns = {
        "id": ["a"], "client": ["c"], "endpoint": ["e"], "image": [b"\x89PNG"],
        "time": pa.array([MORNING.replace(tzinfo=None)], pa.timestamp("us")),
        "attributes": [{"ip": "203.0.113.7", "org": None}],
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)
    (naive,) = drain(open_source(str(path), once=True))
    with pytest.raises(StreamError, match=r"queries\.parquet\[queries\.parquet\]@0: time .* has no zone"):
        Detecting().parse(naive)
    pq.write_table(pa.table(columns | {"time": [1795338000000]}), path)
    (record,) = drain(open_source(str(path), once=True))
    (event,) = Detecting().parse(record)
    assert (event.image, event.attributes, event.time) == (b"\x89PNG", {"ip": "203.0.113.7"}, 1795338000000)


def test_resume_at_every_row(tmp_path: Path) -> None:
    path = tmp_path / "queries.parquet"
    pq.write_table(table(0, 23), path, row_group_size=5)
    records = drain(open_source(str(path), once=True), size=7)
    assert len(records) == 23
    for index, record in enumerate(records):
        rest = drain(open_source(str(path), once=True), {record.next.partition: record.next})
        assert places(rest) == places(records[index + 1 :])
        assert [r.value["id"] for r in rest] == [f"q-{n}" for n in range(index + 1, 23)]  # type: ignore[call-overload, index]


def test_a_large_row_group_is_not_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "queries.parquet"
    rng = np.random.default_rng(0)
    pq.write_table(
        pa.table({"id": [str(n) for n in range(6000)], "image": [rng.bytes(20_000) for _ in range(6000)]}),
        path, row_group_size=6000, compression="none", use_dictionary=False,
    )  # fmt: skip
    script = (
        "import resource, sys; from streams.sources import open_source\n"
        "source = open_source(sys.argv[1], once=True); source.seek({}); source.poll(1, 0)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; rows = 1\n"
        "while not source.exhausted: rows += len(source.poll(100, 0))\n"
        "print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    ).stdout
    rows, kilobytes = map(int, out.split())
    assert rows == 6000
    assert kilobytes < 40_000  # of the 117,000 in the group


@pytest.mark.parametrize("damage", ["truncated", "no parquet", "empty", "a page"])
def test_a_damaged_parquet_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "queries.parquet"
    pq.write_table(table(0, 5000), path, row_group_size=1000, compression="zstd")
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "truncated": whole[:middle],
            "no parquet": b"id,time\n1,2\n",
            "empty": b"",
            "a page": whole[:middle] + b"\xff" * 2000 + whole[middle + 2000 :],
        }[damage]
    )
    with pytest.raises(StreamError, match=r"queries\.parquet is no Parquet file, or damaged after row \d+"):
        drain(open_source(str(path), once=True))
    pq.write_table(table(0, 3), tmp_path / "z.parquet")
    records = drain(open_source(str(tmp_path), once=True))
    (fault,) = [record for record in records if record.fault]
    assert fault.at.partition == "queries.parquet"
    assert places(records[-3:]) == [("z.parquet", n) for n in range(3)]
    # The fault is reported once, and the file is taken up again when somebody has mended it.
    committed = {record.next.partition: record.next for record in records}
    assert drain(open_source(str(tmp_path), once=True), committed) == []
    path.write_bytes(whole)
    os.utime(path, ns=(0, 1))
    rest = drain(open_source(str(tmp_path), once=True), committed)
    assert places(rest) == [("queries.parquet", n) for n in range(fault.at.offset, 5000)]


def test_a_directory_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(b"b0\nb1")
    (tmp_path / "sub dir").mkdir()
    with gzip.open(tmp_path / "sub dir" / "c.jsonl.gz", "wb") as file:
        file.write(b"c0\nc1\nc2")
    pq.write_table(table(0, 2), tmp_path / "a.parquet")
    for name in (".hidden.jsonl", "notes.txt"):
        (tmp_path / name).write_bytes(b"x\n")
    (tmp_path / "d.jsonl").mkdir()
    source = open_source(str(tmp_path), once=True)
    assert source.uri == tmp_path.as_uri() + "/"
    records = drain(source)
    expected = [("a.parquet", 0), ("a.parquet", 1), ("b.jsonl", 0), ("b.jsonl", 3)]
    expected += [("sub%20dir/c.jsonl.gz", 0), ("sub%20dir/c.jsonl.gz", 3), ("sub%20dir/c.jsonl.gz", 6)]
    assert places(records) == expected
    committed: dict[str, Position] = {}
    for index, record in enumerate(records):
        committed[record.next.partition] = record.next
        assert places(drain(open_source(str(tmp_path), once=True), committed)) == expected[index + 1 :]
    pattern = open_source(str(tmp_path / "*.jsonl"), once=True)
    assert pattern.uri == tmp_path.as_uri() + "/*.jsonl"
    assert places(drain(pattern)) == expected[2:4]


def follow(path: Path, settle: float = 30.0) -> DirectorySource:
    source = DirectorySource(path.as_uri() + "/", path, None, once=False, interval=0.01, settle=settle)
    source.seek({})
    return source


def test_a_directory_is_followed(tmp_path: Path) -> None:
    source = follow(tmp_path)
    assert source.poll(10, 0.02) == []
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_bytes(b"a\nhal")
    assert [r.value for r in source.poll(10, 1)] == [b"a"]
    second.write_bytes(b"b\n")
    assert [r.value for r in source.poll(10, 1)] == [b"b"]
    with first.open("ab") as file:
        file.write(b"f\n")
    (record,) = source.poll(10, 1)
    assert (record.value, record.at.offset) == (b"half", 2)
    with structlog.testing.capture_logs() as events:
        first.write_bytes(b"other\n")
        (record,) = source.poll(10, 1)
    assert (record.value, record.at.offset) == (b"other", 0)
    assert [(event["event"], event["file"]) for event in events] == [("replaced", "1.jsonl")]
    assert source.poll(10, 0.05) == []
    assert not source.exhausted
    source.close()


@pytest.mark.parametrize("kind", ["parquet", "jsonl.gz"])
def test_a_file_that_is_still_being_written_is_waited_for(tmp_path: Path, kind: str) -> None:
    whole = tmp_path / "whole"
    if kind == "parquet":
        pq.write_table(table(0, 300), whole)
    else:
        with gzip.open(whole, "wb") as file:
            file.write(b"".join(b"%d\n" % (n * n) for n in range(300)))
    path = tmp_path / "logs" / f"queries.{kind}"
    path.parent.mkdir()
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    source = follow(path.parent)
    records = list(source.poll(1000, 0.1))
    assert not [record for record in records if record.fault]
    path.write_bytes(data)
    deadline = time.monotonic() + 5
    while len(records) < 300 and time.monotonic() < deadline:
        records += source.poll(1000, 0.1)
    source.close()
    assert len({record.at for record in records}) == len(records) == 300
    path.write_bytes(data[: len(data) // 2])
    impatient = follow(path.parent, settle=0.05)
    records = []
    deadline = time.monotonic() + 5
    while not (records and records[-1].fault) and time.monotonic() < deadline:
        records += impatient.poll(1000, 0.1)
    assert [record for record in records if record.fault] == records[-1:]
    assert impatient.poll(10, 0.1) == []
    impatient.close()


def test_a_single_damaged_gzip_file_stops_the_source(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(b"plain\n")
    with pytest.raises(StreamError, match=r"log\.jsonl\.gz cannot be read after byte 0: Not a gzipped file"):
        drain(open_source(str(path), once=True))


def test_standard_input() -> None:
    read, write = os.pipe()
    source = StdinSource(read, longest=100)
    source.seek({"ignored": Position("ignored", 5)})
    began = time.monotonic()
    assert source.poll(10, 0.05) == []
    assert 0.04 < time.monotonic() - began < 2
    os.write(write, b"one\n\ntw")
    assert [(r.value, r.at.source, r.at.offset) for r in source.poll(10, 1)] == [(b"one", "stdin:", 0)]
    os.write(write, b"o\n" + b"x" * 200 + b"\nlast")
    os.close(write)
    records = drain(source)
    assert [(r.value[:4], r.at.offset, r.fault is None) for r in records] == [
        (b"two", 5, True), (b"xxxx", 9, False), (b"last", 210, True),
    ]  # fmt: skip
    os.close(read)


def test_a_pipe_and_a_redirected_file(tmp_path: Path) -> None:
    script = (
        "from streams.sources import open_source\n"
        "source = open_source('-', once=False); source.seek({})\n"
        "while not source.exhausted: [print(r.value.decode()) for r in source.poll(3, 1)]"
    )
    data = b"".join(b"%d\n" % n for n in range(10))
    log = tmp_path / "log"
    log.write_bytes(data)
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout == data
    with log.open() as redirected:
        assert subprocess.run(command, stdin=redirected, stdout=subprocess.PIPE, check=True).stdout == data


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as events:
        assert drain(open_source(str(tmp_path / "*.jsonl"), once=True)) == []
    assert [(event["event"], event["source"]) for event in events] == [
        ("empty", f"{tmp_path.as_uri()}/*.jsonl")
    ]


def test_what_lies_before_damage_is_given_out_first(tmp_path: Path) -> None:
    path = tmp_path / "queries.parquet"
    pq.write_table(table(0, 5000), path, row_group_size=1000, compression="zstd")
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(3).column(0)
    begin = column.dictionary_page_offset or column.data_page_offset
    data[begin : begin + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    source = open_source(str(path), once=True)
    source.seek({})
    rows = 0
    while rows < 3000:
        rows += len(source.poll(10_000, 0))
    assert rows == 3000
    for _ in range(2):
        with pytest.raises(StreamError, match="damaged after row 3000"):
            source.poll(1, 0)
    assert not source.exhausted
    source.close()
