"""A mistyped address: the other server says no, and the sender gets a notice that explains its words, in both languages.

Specification: RFC 3464 §2; RFC 5321 §3.6.3.
Contract: `bounce` needs both servers up.
Failure: Failed, and what the clients raise.
"""

from __future__ import annotations

from fumibako.faces.cli.demonstration.clients import imap_client, smtp_client
from fumibako.faces.cli.demonstration.journey import ALICE, newest_uid, trace_id_in, write
from fumibako.faces.cli.demonstration.screen import Screen
from fumibako.faces.cli.demonstration.trail import text_of
from fumibako.faces.cli.demonstration.world import World
from fumibako.proto.message.compose import text_entity
from fumibako.proto.message.header import field_values
from fumibako.proto.message.index import Indexer
from fumibako.proto.message.transfer import decode_body
from fumibako.proto.message.words import decode_words
from fumibako.services.texts import N_

MISTYPED = "bbo@b.example"


async def bounce(screen: Screen, world: World) -> None:
    """Alice writes to bbo instead of bob, and is told."""
    screen.act(N_("Alice mistypes an address: bbo@b.example"))
    login, clock = world.a.login(ALICE), world.clock
    mail = write(clock, MISTYPED, "会議の件", text_entity("明日の会議は十時からです。\n"))
    async with imap_client(world.a.endpoint("imaps"), login) as (inbox, _):
        await inbox.idle()
        async with smtp_client(world.a.endpoint("submissions"), "pc.a.example", login) as client:
            await client.authenticate(login, clock)
            reply = await client.send(ALICE, MISTYPED, mail)
        screen.row(N_("submission: accepted"), str(reply), passed=reply.is_positive)
        trace_id = trace_id_in(str(reply))
        failed = await world.a.trail().event("failed", lambda event: event["trace_id"] == trace_id)
        refusal = text_of(failed, "reply")
        screen.row(N_("b.example refuses"), f"{text_of(failed, 'text')}: {refusal}", passed=failed["status"] == "5.1.1")
        screen.row(N_("Alice is notified"), f"IDLE: {await inbox.until('EXISTS')}")
        await inbox.done()
        _show_notice(screen, await inbox.octets(await newest_uid(inbox)), refusal)


def _show_notice(screen: Screen, octets: bytes, refusal: str) -> None:
    """Its subject, and the explanation with the other server's words, Japanese first."""
    subject = decode_words(field_values(octets, b"Subject")[0])
    screen.row(N_("subject of the notice"), subject, passed=_is_japanese(subject) and " / " in subject)
    indexer = Indexer()
    indexer.feed(octets)
    text_part = next(part for part in indexer.close().root.walk() if part.media_type == "text/plain")
    text = decode_body(octets[text_part.body_offset : text_part.end_offset], text_part.encoding or "7bit").decode("utf-8")
    halves = [[line.strip() for line in half.split("\n") if line.startswith("    ")] for half in text.split("-" * 60)]
    for what, half, japanese in zip((N_("in Japanese"), N_("in English")), halves, (True, False), strict=True):
        screen.row(what, "  ".join(half), passed=refusal in half and any(_is_japanese(line) for line in half) == japanese)


def _is_japanese(text: str) -> bool:
    return any("\u3040" <= character <= "\u9fff" for character in text)
