"""The parts of messages and where they lie; the same for every cut; limits."""

import email
import sys
import tracemalloc
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.cache import pack_index, unpack_index
from fumibako.proto.message.compose import Entity, compose, format_entity, multipart_entity, raw_entity
from fumibako.proto.message.index import MAX_DEPTH, MAX_HEADER_OCTETS, MAX_PARTS, Indexer, Part
from tests.proto.message.messages import MULTIPART, NESTED, PLAIN, SHAPES, bombs, index_of


def kinds(message: bytes) -> list[tuple[str, bytes]]:
    return [(part.media_type, message[part.body_offset : part.end_offset]) for part in index_of(message).root.walk()]


def test_nested() -> None:
    parts = list(index_of(NESTED).root.walk())
    assert [(part.media_type, part.lines) for part in parts] == [
        ("multipart/mixed", 0),
        ("text/plain", 1),
        ("message/rfc822", 12),
        ("multipart/alternative", 0),
        ("text/plain", 0),
        ("text/html", 0),
        ("application/pdf", 0),
    ]
    bodies = [NESTED[part.body_offset : part.end_offset] for part in parts]
    assert bodies[1] == b"hello\r\nworld"
    assert bodies[2].startswith(b"Subject: inner\r\n") and bodies[2].endswith(b"\r\n--abc-inner--")
    assert bodies[4:] == [b"x", b"<p>y</p>", b"QUJD"]
    assert NESTED[parts[6].header_offset :].startswith(b"Content-Type: application/pdf")
    assert bodies[0].endswith(b"epilogue\r\n")
    pdf = parts[6]
    assert (pdf.encoding, pdf.content_id, pdf.disposition, pdf.file_name) == ("base64", b"<1@x>", "attachment", "日.pdf")
    assert parts[5].charset == "utf-8"


def test_summary_and_preview() -> None:
    index = index_of(NESTED)
    assert index.summary.cc == b"list: x@y;, second@example.jp"
    assert index.summary.references == b"<r1@y> <r2@y>"
    assert index.summary.bcc is None
    assert index.field("message-id") == b"<x@y>" and index.field("bcc") == b"" and index.field("x") == b""
    assert index.root.children[1].children[0].summary is not None
    assert index.root.children[1].children[0].summary.subject == b"inner"
    assert index.preview == "hello world"
    assert index.size_octets == len(NESTED)
    assert index.summary == index.root.summary


@pytest.mark.parametrize("message", SHAPES)
def test_every_cut_is_the_same(message: bytes) -> None:
    whole = index_of(message)
    assert index_of(message, 1) == whole
    for cut in range(1, len(message)):
        indexer = Indexer()
        indexer.feed(message[:cut])
        indexer.feed(message[cut:])
        assert indexer.close() == whole


LINES = st.lists(
    st.sampled_from(
        [
            b"Content-Type: multipart/mixed; boundary=a",
            b"Content-Type: multipart/mixed; boundary=ab",
            b"Content-Type: message/rfc822",
            b"Content-Type: multipart/digest; boundary=a",
            b"Content-Type: text/html",
            b"--a",
            b"--a--",
            b"--ab",
            b"--ab--",
            b"",
            b"x",
            b"--",
            b"-",
            b"Subject: s",
            b"Content-Transfer-Encoding: base64",
        ]
    ),
    max_size=30,
)


@given(LINES, st.sampled_from([b"\r\n", b"\n"]), st.integers(1, 9))
def test_structure_is_sound(lines: list[bytes], line_end: bytes, step: int) -> None:
    message = line_end.join(lines)
    index = index_of(message)
    assert index_of(message, step) == index
    for part in index.root.walk():
        assert 0 <= part.header_offset <= part.body_offset <= part.end_offset <= len(message)
        at = part.body_offset
        for child in part.children:  # children lie in order within the body
            assert at <= child.header_offset <= child.end_offset <= part.end_offset
            at = child.end_offset
        if part.media_type.startswith("multipart/"):
            assert part.children
        if part.is_message:
            assert len(part.children) == 1
            assert part.children[0].summary is not None


@given(st.binary(max_size=300))
def test_any_octets_have_an_index(message: bytes) -> None:
    index = index_of(message)
    assert index.size_octets == len(message)
    assert index_of(message, 3) == index
    assert unpack_index(pack_index(index)).root == index.root


def test_no_closing_delimiter_and_epilogue() -> None:
    assert kinds(MULTIPART + b"--b\r\n\r\nx\r\ny")[1:] == [("text/plain", b"x\r\ny")]
    assert kinds(MULTIPART + b"--b\r\n\r\nx\r\n--b--\r\n--b\r\n\r\ny")[1:] == [("text/plain", b"x")]


def test_a_longer_line_is_no_delimiter() -> None:
    assert kinds(MULTIPART + b"--b\r\n\r\nx\r\n--bc\r\n--b-\r\n--b--")[1:] == [("text/plain", b"x\r\n--bc\r\n--b-")]


def test_a_delimiter_in_the_header() -> None:
    assert kinds(MULTIPART + b"--b\r\nContent-Type: text/html\r\n--b\r\n\r\ny\r\n--b--")[1:] == [
        ("text/html", b""),
        ("text/plain", b"y"),
    ]
    assert kinds(b"Subject: x\r\n--b\r\n\r\ny") == [("text/plain", b"y")]  # nobody's delimiter


def test_digest_and_defaults() -> None:
    digest = MULTIPART.replace(b"mixed", b"digest") + b"--b\r\n\r\nSubject: d\r\n\r\nx\r\n--b--"
    assert kinds(digest)[1:] == [("message/rfc822", b"Subject: d\r\n\r\nx"), ("text/plain", b"x")]
    assert index_of(b"\r\nx").root.parameters == ((b"charset", b"us-ascii"),)


@pytest.mark.parametrize(
    ("header", "media_type"),
    [
        (b"text", "text/plain"),
        (b"/", "text/plain"),
        (b"", "text/plain"),
        (b"TEXT/Html; x", "text/html"),
        (b"a/b c", "a/b"),
        (b"multipart/mixed", "text/plain"),
        (b"multipart/mixed; boundary=zz", "text/plain"),
        (b'multipart/mixed; boundary=""', "text/plain"),
        (b"message/rfc822\r\nContent-Transfer-Encoding: base64", "application/octet-stream"),
        (b"message/partial", "message/partial"),
        (b"x\xe3/y", "text/plain"),
    ],
)
def test_what_cannot_be_divided_is_a_leaf(header: bytes, media_type: str) -> None:
    message = b"Content-Type: " + header + b"\r\n\r\nbody"
    assert kinds(message) == [(media_type, b"body")]


def depth_of(part: Part) -> int:
    depth, level = 0, [part]
    while level := [child for part in level for child in part.children]:
        depth += 1
    return depth


def test_limits() -> None:
    shapes = dict(bombs(1_000_000))
    assert depth_of(index_of(shapes["deep multiparts"]).root) == MAX_DEPTH
    deepest = list(index_of(shapes["deep messages"]).root.walk())[-1]
    assert (deepest.media_type, deepest.end_offset) == ("application/octet-stream", len(shapes["deep messages"]))
    many = shapes["empty parts"]
    parts = list(index_of(many).root.walk())
    assert len(parts) == MAX_PARTS
    assert parts[-1].end_offset == len(many)  # the last part has all that is left
    long = b"X: y\r\n" * (MAX_HEADER_OCTETS // 6 + 1) + MULTIPART + b"--b\r\n\r\nx"
    root = index_of(long).root
    assert root == index_of(long, 777).root
    assert long[root.body_offset :] == b"--b\r\n\r\nx" and root.children == ()


NAMES = [name for name, _ in bombs(1)]


@pytest.mark.parametrize("name", NAMES)
def test_bombs(name: str) -> None:
    """An index within memory of 3 times the size and 20 MB, whole, and a cache that reads back."""
    message = dict(bombs(60_000))[name]
    tracemalloc.start()
    index = index_of(message)
    packed = pack_index(index)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * len(message) + 20_000_000
    assert index.size_octets == index.root.end_offset == len(message)
    assert sum(1 for _ in index.root.walk()) <= MAX_PARTS
    assert depth_of(index.root) <= MAX_DEPTH
    assert unpack_index(packed).root == index.root


def calls_to_index(message: bytes) -> int:
    """How many functions, Python's and C's, an index and its cache take."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        pack_index(index_of(message, 4096))
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("name", NAMES)
def test_work_is_linear(name: str) -> None:
    """Twice the size is at most about twice the calls."""
    small, large = (dict(bombs(size))[name] for size in (20_000, 40_000))
    assert calls_to_index(large) <= 2.2 * calls_to_index(small) + 2000


def test_dull_octets_cost_no_calls() -> None:
    """A body is searched in C: per 64 KiB a few calls, whatever is in it."""
    base64 = MULTIPART + b"--b\r\nContent-Type: a/b\r\n\r\n" + b"QUJD" * 19 + b"\r\n"
    body = (b"QUJD" * 19 + b"\r\n") * 10_000
    chunks = len(body) // 65536 + 1
    indexer = Indexer()
    indexer.feed(base64)
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    for at in range(0, len(body), 65536):
        indexer.feed(body[at : at + 65536])
    sys.setprofile(None)
    assert calls <= 20 * chunks


def test_the_corpus_is_large_enough() -> None:
    assert len(list(bombs(1))) >= 25


def test_against_the_standard_library() -> None:
    for message in (PLAIN, NESTED):
        parsed = email.message_from_bytes(message)
        theirs = [(part.get_content_type(), part.get_payload()) for part in parsed.walk()]
        ours = kinds(message)
        assert [kind for kind, _ in ours] == [kind for kind, _ in theirs]
        for (_, body), (_, payload) in zip(ours, theirs, strict=True):
            assert not isinstance(payload, str) or payload.replace("\r\n", "\n").encode() == body.replace(b"\r\n", b"\n")


LEAVES = st.binary(max_size=30).filter(lambda body: b"--" not in body).map(lambda body: raw_entity("application/x-y", body))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: multipart_entity("mixed", parts)),
        inner.map(lambda entity: raw_entity("message/rfc822", b"Subject: inner\r\n" + format_entity(entity))),
    ),
    max_leaves=12,
)


@given(TREES)
def test_trees_are_found_as_the_standard_library_finds_them(tree: Entity) -> None:
    message = compose((("Subject", "outer"),), [tree])
    theirs = [part.get_content_type() for part in email.message_from_bytes(message).walk()]
    assert [part.media_type for part in index_of(message).root.walk()] == theirs
