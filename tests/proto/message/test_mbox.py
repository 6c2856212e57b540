"""mbox: what the quoting does is undone, however the octets are cut; From_ lines of many programs are known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.mbox import (
    LineFeeds,
    NetworkLines,
    Quoter,
    Unquoter,
    flags_of,
    format_flag_fields,
    format_from_line,
    parse_from_line,
)

WORDS = (b"From ", b">", b">>", b"\n", b"\r\n", b"\r", b"F", b"Fro", b"From", b" ", b"x")
OCTETS = st.lists(st.sampled_from(WORDS)).map(b"".join)
CUTS = st.lists(st.integers(0, 12), min_size=1)


def through(filter_: Quoter | Unquoter | NetworkLines | LineFeeds, octets: bytes, cuts: list[int]) -> bytes:
    found, at = b"", 0
    for size in cuts:
        found += filter_.feed(octets[at : at + size])
        at += size
    found += filter_.feed(octets[at:])
    return found if isinstance(filter_, NetworkLines) else found + filter_.close()


@given(OCTETS, CUTS, CUTS)
def test_unquoting_undoes_quoting(octets: bytes, cuts: list[int], others: list[int]) -> None:
    quoted = through(Quoter(), octets, cuts)
    assert quoted == through(Quoter(), octets, [])
    assert not any(line.startswith(b"From ") for line in quoted.split(b"\n"))
    assert through(Unquoter(), quoted, others) == octets


@given(OCTETS, CUTS)
def test_line_ends(octets: bytes, cuts: list[int]) -> None:
    assert through(NetworkLines(), octets, cuts) == octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    lines = LineFeeds()
    feeds = through(lines, octets, cuts)
    if lines.exact:
        assert feeds.replace(b"\n", b"\r\n") == octets
    assert lines.exact == (octets.replace(b"\r\n", b"").count(b"\r") + octets.replace(b"\r\n", b"").count(b"\n") == 0)


@given(st.integers(0, 253402300799999))
def test_a_date_comes_back_to_the_second(at_ms: int) -> None:
    line = format_from_line(at_ms)
    assert parse_from_line(line) == at_ms // 1000 * 1000


@pytest.mark.parametrize(("line", "at_ms"), [
    (b"From a@b Thu Nov 24 18:22:48 1986\n", 533240568000), (b"From a@b  Thu Nov 24 18:22 1986\r\n", 533240520000),
    (b"From a@b Thu Nov 24 18:22:48 1986 +0100\n", 533236968000), (b"From - Thu Nov 24 18:22:48 1986\n", 533240568000),
    (b"From a@b Thu Nov 24 18:22:48 JST 1986\n", 533240568000), (b"From 123@xxx Thu Nov 24 18:22:48 +0000 1986\n", 533240568000),
    (b"From a@b\n", None), (b"From a@b Thu Foo 24 18:22:48 1986\n", None), (b"From a@b Thu Feb 31 18:22:48 1986\n", None),
    (b"from a@b Thu Nov 24 18:22:48 1986\n", None), (b"From the 24 of Nov 1986 on\n", None),
])
def test_from_lines(line: bytes, at_ms: int | None) -> None:
    assert parse_from_line(line) == at_ms


@pytest.mark.parametrize("flags", [
    (), ("\\Seen",), ("\\Answered", "\\Deleted", "\\Draft", "\\Flagged"), ("\\Seen", "$Junk", "work"),
])
def test_flags_come_back(flags: tuple[str, ...]) -> None:
    lines = (line.split(b": ", 1) for line in format_flag_fields(flags).split(b"\n")[:-1])
    assert sorted(flags_of({name.lower(): value for name, value in lines})) == sorted(flags)
