"""The main job: a Japanese mail goes from one server to the other, is read by three programs, and arrives as it was sent.

Contract: `open_house` starts both servers; `journey` needs them up and empty. What is shown comes from their traces and replies.
Failure: Failed, and what the clients raise.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from fumibako.faces.cli.demonstration.clients import ImapClient, imap_client, pop_client, smtp_client
from fumibako.faces.cli.demonstration.failed import Failed
from fumibako.faces.cli.demonstration.screen import Screen
from fumibako.faces.cli.demonstration.trail import Event, seconds_between, text_of
from fumibako.faces.cli.demonstration.world import Server, World
from fumibako.net.clock import Clock
from fumibako.net.resolver import Resolver
from fumibako.proto.message.address import format_mailbox
from fumibako.proto.message.compose import Entity, attachment_entity, compose, text_entity
from fumibako.proto.message.header import field_values, format_date
from fumibako.proto.message.transfer import decode_body
from fumibako.proto.message.words import decode_words
from fumibako.services.texts import N_

ALICE, BOB, CAROL = "alice@a.example", "bob@b.example", "carol@b.example"
ATTACHMENT_OCTETS = 200 * 1024
SUBJECT = "御見積書①のご送付（㈱髙﨑商店）"
TEXT = "髙﨑様\n\nいつもお世話になっております。\n御見積書①をお送りいたします。ご確認ください。\n\nありす\n"
FILE_NAME = "御見積書①.bin"


@dataclass(frozen=True, slots=True)
class Mail:
    """A whole message and the file that is attached to it."""

    octets: bytes
    attachment: bytes


async def open_house(screen: Screen, world: World) -> None:
    """Both servers come up; each answers DNS for its own domain."""
    screen.act(N_("Two mail servers come up"))
    for server, *people in ((world.a, "alice"), (world.b, "bob", "carol")):
        await server.set_up(*people)
        screen.row(N_("server of {domain}"), server.shown(await server.start()), domain=server.domain)
    resolver = Resolver(world.clock, [world.resolver])
    for server in (world.a, world.b):
        for mx in await resolver.resolve_mx(server.domain):
            addresses = await resolver.resolve_addresses(mx.exchange)
            answers = f"{server.domain} MX → {mx.preference} {mx.exchange}   A → {' '.join(addresses)}   @{world.resolver}"
            screen.row(N_("DNS of {domain}"), answers, domain=server.domain, passed=addresses == (server.address,))


async def journey(screen: Screen, world: World) -> None:
    """One mail from Alice to Bob."""
    screen.act(N_("Alice writes to Bob: a Japanese mail with a 200 KB attachment"))
    mail = make_mail(world.clock)
    trace_id = await _submit(screen, world, mail)
    await _follow(screen, world, trace_id)
    await _read(screen, world.b, mail)


def make_mail(clock: Clock) -> Mail:
    """Japanese with characters that old standards don't have, and random octets attached."""
    attachment = clock.token(ATTACHMENT_OCTETS)
    file = attachment_entity("application/octet-stream", attachment, FILE_NAME)
    return Mail(write(clock, format_mailbox("髙﨑", BOB), SUBJECT, text_entity(TEXT), file), attachment)


def write(clock: Clock, to: str, subject: str, *parts: Entity) -> bytes:
    """A whole message of Alice's."""
    now_ms = clock.now_ms()
    date = format_date(now_ms, clock.utc_offset_minutes(now_ms))
    fields = (("From", format_mailbox("ありす", ALICE)), ("To", to), ("Subject", subject), ("Date", date),
              ("Message-ID", f"<{clock.token(12).hex()}@a.example>"))
    return compose(fields, parts)


async def _submit(screen: Screen, world: World, mail: Mail) -> str:
    """Over TLS with AUTH; the trace_id that the server gave it."""
    login = world.a.login(ALICE)
    async with smtp_client(world.a.endpoint("submissions"), "pc.a.example", login) as client:
        tls = client.stream.tls
        screen.row(N_("submission: TLS"), f"{tls.version} {tls.cipher}  {login.hostname}" if tls else "", passed=tls is not None)
        mechanism, reply = await client.authenticate(login, world.clock)
        screen.row(N_("submission: login"), f"AUTH {mechanism} → {reply}", passed=reply.code == 235)
        reply = await client.send(ALICE, BOB, mail.octets)
        screen.row(N_("submission: accepted"), str(reply), passed=reply.is_positive)
        await client.quit()
    if not reply.is_positive:
        raise Failed(str(reply))
    return trace_id_in(str(reply))


def trace_id_in(reply: str) -> str:
    """The id at the end of the reply to a message."""
    return reply.rpartition(" ")[2]


async def _follow(screen: Screen, world: World, trace_id: str) -> None:
    """Hop by hop, as the two traces tell it."""
    def ours(event: Event) -> bool:
        return event["trace_id"] == trace_id

    trail = world.a.trail()
    queued = await trail.event("accepted", ours)
    accepted = text_of(queued, "how", "protocol", "login", "size_octets") + " octets"
    screen.row(N_("queue of a.example"), f"{_after(queued, queued)}  {accepted}", passed=queued["how"] == "queued")
    route = await trail.event("route", ours)
    screen.row(N_("where to? MX"), f"{_after(queued, route)}  {text_of(route, 'domain')} MX → {text_of(route, 'hosts')}")
    connected = await trail.event("connected", ours)
    screen.row(N_("SMTP with STARTTLS"), f"{_after(queued, connected)}  {text_of(connected, 'remote', 'tls')}",
               passed=bool(connected["tls"]))
    relayed = await trail.event("delivered", ours)
    there = await world.b.trail().event("accepted", lambda event: event["trace_id"] == trace_id_in(str(relayed["reply"])))
    arrived = text_of(there, "how", "recipients", "protocol", "size_octets") + " octets"
    screen.row(N_("mailbox of Bob"), f"{_after(queued, there)}  {arrived}", passed=there["how"] == "delivered")
    screen.row(N_("b.example has it"), f"{_after(queued, relayed)}  {text_of(relayed, 'reply')}")


def _after(first: Event, later: Event) -> str:
    return f"+{seconds_between(first, later):.3f} s"


async def _read(screen: Screen, server: Server, mail: Mail) -> None:
    """Two IMAP clients at once, then POP3, which takes it away under their eyes."""
    screen.act(N_("Bob reads it: two IMAP clients at once, then POP3"))
    login, place = server.login(BOB), server.endpoint("imaps")
    async with imap_client(place, login) as (phone, _), imap_client(place, login) as (desk, line):
        screen.row(N_("both log in"), re.sub(r"\[CAPABILITY [^]]*\]", "[CAPABILITY …]", line))
        uid = await newest_uid(phone)
        await phone.idle()
        line, _ = await desk.command("UID STORE", uid, rb"+FLAGS (\Flagged)")
        screen.row(N_("the first sets a flag"), line)
        screen.row(N_("the second sees it"), f"IDLE: {await phone.until('FETCH', chr(92) + 'Flagged')}")
        await phone.done()
        octets = await desk.octets(uid)
        subject = decode_words(field_values(octets, b"Subject")[0])
        screen.row(N_("subject"), subject, passed=subject == SUBJECT)
        _compare(screen, N_("SHA-256 of the mail"), mail.octets, octets[-len(mail.octets):])
        attachment = decode_body(await desk.octets(uid, "2"), "base64")
        _compare(screen, N_("SHA-256 of the file"), mail.attachment, attachment)
        await phone.idle()
        await _fetch_by_pop3(screen, server, mail)
        screen.row(N_("gone for IMAP, too"), f"IDLE: {await phone.until('EXPUNGE')}")


def _compare(screen: Screen, what: str, sent: bytes, arrived: bytes) -> None:
    before, after = (hashlib.sha256(octets).hexdigest() for octets in (sent, arrived))
    sign = "=" if before == after else "≠"
    screen.row(what, f"{before[:20]}… {sign} {after[:20]}…  {len(sent)} {sign} {len(arrived)}", passed=before == after)


async def _fetch_by_pop3(screen: Screen, server: Server, mail: Mail) -> None:
    login = server.login(BOB)
    async with pop_client(server.endpoint("pop3s"), login) as client:
        before = await client.command("STAT")
        octets = await client.retrieve(1)
        _compare(screen, N_("SHA-256 by POP3"), mail.octets, octets[-len(mail.octets):])
        deleted, ended = await client.command("DELE", "1"), await client.command("QUIT")
    async with pop_client(server.endpoint("pop3s"), login) as client:
        after = await client.command("STAT")
    screen.row(N_("POP3 takes it away"), f"STAT {before}   DELE {deleted}   QUIT {ended}   STAT {after}",
               passed=after.startswith("+OK 0 "))


async def newest_uid(client: ImapClient) -> int:
    """The UID of the last message in the selected mailbox."""
    found = await client.search(b"ALL")
    if not found:
        raise Failed("the mailbox is empty")
    return found[-1]
