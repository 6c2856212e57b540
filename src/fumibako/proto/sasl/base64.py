"""Base64 as SASL profiles write it: strict, one way to write each octet string.

Specification: RFC 4648 §4, §3.5 (canonical encoding); RFC 4954 §4 (the profile).
Contract: no white space, no missing padding, no stray bits: decode_base64 takes what encode_base64 makes.
Failure: ProtocolError.
"""

import base64
import binascii

from fumibako.proto.reader import ProtocolError


def decode_base64(octets: bytes) -> bytes:
    """The octets that were encoded; "" is the empty string."""
    try:
        decoded = base64.b64decode(octets, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError("not base64") from error
    if base64.b64encode(decoded) != octets:
        raise ProtocolError("not canonical base64")
    return decoded


def encode_base64(octets: bytes) -> bytes:
    """Without line breaks."""
    return base64.b64encode(octets)
