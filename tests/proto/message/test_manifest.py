"""fumibako.json: JSON for everybody, lines for us; any damage names its line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.message.manifest import (
    ManifestError,
    ManifestHead,
    ManifestMailbox,
    ManifestMessage,
    ManifestWriter,
    Record,
    parse_manifest,
)

RECORDS: list[Record] = [
    ManifestHead("alice@example.jp", "mbox", ("INBOX", "日本語\u2028"), True), ManifestMailbox("INBOX", "", 1, 3, "INBOX.mbox"),
    ManifestMessage("INBOX.mbox", 1, ("\\Seen", "$Junk"), 5, 6, 7, "a" * 64, 10, 7, "lf"),
    ManifestMessage("INBOX.mbox", 2, (), 0, 0, 0, "0" * 64), ManifestMailbox("送信済み", "\\Sent", 2, 1, "x"),
]


def written(records: list[Record]) -> bytes:
    writer, octets = ManifestWriter(), b""
    for record in records:
        match record:
            case ManifestHead():
                octets += writer.head(record)
            case ManifestMailbox():
                octets += writer.mailbox(record)
            case ManifestMessage():
                octets += writer.message(record)
    return octets + writer.close()


def lines(octets: bytes) -> list[bytes]:
    return [line + b"\n" for line in octets.split(b"\n")[:-1]]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_it_comes_back_and_is_json(count: int) -> None:
    octets = written(RECORDS[:count])
    assert list(parse_manifest(lines(octets))) == RECORDS[:count]
    assert len(json.loads(octets)["mailboxes"]) == sum(isinstance(one, ManifestMailbox) for one in RECORDS[:count])


@given(st.data())
def test_cut_anywhere_it_is_damaged(data: st.DataObject) -> None:
    octets = written(RECORDS)
    cut = octets[: data.draw(st.integers(0, len(octets) - 1))]
    whole = [part + b"\n" for part in cut.split(b"\n")]
    with pytest.raises(ManifestError, match=r"line \d"):
        list(parse_manifest([*whole[:-1], whole[-1][:-1]] if whole[-1] != b"\n" else whole[:-1]))


@pytest.mark.parametrize(("old", "new", "line"), [
    (b'"version": 1', b'"version": 2', 1), (b'"store": "mbox"', b'"store": "pst"', 1), (b'"name": "INBOX"', b'"name": ""', 2),
    (b'"uid": 1', b'"uid": -1', 3), (b'"uid": 1', b'"uid": true', 3), (b'"uid": 1', b'"uid": "1"', 3), (b"aaaa", b"AAAA", 3),
    (b'"flags": []', b'"flags": [1]', 4), (b'"lf"', b'"cr"', 3), (b'"\\\\Seen"', b'"\\ud800"', 3), (b"]},", b"]}", 6),
    (b'"uid": 1', b'"uid": ' + b"[" * 5000, 3),
])
def test_damage_names_its_line(old: bytes, new: bytes, line: int) -> None:
    octets = written(RECORDS)
    assert old in octets
    with pytest.raises(ManifestError) as error:
        list(parse_manifest(lines(octets.replace(old, new, 1))))
    assert error.value.line == line
