"""What the storage process and its workers say to each other: frames of a 4-octet length and msgpack.

Contract: the first frame each way is a Hello; a Request is answered by exactly one Answer or Failure with its id, and
    the Told of a change leaves before the Answer of the operation that made it.
Failure: ValueError for a frame that is too long or isn't one of these (msgspec.DecodeError is a ValueError).
"""

from __future__ import annotations

import msgspec

from fumibako.model.change import Change, Rang, Revoked
from fumibako.model.ids import AccountId, EmailId
from fumibako.model.ops import Operation, Result

PROTOCOL_VERSION = 1
MAX_FRAME_OCTETS = 16 * 1024 * 1024
MAX_IN_FLIGHT = 64
MAX_IN_FLIGHT_OCTETS = 8 * 1024 * 1024


class Hello(msgspec.Struct, frozen=True, tag=True, array_like=True):
    version: int = PROTOCOL_VERSION


class PutCache(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Give a rebuilt packed index back to the store. Answer: Done, also when the message is gone."""

    account_id: AccountId
    email_id: EmailId
    cache: bytes


class MakeSecret(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Make the random key of this name unless there is one. Answer: Done."""

    name: str


Command = Operation | PutCache | MakeSecret


class Request(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int
    operation: Command


class Answer(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int
    result: Result


class Failure(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The operation ended without a result: nothing is known about it."""

    id: int
    reason: str


class Told(msgspec.Struct, frozen=True, tag=True, array_like=True):
    change: Change


class Closing(msgspec.Struct, frozen=True, tag=True, array_like=True):
    revoked: Revoked


class Ringing(msgspec.Struct, frozen=True, tag=True, array_like=True):
    rang: Rang = Rang()


ToStorage = Hello | Request
FromStorage = Hello | Answer | Failure | Told | Closing | Ringing

_encoder = msgspec.msgpack.Encoder()
parse_to_storage = msgspec.msgpack.Decoder(ToStorage).decode
parse_from_storage = msgspec.msgpack.Decoder(FromStorage).decode


def format_frame(frame: ToStorage | FromStorage) -> bytes:
    """The frame with its length in front."""
    octets = _encoder.encode(frame)
    if len(octets) > MAX_FRAME_OCTETS:
        raise ValueError(f"a frame of {len(octets)} octets is too long")
    return len(octets).to_bytes(4, "big") + octets


class FrameBuffer:
    """Cuts a stream of octets into frames."""

    __slots__ = ("_octets",)

    def __init__(self) -> None:
        self._octets = bytearray()

    def feed(self, octets: bytes) -> list[bytes]:
        """The frames (without length) that are whole now."""
        buffer = self._octets
        buffer += octets
        frames, start = [], 0
        while len(buffer) - start >= 4:
            length = int.from_bytes(buffer[start:start + 4], "big")
            if length > MAX_FRAME_OCTETS:
                raise ValueError(f"a frame of {length} octets is too long")
            if len(buffer) - start - 4 < length:
                break
            frames.append(bytes(buffer[start + 4:start + 4 + length]))
            start += 4 + length
        if start:
            del buffer[:start]
        return frames
