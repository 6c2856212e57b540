"""Frames between the storage process and its workers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.model.frames import (
    MAX_FRAME_OCTETS,
    Answer,
    FrameBuffer,
    Hello,
    Request,
    format_frame,
    parse_from_storage,
    parse_to_storage,
)
from fumibako.model.ops import Deliver, Done, Operation, Refusal, Refused
from tests.contract.building import body, trace

DELIVER = Deliver(trace(1), body(b"\x00\xff" * 100), b"cache", (), 5)


@pytest.mark.parametrize("frame", [Hello(), Request(2**40, DELIVER)])
def test_round_trip_to_storage(frame: Hello | Request) -> None:
    octets, = FrameBuffer().feed(format_frame(frame))
    assert parse_to_storage(octets) == frame


@pytest.mark.parametrize("frame", [Hello(), Answer(1, Done()), Answer(2, Refused(Refusal.OVER_QUOTA, "full"))])
def test_round_trip_from_storage(frame: Hello | Answer) -> None:
    octets, = FrameBuffer().feed(format_frame(frame))
    assert parse_from_storage(octets) == frame


@given(payloads=st.lists(st.binary(max_size=50), max_size=8), data=st.data())
def test_frames_survive_any_cut(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(len(payload).to_bytes(4, "big") + payload for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    buffer, found = FrameBuffer(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += buffer.feed(stream[start:end])
    assert found == payloads


@given(octets=st.binary(max_size=100))
def test_any_octets_are_a_frame_or_a_value_error(octets: bytes) -> None:
    for parse in (parse_to_storage, parse_from_storage):
        try:
            assert parse(octets) is not None
        except ValueError:
            pass


def test_too_long() -> None:
    with pytest.raises(ValueError, match="too long"):
        FrameBuffer().feed((MAX_FRAME_OCTETS + 1).to_bytes(4, "big"))
    with pytest.raises(ValueError, match="too long"):
        format_frame(Request(1, Deliver(trace(1), body(bytes(MAX_FRAME_OCTETS)), b"", (), 0)))


def test_every_operation_crosses_the_border() -> None:
    """msgspec refuses a union whose members it can't tell apart; each has its own tag."""
    names = [kind.__name__ for kind in Operation.__args__]      # type: ignore[attr-defined]
    assert len(names) == len(set(names)) > 30
