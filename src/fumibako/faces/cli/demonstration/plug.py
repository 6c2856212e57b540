"""Pulling the plug: deliveries on many connections, kill -9 of every process midway, a restart, and a count.

Specification: RFC 5321 §4.5.4.1 (who got no reply tries again), §6.1 (250 is a promise).
Contract: like a mail server, the sender goes on with every message that was not taken. Those whose last reply was lost are
    not sent again: only the server knows what became of them, and both is right. Each message that was answered with 250 must
    be there exactly once, octet by octet; none of the others may be there twice.
Failure: Failed, and what the clients raise.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fumibako.faces.cli.demonstration.clients import ImapClient, imap_client, smtp_client
from fumibako.faces.cli.demonstration.journey import CAROL
from fumibako.faces.cli.demonstration.screen import Screen
from fumibako.faces.cli.demonstration.world import World
from fumibako.proto.message.header import field_values
from fumibako.proto.reader import ProtocolError, parse_uint
from fumibako.proto.smtp.reply import Reply
from fumibako.services.texts import N_

MESSAGES, KILL_AT, CONNECTIONS = 500, 250, 10


@dataclass(frozen=True, slots=True)
class Counted:
    """What is in the mailbox: how often each number, and those that are not as they were sent."""

    found: Counter[int]
    broken: list[int]


@dataclass(slots=True)
class Ledger:
    """What the sender knows: numbers still to send, those answered with 250, and those whose answer never came."""

    waiting: list[int]
    acknowledged: set[int] = field(default_factory=set)
    unanswered: set[int] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)
    half: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, number: int, reply: Reply) -> bool:
        """What the server said to a whole message; whether the connection is good for another."""
        if reply.is_positive:
            self.acknowledged.add(number)
        elif reply.is_transient:        # 451 of a worker whose storage died first: it can't know either
            self.unanswered.add(number)
        else:
            self.refusals.append(str(reply))
        if len(self.acknowledged) >= KILL_AT:
            self.half.set()
        return reply.is_positive


async def plug(screen: Screen, world: World) -> None:
    """500 deliveries, and the plug is pulled after 250."""
    screen.act(N_("The plug is pulled: 500 deliveries, kill -9 of everything midway"))
    ledger = Ledger(list(range(MESSAGES, 0, -1)))
    with screen.progress(N_("delivering"), MESSAGES) as moved:
        killed, before = await _until_killed(world, ledger, moved)
        screen.row(N_("kill -9"), f"SIGKILL → {killed}   250 × {before}", passed=killed > 0 and before < MESSAGES)
        for server in (world.a, world.b):
            screen.row(N_("{domain} starts again"), f"{server.address}  {(await server.start())[-1]}", domain=server.domain)
        await _deliver_all(world, ledger, moved)
    _tell(screen, ledger, before, await _count(world))


def _tell(screen: Screen, ledger: Ledger, before: int, counted: Counted) -> None:
    """The sender's ledger beside what is there. before: how many were acknowledged when the plug was pulled."""
    acknowledged, unanswered = len(ledger.acknowledged), len(ledger.unanswered)
    lost = len(ledger.acknowledged - counted.found.keys())
    doubled = sum(count > 1 for count in counted.found.values())
    screen.row(N_("went on after it"), "; ".join(ledger.refusals[:3]) or f"250 × {acknowledged - before}",
               passed=not ledger.refusals and acknowledged + unanswered == MESSAGES)
    text = screen.words(N_("{acknowledged} acknowledged, {found} found, {doubled} doubled"),
                        acknowledged=acknowledged, found=acknowledged - lost, doubled=doubled)
    screen.row(N_("counted by IMAP"), text, passed=not (lost or doubled or counted.broken))
    there = len(ledger.unanswered & counted.found.keys())
    text = screen.words(N_("{count} without a reply, of which {there} are there"), count=unanswered, there=there)
    screen.row(N_("killed before the 250"), text, passed=unanswered <= CONNECTIONS)


async def _until_killed(world: World, ledger: Ledger, moved: Callable[[int], None]) -> tuple[int, int]:
    """Delivers, and kills both servers at half; (processes killed, acknowledged so far)."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_deliver_all(world, ledger, moved))
        await ledger.half.wait()
        async with asyncio.TaskGroup() as killers:
            counts = [killers.create_task(server.kill()) for server in (world.b, world.a)]
    return sum(count.result() for count in counts), len(ledger.acknowledged)


async def _deliver_all(world: World, ledger: Ledger, moved: Callable[[int], None]) -> None:
    """Until nothing waits any more, or the server is gone."""
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(_deliver(world, ledger, moved))


async def _deliver(world: World, ledger: Ledger, moved: Callable[[int], None]) -> None:
    """One connection; one that breaks gives its message back, unless the message was out."""
    try:
        async with smtp_client(world.b.endpoint("smtp"), "plug.example") as client:
            while ledger.waiting:
                number = ledger.waiting.pop()
                client.message_is_out = False
                try:
                    reply = await client.send("sender@plug.example", CAROL, message_of(number))
                except (OSError, ProtocolError):
                    (ledger.unanswered.add if client.message_is_out else ledger.waiting.append)(number)
                    return
                if not ledger.note(number, reply):
                    return
                moved(len(ledger.acknowledged))
    except (OSError, ProtocolError):
        return      # killed before it had a message in hand


def message_of(number: int) -> bytes:
    """A small message; its number is its identity."""
    head = b"From: sender@plug.example\r\nTo: carol@b.example\r\nSubject: %d\r\nMessage-ID: <%d@plug.example>\r\n\r\n"
    return head % (number, number) + b"%064d\r\n" % number * 40


async def _count(world: World) -> Counted:
    """Carol's mailbox, read by IMAP."""
    counted = Counted(Counter(), [])
    async with imap_client(world.b.endpoint("imaps"), world.b.login(CAROL)) as (inbox, _):
        for octets in await _everything(inbox):
            number = parse_uint(field_values(octets, b"Subject")[0].strip(), 3)
            counted.found[number] += 1
            if not octets.endswith(message_of(number)):
                counted.broken.append(number)
    return counted


async def _everything(inbox: ImapClient) -> list[bytes]:
    _, untagged = await inbox.command("FETCH", b"1:*", b"BODY.PEEK[]")
    return [items[-1] for response in untagged for items in response.data
            if response.kind == "FETCH" and isinstance(items, list) and isinstance(items[-1], bytes)]
