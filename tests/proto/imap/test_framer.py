"""Lines and literals before anything is parsed; every limit of spec/reliability.md B1."""

import pytest

from fumibako.proto.imap.framer import (
    AFTER_LOGIN,
    BEFORE_LOGIN,
    Buffer,
    Framed,
    FrameError,
    Limits,
    Literal,
    find_literal,
    find_tag,
    is_message,
    read_command,
    skip_octets,
)


def frame(octets: bytes, limits: Limits = AFTER_LOGIN, *, literal_plus: bool = True) -> tuple[Framed | None, int, int]:
    """(the command or None when it is incomplete, invitations sent, octets left over)."""
    buffer, invitations = Buffer(), []
    buffer.receive_data(octets)
    reading = read_command(buffer, limits, lambda: invitations.append(1), literal_plus=literal_plus)
    try:
        next(reading)
    except StopIteration as done:
        return done.value, len(invitations), len(buffer)
    return None, len(invitations), len(buffer)


def test_lines():
    assert frame(b"a NOOP\r\nb") == (Framed(b"a NOOP"), 0, 1)
    assert frame(b"a NOOP\r") == (None, 0, 7)
    assert frame(b"a NOOP\n") == (None, 0, 7)
    assert frame(b"a \n\r\n") == (Framed(b"a \n"), 0, 0)


def test_literals_stay_in_place():
    octets = b"a LOGIN {2}\r\n\r\n {3+}\r\n{1}"
    assert frame(octets + b"\r\n") == (Framed(octets), 1, 0)


@pytest.mark.parametrize(("line", "literal"), [
    (b"x {5}", Literal(5, True, False)), (b"x {5+}", Literal(5, False, False)), (b"~{0}", Literal(0, True, True)),
    (b"~{7+}", Literal(7, False, True)), (b"{}", None), (b"{-1}", None), (b"{5} ", None), (b"{5", None),
    (b"{5++}", None), (b"{0x5}", None),
    (b"{1_0}", None), (b"{ 5}", None), (b"", None), (b"{00005}", Literal(5, True, False)),
])
def test_find_literal(line, literal):
    assert find_literal(line) == literal


def test_a_count_of_any_length_is_a_literal():
    literal = find_literal(b"a {" + b"9" * 5000 + b"+}")
    assert literal is not None and not literal.synchronizing and literal.size_octets >= 2**63


def test_find_tag():
    assert find_tag(b"a.1[] x") == b"a.1[]"
    for octets in (b"", b"a", b" a", b"a+ x", b"(a x", b'"a" x', b"a\x00 x", b"\xff x"):
        assert find_tag(octets) is None


@pytest.mark.parametrize(("line", "before", "message"), [
    (b"a APPEND INBOX {5}", 0, True), (b"a APPEND {5}", 0, False), (b"a append {5+}", 0, False), (b"a APPEND {5}", 1, True),
    (b"a APPEND x (\\Seen) {5}", 0, True), (b"a LOGIN APPEND {5}", 0, False), (b"a APPENDX {5}", 0, False),
    (b"a APPEND ~{5}", 0, False),
])
def test_is_message(line, before, message):
    assert is_message(line, before) is message


def test_appends_message_is_announced():
    assert frame(b"a APPEND INBOX (\\Seen) {9999999}\r\n") == (
        Framed(b"a APPEND INBOX (\\Seen) {9999999}", Literal(9999999, True, False)), 0, 0)
    assert frame(b"a APPEND {5+}\r\nINBOX {3+}\r\nabc") == (
        Framed(b"a APPEND {5+}\r\nINBOX {3+}", Literal(3, False, False)), 0, 3)


@pytest.mark.parametrize(("limits", "octets", "fatal"), [
    (BEFORE_LOGIN, b"a LOGIN {4097}\r\n", False),
    (BEFORE_LOGIN, b"a LOGIN {4097+}\r\n", True),
    (BEFORE_LOGIN, b"a LOGIN {4294967295}\r\n", False),
    (BEFORE_LOGIN, b"a LOGIN {4096+}\r\n" + b"x" * 4096 + b" {4096+}\r\n", True),
    (BEFORE_LOGIN, b"a LOGIN {4096+}\r\n" + b"x" * 4096 + b" {4096}\r\n", False),
    (BEFORE_LOGIN, b"a " + b"x" * 8192, True),
    (BEFORE_LOGIN, b"a {1+}\r\nx" + b"{1+}\r\nx" * 1000, True),
    (AFTER_LOGIN, b"a SEARCH {102401}\r\n", False),
    (AFTER_LOGIN, b"a SEARCH {102401+}\r\n", True),
    (AFTER_LOGIN, b"a SEARCH {1+}\r\nx" + b"{1+}\r\nx" * 1000, True),
    (AFTER_LOGIN, b"a SEARCH " + (b"{102400+}\r\n" + b"x" * 102400) * 11, True),
    (AFTER_LOGIN, b"a SEARCH " + b"x" * 65536, True),
    (AFTER_LOGIN, (b"a SEARCH " + b"x" * 60000 + b"{1+}\r\nx") + (b"x" * 60000 + b"{1+}\r\nx") * 18, True),
])
def test_limits(limits, octets, fatal):
    with pytest.raises(FrameError) as refused:
        frame(octets, limits)
    assert refused.value.fatal is fatal
    assert refused.value.tag == b"a"


def test_literal_minus():
    assert frame(b"a SEARCH {4096+}\r\n", literal_plus=False)[0] is None
    assert frame(b"a SEARCH {4097}\r\n", literal_plus=False)[1] == 1
    with pytest.raises(FrameError) as refused:
        frame(b"a SEARCH {4097+}\r\n", literal_plus=False)
    assert refused.value.fatal


def test_nothing_is_held_beyond_the_limit():
    """A line that never ends: refused as soon as it is too long, whatever the pieces."""
    buffer = Buffer()
    reading = read_command(buffer, AFTER_LOGIN, lambda: None, literal_plus=True)
    with pytest.raises(FrameError):
        for _ in range(100):
            buffer.receive_data(b"x" * 1000)
            next(reading)
    assert len(buffer) <= AFTER_LOGIN.line_octets + 1001


def test_what_is_skipped_is_not_kept():
    buffer = Buffer()
    skipping = skip_octets(buffer, 10_000_000)
    for _ in range(153):
        buffer.receive_data(b"x" * 65536)
        for _ in skipping:
            break
        assert len(buffer) < 65536 * 2
    assert list(skipping) == []
    assert len(buffer) == 153 * 65536 - 10_000_000
