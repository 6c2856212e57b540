"""POP3 responses: a status indicator, a response code, text.

Specification: RFC 1939 §3; RFC 2449 §3 (grammar), §8 (response codes); RFC 3206 (SYS, AUTH).
Contract: a Response can't hold a line break and fits the 512 octets of RFC 2449 §4.
Failure: ValueError for a Response that can't be; ProtocolError for octets that are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fumibako.proto.reader import ProtocolError

LINE_MAX = 512          # RFC 2449 §4, CRLF included

_TEXT = re.compile(r"[^\x00-\x1f\x7f]*")
_CODE = re.compile(r"[A-Z-]+(?:/[A-Z-]+)*")
# single-line = status [SP [resp-code SP] text]
_RESPONSE = re.compile(r"(\+OK|-ERR)(?: \[([A-Za-z-]+(?:/[A-Za-z-]+)*)\])?(?: (.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Response:
    """ok: +OK or -ERR; code: "", IN-USE, LOGIN-DELAY, SYS/TEMP, SYS/PERM, AUTH ..., without brackets."""

    ok: bool
    text: str = ""
    code: str = ""

    def __post_init__(self) -> None:
        if not _TEXT.fullmatch(self.text) or (self.code and not _CODE.fullmatch(self.code)):
            raise ValueError(f"not a response: {self.code!r} {self.text!r}")
        if len(format_response(self)) > LINE_MAX:
            raise ValueError("response too long")


def format_response(response: Response) -> bytes:
    """The line, CRLF included."""
    words = ["+OK" if response.ok else "-ERR", f"[{response.code}]" if response.code else "", response.text]
    return " ".join(word for word in words if word).encode("utf-8") + b"\r\n"


def parse_response(line: bytes) -> Response:
    """A line without its CRLF; ProtocolError where it is no response."""
    found = _RESPONSE.fullmatch(line.decode("utf-8", "replace"))
    if found is None:
        raise ProtocolError("not a POP3 response")
    text = "".join(c if _TEXT.fullmatch(c) else "\ufffd" for c in found[3] or "")
    try:
        return Response(found[1] == "+OK", text, (found[2] or "").upper())
    except ValueError as error:
        raise ProtocolError("not a POP3 response") from error


def stat_response(count: int, size_octets: int) -> Response:
    """The drop listing of STAT: RFC 1939 §5."""
    return Response(True, f"{count} {size_octets}")


def listing_response(number: int, value: int | str) -> Response:
    """The answer to LIST n (size in octets) or UIDL n (unique_id): RFC 1939 §5, §7."""
    return Response(True, f"{number} {value}")
