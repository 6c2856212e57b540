"""Messages for the tests of this folder, and the bomb corpus of spec/reliability.md B10."""

from collections.abc import Iterator

from fumibako.proto.message.index import Indexer, MessageIndex


def crlf(text: str) -> bytes:
    return text.encode().replace(b"\n", b"\r\n")


def index_of(message: bytes, step: int = 65536) -> MessageIndex:
    """The index of a message that came in chunks of `step` octets."""
    indexer = Indexer()
    for at in range(0, len(message), step):
        indexer.feed(message[at : at + step])
    return indexer.close()


NESTED = crlf("""\
From: =?ISO-2022-JP?B?GyRCOzNFRBsoQg==?= <yamada@example.jp>
To: a@example.jp, "B, C" <c@example.jp>
Cc: list: x@y;
Cc: second@example.jp
Subject: =?ISO-2022-JP?B?GyRCRnxLXBsoQg==?=
Date: Fri, 26 Sep 2025 14:05:00 +0900
Message-ID: <x@y>
References: <r1@y>
 <r2@y>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="abc"

preamble
--abc
Content-Type: text/plain; charset=utf-8

hello
world
--abc
Content-Type: message/rfc822
Content-Description: forwarded

Subject: inner
From: i@example.jp
Content-Type: multipart/alternative; boundary=abc-inner

--abc-inner

x
--abc-inner
Content-Type: text/html; charset=utf-8
Content-Language: ja, en

<p>y</p>
--abc-inner--
--abc
Content-Type: application/pdf; name="=?UTF-8?B?5pel?="
Content-Disposition: attachment; filename*0*=UTF-8''%E6%97;
 filename*1*=%A5.pdf
Content-ID: <1@x>
Content-Location: http://x/
Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==
Content-Transfer-Encoding: BASE64

QUJD
--abc--
epilogue
""")

PLAIN = crlf("""\
From: Alice <alice@example.jp>
To: Bob <bob@example.jp>
Subject: Hello
Date: Fri, 26 Sep 2025 14:05:00 +0900
Message-ID: <1@example.jp>

One line.
Two lines.
""")

_MIXED = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"
_DIGEST = b"Content-Type: multipart/digest; boundary=a\r\n\r\n"

SHAPES = [
    PLAIN,
    NESTED,
    PLAIN.replace(b"\r\n", b"\n"),
    NESTED.replace(b"\r\n", b"\n"),
    NESTED[:-40],
    NESTED[:400],
    b"",
    b"\r\n",
    b"\n",
    b"x",
    b"Subject: no body",
    b"Subject: no blank line\r\n",
    b"\r\nno header",
    b"From x Fri\r\nSubject: mbox\r\n\r\nbody",
    _MIXED + b"--a\r\n--a\r\n\r\n--a--",
    _MIXED + b"--a\r\nContent-Type: text/html\r\n--a--\r\n",
    _DIGEST + b"--a\r\n\r\nSubject: d\r\n\r\nx\r\n--a\r\nContent-Type: text/plain\r\n\r\ny\r\n--a--",
    _MIXED + b"--a\r\n" + _MIXED + b"--a\r\n\r\nx\r\n--a--\r\n--a--\r\n",
    _MIXED + b"--a  \t\r\n\r\nx\r\n--ab\r\n--a \r\n\r\ny\r\n--a-- \r\n--a\r\n\r\nz",
    b"Content-Type: message/rfc822\r\n\r\nContent-Type: message/rfc822\r\n\r\nSubject: deep\r\n\r\nx",
    b"Content-Type: message/rfc822",
]


def _nest(depth: int, boundary: str) -> bytes:
    header = b'Content-Type: multipart/mixed; boundary="%b"\r\n\r\n--%b\r\n'
    return b"".join(header % ((name := boundary.replace("%d", str(level)).encode()), name) for level in range(depth)) + b"\r\nx"


MULTIPART = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def bombs(octets: int) -> Iterator[tuple[str, bytes]]:
    """Shapes that broke other parsers, each about `octets` long (those whose size is their depth are smaller)."""

    def fill(piece: bytes, head: bytes = b"") -> bytes:
        return head + piece * max(1, (octets - len(head)) // len(piece))

    yield "deep multiparts", _nest(900, "b%d")
    yield "deep multiparts with one boundary", _nest(2000, "b")
    yield "boundaries that begin alike", _nest(150, "b" * 40 + "%d")
    yield (
        "each boundary begins the next",
        b"".join(b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n" % (b"b" * n, b"b" * n) for n in range(1, 150)),
    )
    yield "deep messages", fill(b"Content-Type: message/rfc822\r\n\r\n")
    yield "deep digests", b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n" * 500
    yield "parts without end", fill(b"--b\r\n\r\nx\r\n", MULTIPART)
    yield "empty parts", fill(b"--b\r\n", MULTIPART)
    yield "closing delimiters", fill(b"--b--\r\n", MULTIPART)
    yield "almost delimiters", fill(b"--bx\n", MULTIPART)
    yield "dashes", fill(b"\n--", MULTIPART)
    yield "deep and then dashes", fill(b"\n--x", _nest(99, "b%d"))
    yield "one endless delimiter line", fill(b"b", MULTIPART + b"--")
    yield "delimiter with endless padding", fill(b" ", MULTIPART + b"--b")
    yield "one endless line", fill(b"x", b"\r\n")
    yield "empty lines", fill(b"\n", MULTIPART)
    yield "endless header", fill(b"X-A: b\r\n")
    yield "one endless field", fill(b" x\r\n", b"Subject: y\r\n")
    yield "endless field name", fill(b"x")
    yield "header lines without colon", fill(b"x\n")
    yield "endless Content-Type", fill(b"; a=b", b"Content-Type: text/plain")
    yield "RFC 2231 segments", b"Content-Type: text/plain" + b"".join(b"; a*%d*=%%41" % n for n in range(octets // 20))
    yield "one RFC 2231 segment again and again", fill(b"; a*0*=x", b"Content-Type: text/plain")
    yield "unclosed quotes in parameters", fill(b'; a="', b"Content-Type: text/plain")
    yield "escapes in parameters", fill(b'\\"', b'Content-Type: text/plain; a="')
    yield "empty words", fill(b"=?", b"Subject: ")
    yield "words", fill(b"=?utf-8?q?a?= ", b"Subject: ")
    yield "words of alternating charsets", fill(b"=?utf-8?b?YQ==?= =?x?b?YQ==?= ", b"From: ")
    yield "nested comments", fill(b"(", b"To: ")
    yield "addresses", fill(b"a@b,", b"To: ")
    yield "address fields", fill(b"To: a@b\r\n")
    yield "quotes in addresses", fill(b'"\\"', b"To: ")
    yield "groups", fill(b"a:;", b"To: ")
    yield (
        "long boundary",
        b"Content-Type: multipart/mixed; boundary=" + b"b" * 100_000 + b"\r\n\r\n--" + b"b" * 100_000 + b"\r\n\r\nx",
    )
    yield "unclosed HTML comments", fill(b"<!--", b"Content-Type: text/html\r\n\r\n")
    yield "unclosed tags", fill(b"<a ", b"Content-Type: text/html\r\n\r\n")
    yield "NULs", fill(b"\x00", b"Content-Type: \x00multipart/\x00; boundary=\x00\r\nSubject: \x00\r\n\r\n")
    yield "escapes", fill(b"\x1b$B", b"Subject: ")
    yield (
        "headers of many messages",
        fill(MULTIPART + b"--b\r\n" + b"Content-Type: message/rfc822\r\n\r\nX: " + b"y" * 50_000 + b"\r\n"),
    )
