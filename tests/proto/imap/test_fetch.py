"""FETCH items, their sections, and the labels their responses bear."""

import pytest

from fumibako.proto.imap.commands import Fetch, FetchItem, FetchKind, Section, SequenceSet
from fumibako.proto.imap.parse import parse_command
from fumibako.proto.imap.scanner import Context
from fumibako.proto.reader import ProtocolError


def parse(octets: bytes) -> Fetch:
    command = parse_command(b"a " + octets, Context())[1]
    assert isinstance(command, Fetch)
    return command


def item(octets: bytes) -> FetchItem:
    (only,) = parse(b"FETCH 1 (" + octets + b")").items
    return only


def test_macros_are_expanded():
    fast = [FetchKind.FLAGS, FetchKind.INTERNALDATE, FetchKind.SIZE]
    for macro, kinds in (
        (b"FAST", fast), (b"ALL", [*fast, FetchKind.ENVELOPE]), (b"full", [*fast, FetchKind.ENVELOPE, FetchKind.BODY]),
    ):
        assert [entry.kind for entry in parse(b"FETCH 2:4 " + macro).items] == kinds


@pytest.mark.parametrize(("octets", "expected"), [
    (b"FLAGS", FetchItem(FetchKind.FLAGS, label=b"FLAGS")),
    (b"rfc822.size", FetchItem(FetchKind.SIZE, label=b"RFC822.SIZE")),
    (b"RFC822.HEADER", FetchItem(FetchKind.RFC822_HEADER, peek=True, label=b"RFC822.HEADER")),
    (b"RFC822.TEXT", FetchItem(FetchKind.RFC822_TEXT, label=b"RFC822.TEXT")),
    (b"BODY", FetchItem(FetchKind.BODY, label=b"BODY")),
    (b"BODY[]", FetchItem(FetchKind.SECTION, label=b"BODY[]")),
    (b"BODY.PEEK[]<0.2048>", FetchItem(FetchKind.SECTION, peek=True, partial=(0, 2048), label=b"BODY[]<0>")),
    (b"BODY[HEADER]", FetchItem(FetchKind.SECTION, Section((), "HEADER"), label=b"BODY[HEADER]")),
    (b"body.peek[text]", FetchItem(FetchKind.SECTION, Section((), "TEXT"), peek=True, label=b"BODY[TEXT]")),
    (b"BODY[1.2.3]", FetchItem(FetchKind.SECTION, Section((1, 2, 3)), label=b"BODY[1.2.3]")),
    (b"BODY[4.1.MIME]", FetchItem(FetchKind.SECTION, Section((4, 1), "MIME"), label=b"BODY[4.1.MIME]")),
    (b"BODY[3.HEADER.FIELDS.NOT (To)]",
     FetchItem(FetchKind.SECTION, Section((3,), "HEADER.FIELDS.NOT", (b"To",)), label=b"BODY[3.HEADER.FIELDS.NOT (To)]")),
    (b'BODY.PEEK[HEADER.FIELDS (DATE "From" {2}\r\nCc)]<5.9>',
     FetchItem(FetchKind.SECTION, Section((), "HEADER.FIELDS", (b"DATE", b"From", b"Cc")), peek=True, partial=(5, 9),
               label=b"BODY[HEADER.FIELDS (DATE From Cc)]<5>")),
    (b'BODY[HEADER.FIELDS ("a(b")]',
     FetchItem(FetchKind.SECTION, Section((), "HEADER.FIELDS", (b"a(b",)), label=b'BODY[HEADER.FIELDS ("a(b")]')),
    (b"BINARY[2]", FetchItem(FetchKind.BINARY, Section((2,)), label=b"BINARY[2]")),
    (b"BINARY.PEEK[1.1]<3.4>", FetchItem(FetchKind.BINARY, Section((1, 1)), peek=True, partial=(3, 4), label=b"BINARY[1.1]<3>")),
    (b"BINARY.SIZE[1]", FetchItem(FetchKind.BINARY_SIZE, Section((1,)), peek=True, label=b"BINARY.SIZE[1]")),
    (b"PREVIEW (LAZY)", FetchItem(FetchKind.PREVIEW, label=b"PREVIEW")),
], ids=lambda value: value[:30] if isinstance(value, bytes) else "")
def test_items(octets, expected):
    assert item(octets) == expected


def test_label_is_what_an_item_is_asked_for_with():
    for octets in (b"BODY[1.2.HEADER.FIELDS (a b)]", b"BINARY[3]", b"BODY[]", b"BINARY.SIZE[1.1]"):
        assert item(octets).label == octets


def test_repeated_items_are_one():
    assert len(parse(b"FETCH 1 (FLAGS UID flags BODY[] BODY[])").items) == 3


def test_modifiers():
    assert parse(b"UID FETCH 300:500 (FLAGS) (CHANGEDSINCE 12345 VANISHED)") == Fetch(
        SequenceSet(((300, 500),)), (FetchItem(FetchKind.FLAGS, label=b"FLAGS"),), uid=True, changed_since=12345, vanished=True)


@pytest.mark.parametrize("octets", [
    b"FETCH 1 ()", b"FETCH 1 (ALL)", b"FETCH 1 FOO", b"FETCH 1 FLAGS UID", b"FETCH 1 (FLAGS,UID)",
    b"FETCH 1 BODY[FOO]", b"FETCH 1 BODY[1",
    b"FETCH 1 BODY[1.]", b"FETCH 1 BODY[0]", b"FETCH 1 BODY[MIME]", b"FETCH 1 BODY[HEADER.FIELDS]",
    b"FETCH 1 BODY[HEADER.FIELDS ()]",
    b"FETCH 1 BODY[]<0.0>", b"FETCH 1 BODY[]<0>", b"FETCH 1 BODY[]<-1.5>", b"FETCH 1 BINARY[HEADER]", b"FETCH 1 BINARY[1.TEXT]",
    b"FETCH 1 BINARY.SIZE[1]<0.1>", b"FETCH 1 FLAGS[1]", b"FETCH 1 BODY[4294967296]", b'FETCH 1 BODY[HEADER.FIELDS ("a\r\nb")]',
    b'FETCH 1 BODY[HEADER.FIELDS ("")]', b"FETCH 1 BODY[HEADER.FIELDS ({3}\r\na\r\n)]", b"FETCH 1 FLAGS (CHANGEDSINCE)",
    b"FETCH 1 FLAGS (VANISHED)", b"FETCH 1 FLAGS (CHANGEDSINCE 5 VANISHED)", b"FETCH 1 FLAGS (FOO)", b"FETCH 1,, FLAGS",
    b"FETCH 1 BODY[" + b"1." * 200 + b"1]",
])
def test_refused(octets):
    with pytest.raises(ProtocolError):
        parse(octets)
