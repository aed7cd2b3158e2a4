from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import StreamError
from streams.sources.lines import Line, LineCutter


@given(
    st.lists(st.binary(max_size=30) | st.sampled_from([b"", b" ", b"\r", b"ab\r"])).map(b"\n".join),
    st.lists(st.integers(1, 9)),
    st.integers(1, 40),
    st.integers(0, 10**12),
)
def test_lines_do_not_depend_on_the_chunks(stream: bytes, cuts: list[int], longest: int, begin: int) -> None:
    def cut(sizes: list[int]) -> list[Line]:
        cutter, rest, lines = LineCutter(begin, longest), stream, []
        for size in sizes:
            lines += cutter.feed(rest[:size])
            rest = rest[size:]
            assert cutter.end == begin + len(stream) - len(rest)
        return [*lines, *cutter.feed(rest), *cutter.finish()]

    lines = cut([])
    assert cut(cuts) == lines
    expected, offset = [], begin
    for line in stream.split(b"\n"):
        if len(line) > longest or line.strip():
            expected.append((offset, len(line) > longest, offset + len(line) + 1))
        offset += len(line) + 1
    if expected and not stream.endswith(b"\n"):
        last = expected[-1]
        if last[2] == begin + len(stream) + 1:
            expected[-1] = (*last[:2], last[2] - 1)
    assert [(line.offset, line.fault is not None, line.end) for line in lines] == expected
    for line in lines:
        whole = stream[line.offset - begin :].split(b"\n", 1)[0]
        whole = whole if line.fault else whole.removesuffix(b"\r")
        assert line.data == (whole[:longest] if line.fault else whole)


def test_a_long_line_is_cut_in_bounded_memory() -> None:
    cutter, chunk = LineCutter(5, longest=1_000_000), b"x" * 100_000
    tracemalloc.start()
    for _ in range(300):
        assert cutter.feed(chunk) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (long, short) = cutter.feed(b"\nshort\n")
    assert long == Line(
        5, b"x" * 4096, 30_000_006, "the line has 30000000 bytes; at most 1000000 are allowed"
    )
    assert short == Line(30_000_006, b"short", 30_000_012)
    assert peak < 3_000_000


def test_a_line_of_exactly_the_limit_is_whole() -> None:
    assert LineCutter(0, 10).feed(b"0123456789\n") == [Line(0, b"0123456789", 11)]
    with pytest.raises(StreamError, match="at least 1 byte"):
        LineCutter(0, 0)
