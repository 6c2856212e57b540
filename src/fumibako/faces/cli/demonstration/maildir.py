"""Your own mail in the demonstration: a Maildir is read, put into a mailbox by IMAP, and compared octet by octet.

Specification: RFC 9051 §6.3.12 (APPEND); RFC 9755 §3 (UTF8=ACCEPT: mail comes back as it is); the Maildir layout (cur, new;
    flags behind ":2,"; subdirectories ".Name.Sub").
Contract: the Maildir is only read. Line ends become CRLF, as mail has them on the wire; the names of mailboxes are modified
    UTF-7 in the Maildir. Flags and mailboxes are kept.
Failure: Failed, and what the clients raise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fumibako.faces.cli.demonstration.clients import ImapClient, imap_client
from fumibako.faces.cli.demonstration.failed import Failed
from fumibako.faces.cli.demonstration.screen import Screen
from fumibako.faces.cli.demonstration.world import World
from fumibako.proto.imap.client import Literal
from fumibako.proto.imap.names import parse_name
from fumibako.proto.reader import ProtocolError
from fumibako.proto.smtp.transparency import NewlineNormaliser
from fumibako.services.texts import N_

YOU = "you@b.example"
FLAGS = {"D": rb"\Draft", "F": rb"\Flagged", "R": rb"\Answered", "S": rb"\Seen", "T": rb"\Deleted"}


@dataclass(frozen=True, slots=True)
class Stored:
    """One message of a Maildir. mailbox: its IMAP name."""

    path: Path
    mailbox: str
    flags: tuple[bytes, ...]

    def octets(self) -> bytes:
        """The message with CRLF line ends."""
        newlines = NewlineNormaliser()
        return newlines.feed(self.path.read_bytes()) + newlines.close()


def messages_of(maildir: Path) -> Iterator[Stored]:
    """Every message, INBOX first; subdirectories without cur are passed over."""
    for root in (maildir, *sorted(path for path in maildir.glob(".?*") if (path / "cur").is_dir())):
        mailbox = _text(root.name.lstrip(".").replace(".", "/")) if root != maildir else "INBOX"
        for place in ("cur", "new"):
            for path in sorted((root / place).glob("[!.]*")):
                letters = path.name.rpartition(":2,")[2] if ":2," in path.name else ""
                yield Stored(path, mailbox, tuple(FLAGS[letter] for letter in letters if letter in FLAGS))


def _text(name: str) -> str:
    try:
        return parse_name(name.encode(), utf8=False)
    except ProtocolError:
        return name


async def bring_in(screen: Screen, world: World, maildir: Path) -> None:
    """Appends every message to the account `you` and compares what the server gives back."""
    screen.act(N_("Your own mail comes in"))
    stored = list(messages_of(maildir))
    if not stored:
        raise Failed(screen.words(N_("{directory}: no Maildir, or one without mail"), directory=maildir))
    await world.b.add_account(YOU)
    async with imap_client(world.b.endpoint("imaps"), world.b.login(YOU)) as (client, _):
        line = ""
        await client.command("ENABLE", b"UTF8=ACCEPT")
        with screen.progress(N_("bringing in"), len(stored)) as moved:
            for mailbox in dict.fromkeys(one.mailbox for one in stored):
                await _create(client, mailbox)
            for number, one in enumerate(stored, 1):
                line, _ = await client.command("APPEND", one.mailbox, b"(%b)" % b" ".join(one.flags), Literal(one.octets()))
                moved(number)
        screen.row(N_("brought in"), f"APPEND × {len(stored)}: {line}")
        same = await _same_in_all(client, stored)
        screen.row(N_("SHA-256 of each"), f"{same} = {len(stored)}", passed=same == len(stored))


async def _create(client: ImapClient, mailbox: str) -> None:
    try:
        await client.command("CREATE", mailbox)
    except Failed:
        pass        # it is there already; APPEND tells otherwise


async def _same_in_all(client: ImapClient, stored: list[Stored]) -> int:
    """How many messages come back as they went in."""
    same = 0
    for mailbox in dict.fromkeys(one.mailbox for one in stored):
        await client.command("EXAMINE", mailbox)
        ours = [one for one in stored if one.mailbox == mailbox]
        uids = await client.search(b"ALL")
        for uid, one in zip(uids[-len(ours):], ours, strict=False):
            same += _digest(await client.octets(uid)) == _digest(one.octets())
    return same


def _digest(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()
