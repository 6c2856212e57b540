"""The table of what Japanese mail programs really send: as sent, as Python's email package reads it, as Fumibako does.

Specification: RFC 2047 §2, §6.2; RFC 2231 §3, §4; RFC 2183 §2.3.
Contract: every message goes to the server by SMTP and comes back by IMAP; Python's column is its email package really run on
    these octets; a row holds when Fumibako reads what was meant, and the server's own SEARCH finds the message by it.
Failure: Failed, and what the clients raise.
"""

from __future__ import annotations

import binascii
import email
import email.policy
import re
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Literal

from fumibako.faces.cli.demonstration.clients import ImapClient, imap_client, smtp_client
from fumibako.faces.cli.demonstration.failed import Failed
from fumibako.faces.cli.demonstration.journey import BOB, newest_uid
from fumibako.faces.cli.demonstration.screen import Screen
from fumibako.faces.cli.demonstration.world import World
from fumibako.proto.imap.client import Literal as ImapLiteral
from fumibako.proto.message.charset import decode_text
from fumibako.proto.message.header import field_values
from fumibako.proto.message.index import Indexer, Part
from fumibako.proto.message.words import decode_words
from fumibako.services.texts import N_

Place = Literal["Subject", "text", "filename"]

# ① ㈱ 髙 﨑 in ISO-2022-JP as Windows writes it: NEC row 13 and IBM extensions, which the standard set does not have.
JIS_WINDOWS = b"\x1b$B\x2d\x21\x2d\x6a\x7c\x62\x79\x75\x1b(B"
JIS_HALF_KANA = b"\x1b(I\x36\x45\x1b(B"
SHIFTED_HALF_KANA = b"\x0e\x36\x45\x0f"


@dataclass(frozen=True, slots=True)
class Case:
    """sent: the octets of the header value, body or parameter; meant: what the sender's program showed."""

    place: Place
    sent: bytes
    meant: str


def _word(octets: bytes, charset: str = "ISO-2022-JP") -> bytes:
    """encoded-word = "=?" charset "?" encoding "?" encoded-text "?=" """
    return b"=?%b?B?%b?=" % (charset.encode("ascii"), binascii.b2a_base64(octets, newline=False))


CASES = (
    Case("Subject", _word(JIS_WINDOWS), "①㈱髙﨑"),
    Case("Subject", _word(JIS_HALF_KANA), "ｶﾅ"),
    Case("Subject", _word(SHIFTED_HALF_KANA, "CP50222"), "ｶﾅ"),
    Case("Subject", "㈱髙﨑商店".encode("cp932"), "㈱髙﨑商店"),
    Case("Subject", b"=?ISO-2022-JP?B?GyRCRnw=?= =?ISO-2022-JP?B?S1wbKEI=?=", "日本"),
    Case("text", JIS_WINDOWS + JIS_HALF_KANA, "①㈱髙﨑ｶﾅ"),
    Case("filename", b"filename=" + _word(b"\x1b$B8+@Q\x2d\x21\x1b(B.pdf"), "見積①.pdf"),
    Case("filename", b'filename="' + "見積㈱髙﨑.pdf".encode("cp932") + b'"', "見積㈱髙﨑.pdf"),
    Case("filename", b"filename*1*=%E7%A9%8D.pdf; filename*0*=utf-8''%E8%A6%8B", "見積.pdf"),
    Case("filename", b"filename*=iso-2022-jp''%1B$B8+@Q%2D%21%1B%28B.pdf", "見積①.pdf"),
    Case("filename", b"filename*=utf-8''%E8%AB%8B%E6%B1%82%E2%80%AEfdp.exe", "請求_fdp.exe"),
)


async def decoding(screen: Screen, world: World) -> None:
    """Sends each case to Bob and reads it back."""
    screen.act(N_("What Japanese programs really send"))
    rows: list[tuple[bool, list[str]]] = []
    login, place = world.b.login(BOB), world.b.endpoint("imaps")
    async with imap_client(place, login) as (inbox, _), smtp_client(world.b.endpoint("smtp"), "old.example") as sender:
        for case in CASES:
            if not (reply := await sender.send("someone@old.example", BOB, message_of(case))).is_positive:
                raise Failed(str(reply))
            await inbox.command("NOOP")
            uid = await newest_uid(inbox)
            octets = await inbox.octets(uid)
            ours = as_fumibako_reads(case.place, octets)
            found = uid in await _search(inbox, case)
            rows.append((ours == case.meant and found, [case.place, _as_sent(case), as_python_reads(case.place, octets), ours]))
    columns = ((N_("where"), 0), (N_("as sent"), 40), (N_("as Python's email reads it"), 27), (N_("as Fumibako does"), 17))
    screen.table(columns, rows)


def message_of(case: Case) -> bytes:
    """A message that holds the case, and little else."""
    subject = case.sent if case.place == "Subject" else b"x"
    head = b"From: someone@old.example\r\nTo: bob@b.example\r\nSubject: %b\r\nMIME-Version: 1.0\r\n" % subject
    match case.place:
        case "text":
            return head + b"Content-Type: text/plain; charset=ISO-2022-JP\r\n\r\n" + case.sent + b"\r\n"
        case "filename":
            attached = b"Content-Type: application/pdf\r\nContent-Disposition: attachment; " + case.sent + b"\r\n\r\nx\r\n"
            return head + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + attached + b"--b--\r\n"
    return head + b"\r\nx\r\n"


async def _search(inbox: ImapClient, case: Case) -> list[int]:
    """The server's own reading: what it finds by the text that was meant."""
    needle = ImapLiteral(case.meant.encode("utf-8"))
    return await inbox.search(b"SUBJECT" if case.place == "Subject" else b"BODY", needle)


def as_fumibako_reads(place: Place, octets: bytes) -> str:
    """By Fumibako's own reading of a message."""
    if place == "Subject":
        return decode_words(field_values(octets, b"Subject")[0])
    indexer = Indexer()
    indexer.feed(octets)
    part: Part = list(indexer.close().root.walk())[-1]
    if place == "filename":
        return part.file_name or ""
    return decode_text(octets[part.body_offset : part.end_offset], part.charset).rstrip("\r\n")


def as_python_reads(place: Place, octets: bytes) -> str:
    """By the standard library, with the policy its documentation recommends."""
    message = email.message_from_bytes(octets, policy=email.policy.default)
    try:
        match place:
            case "Subject":
                return str(message["Subject"])
            case "text":
                return str(message.get_content()).rstrip("\n")
        parts = [part for part in message.walk() if isinstance(part, EmailMessage)]
        file_name = next(part.get_filename() for part in parts if part.is_attachment())
    except (LookupError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "(None)" if file_name is None else file_name


def _as_sent(case: Case) -> str:
    """The octets as text: what is no printable ASCII as \\x.."""
    return re.sub(rb"[^\x20-\x7e]", lambda octet: b"\\x%02x" % octet[0][0], case.sent).decode("ascii")
