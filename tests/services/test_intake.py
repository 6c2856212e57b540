"""The message writer: whatever comes, in whatever cuts, is edited once and stored whole."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.model.ops import Refusal
from fumibako.proto.message.header import fields
from fumibako.services.intake import HEADER_MAX, MessageWriter
from fumibako.services.receive import without_forgeries
from fumibako.services.submit import completed
from fumibako.store.base import StoreRefused


class Written:
    """A body writer that keeps the octets."""

    def __init__(self) -> None:
        self.octets = b""

    def write(self, octets: bytes) -> None:
        self.octets += octets


def write(pieces: list[bytes], edit) -> tuple[bytes, MessageWriter]:
    body = Written()
    house = SimpleNamespace(store=SimpleNamespace(body_writer=lambda: body))
    writer = MessageWriter(house, edit)
    for piece in pieces:
        writer.write(piece)
    writer.close()
    return body.octets, writer


LINES = st.sampled_from([
    b"A: 1\r\n", b"Received: x\r\n", b"Return-Path: <a@b>\r\n", b"Bcc: c\r\n", b" folded\r\n", b"\r\n", b"text\r\n",
    b"Authentication-Results: h; x\r\n", b"bare\n", b"\r", b"\n", b":", b"From: a@b\r\n",
])
MESSAGES = st.lists(LINES | st.binary(max_size=8), max_size=12).map(b"".join)


@given(MESSAGES, st.integers(1, 40))
def test_any_cut_gives_the_same(message: bytes, size: int) -> None:
    def edit(header: bytes) -> bytes:
        return without_forgeries(header, "h")

    whole, first = write([message], edit)
    cut, second = write([message[at : at + size] for at in range(0, len(message), size)], edit)
    assert (whole, first.header, first.hops) == (cut, second.header, second.hops)
    assert message.startswith(first.header)
    assert whole.endswith(message[len(first.header) :])


@given(MESSAGES)
def test_an_edit_that_changes_nothing_stores_what_came(message: bytes) -> None:
    assert write([message], lambda header: header)[0] == message


@given(MESSAGES)
def test_taking_out_leaves_every_other_field_as_it_was(header: bytes) -> None:
    kept = without_forgeries(header, "h")
    names = {field.name.lower() for field in fields(kept)}
    assert b"return-path" not in names
    watched = (b"return-path", b"authentication-results")
    others = [header[field.start : field.end] for field in fields(header) if field.name.lower() not in watched]
    assert [one for one in others if one not in kept] == []


@given(MESSAGES)
def test_a_completed_header_has_what_it_must_have(header: bytes) -> None:
    made = completed(header, "id", "h", "now")
    names = [field.name.lower() for field in fields(made)]
    assert {b"date", b"message-id"} <= set(names)
    assert b"bcc" not in names and b"return-path" not in names


@pytest.mark.parametrize("size", [HEADER_MAX, HEADER_MAX + 1])
def test_a_header_without_end_is_not_held_for_ever(size: int) -> None:
    octets, writer = write([b"X" * 1000] * (size // 1000) + [b"X" * (size % 1000)], lambda header: header)
    assert writer.header_cut == (size > HEADER_MAX)
    assert octets == b"X" * size


def test_a_full_disk_is_told_at_the_end() -> None:
    class Full(Written):
        def write(self, octets: bytes) -> None:
            raise StoreRefused(Refusal.DISK_FULL)

    writer = MessageWriter(SimpleNamespace(store=SimpleNamespace(body_writer=Full)), lambda header: header)
    writer.write(b"A: 1\r\n\r\n")
    writer.write(b"more")
    writer.close()
    with pytest.raises(StoreRefused):
        asyncio.run(writer.finish(b""))
