"""What every parser of peer octets shares: the error a peer earns, and a strict unsigned integer.

Specification: RFC 9051 §9 (`number = 1*DIGIT`) and its like; each protocol sets its own digit count.
Contract: octets in, value out; no Python leniency (sign, underscore, space, non-ASCII digits) reaches a protocol.
Failure: `ProtocolError`, whose text may be shown to the peer.
"""

import enum


class Need(enum.Enum):
    """What a core waits for when it has no event."""

    BYTES = enum.auto()     # call receive_data()
    REPLY = enum.auto()     # answer the last event


class ProtocolError(Exception):
    """The peer broke the protocol."""


def parse_uint(octets: bytes, max_digits: int) -> int:
    """`1*max_digits DIGIT`: the value of an unsigned decimal number.

    `int()` itself takes `+5`, ` 5 `, `1_0` and other scripts' digits, so it only ever sees plain ASCII digits.
    Raises ProtocolError on an empty, overlong or non-decimal argument.
    """
    if not octets.isdigit() or len(octets) > max_digits:
        raise ProtocolError("expected an unsigned decimal number")
    return int(octets)
