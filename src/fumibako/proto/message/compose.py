"""Messages of our own making: notices, reports, the demo's mail.

Specification: RFC 5322 §2.1, §3.6 (message and fields), RFC 2045 §4, §6 (MIME), RFC 2046 §5.1 (multipart), RFC 2183 §2.
Contract: pure and repeatable: the same values give the same octets; date and Message-ID come from the caller. Lines end in
    CRLF and are at most 998 octets, header lines at most 78.
Failure: ValueError on CR, LF or NUL in a header value.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fumibako.proto.message.charset import encode_jis
from fumibako.proto.message.header import format_field
from fumibako.proto.message.params import format_attachment, format_parameters
from fumibako.proto.message.transfer import encode_base64

_LINE_END = re.compile(r"\r\n|\r|\n")
_LONG_LINE = re.compile(rb"[^\n]{998}")
Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Entity:
    """A MIME entity (RFC 2045 §2.4): its Content- fields as (name, value) and its body in transfer encoding."""

    fields: Fields
    body: bytes


def text_entity(text: str, subtype: str = "plain", charset: str = "utf-8") -> Entity:
    """`text` with CRLF line ends: 7bit where it is ASCII or ISO-2022-JP, else base64.

    `charset` is `utf-8` or `iso-2022-jp`; text that does not fit the latter goes out as UTF-8.
    """
    text = _LINE_END.sub("\r\n", text)
    octets = encode_jis(text) if charset == "iso-2022-jp" else None
    charset = "us-ascii" if text.isascii() else "utf-8" if octets is None else charset
    octets = text.encode("utf-8", "replace") if octets is None else octets
    plain = octets.isascii() and not _LONG_LINE.search(octets) and b"\x00" not in octets
    return Entity(
        (
            ("Content-Type", f"text/{subtype}; charset={charset}"),
            ("Content-Transfer-Encoding", "7bit" if plain else "base64"),
        ),
        octets if plain else encode_base64(octets),
    )


def attachment_entity(media_type: str, content: bytes, file_name: str) -> Entity:
    """`content` in base64, named in both ways that clients read."""
    content_type, disposition = format_attachment(media_type, file_name)
    return Entity(
        (
            ("Content-Type", content_type),
            ("Content-Disposition", disposition),
            ("Content-Transfer-Encoding", "base64"),
        ),
        encode_base64(content),
    )


def raw_entity(media_type: str, body: bytes) -> Entity:
    """Octets that may not be encoded, a message say: 7bit or 8bit as they are (RFC 2046 §5.2.1)."""
    encoding = "7bit" if body.isascii() else "8bit"
    return Entity((("Content-Type", media_type), ("Content-Transfer-Encoding", encoding)), body)


def multipart_entity(subtype: str, parts: Sequence[Entity], parameters: dict[str, str] | None = None) -> Entity:
    """`multipart-body` of RFC 2046 §5.1.1 around `parts` (at least one)."""
    bodies = [format_entity(part) for part in parts]
    boundary = _boundary(bodies)
    delimiter = b"--" + boundary.encode("ascii")
    body = b"".join(delimiter + b"\r\n" + octets + b"\r\n" for octets in bodies) + delimiter + b"--\r\n"
    content_type = format_parameters(f"multipart/{subtype}", {**(parameters or {}), "boundary": boundary})
    encoding = "7bit" if body.isascii() else "8bit"
    return Entity((("Content-Type", content_type), ("Content-Transfer-Encoding", encoding)), body)


def _boundary(bodies: Sequence[bytes]) -> str:
    """A boundary that stands in none of the bodies; `=_` is never made by base64 or quoted-printable."""
    digest = hashlib.sha256(b"\x00".join(bodies)).hexdigest()
    size = 24
    while any(f"=_{digest[:size]}".encode("ascii") in body for body in bodies) and size < len(digest):
        size += 1
    return f"=_{digest[:size]}"


def format_entity(entity: Entity) -> bytes:
    """`entity := MIME-part-headers CRLF body`."""
    return b"".join(format_field(name, value) for name, value in entity.fields) + b"\r\n" + entity.body


def compose(fields: Sequence[tuple[str, str]], parts: Sequence[Entity]) -> bytes:
    """A whole message: `fields` in order, MIME-Version, then one part or multipart/mixed of several.

    Values are text: what is not ASCII becomes encoded words, so addresses must come from `format_mailbox`.
    """
    entity = parts[0] if len(parts) == 1 else multipart_entity("mixed", parts)
    header = b"".join(format_field(name, value) for name, value in fields)
    return header + b"MIME-Version: 1.0\r\n" + format_entity(entity)
