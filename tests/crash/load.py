"""Work for a server that may die at any moment: deliveries by SMTP, and people who move their mail about by IMAP."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fumibako.proto.imap.client import Literal
from tests.crash.clients import Broken, Endpoint, ImapPeer, SmtpPeer, dotted, imap_peer, log_in, smtp_peer
from tests.crash.machine import READERS, SENDER, Machine
from tests.support.ledger import (
    Entry,
    Fault,
    Ledger,
    Letter,
    MailboxState,
    Verdicts,
    letter_size,
    make_letter,
    recipient_count,
)

CONNECTIONS = 16
LETTERS_PER_CONNECTION = 8
BOXES = ("INBOX", "Work")
FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "$Forwarded")


# -- deliveries --


@dataclass(slots=True)
class Load:
    """total deliveries over CONNECTIONS connections, no more than per_s in a second. up: set while the server should be there;
    on_ack: after each answer."""

    machine: Machine
    ledger: Ledger
    chance: random.Random
    prefix: str
    total: int
    up: asyncio.Event
    on_ack: Callable[[int], None] = lambda answered: None
    per_s: float = math.inf
    started: int = 0
    answered: int = 0
    due_s: float = 0.0      # when the next one may begin

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._connection())

    async def _connection(self) -> None:
        while self.started < self.total:
            await self.up.wait()
            way = self.chance.choice(("data", "data", "bdat", "lmtp", "submission"))
            try:
                await self._converse(way)
            except Broken:
                await asyncio.sleep(0.02)       # the server is away or ending: not a busy loop

    async def _converse(self, way: str) -> None:
        machine = self.machine
        places: dict[str, Endpoint] = {"lmtp": machine.lmtp, "submission": machine.place.endpoint("submission")}
        async with smtp_peer(places.get(way, machine.place.endpoint("smtp")), "LHLO" if way == "lmtp" else "EHLO") as peer:
            if way == "submission":
                await log_in(peer, SENDER)
            for _ in range(LETTERS_PER_CONNECTION):
                if self.started >= self.total:
                    break
                self.started = number = self.started + 1
                if self.per_s < math.inf:
                    await self._pace()
                size = letter_size(self.chance)
                sender = SENDER if way == "submission" else "ledger@sender.example"
                letter = make_letter(f"{self.prefix}-{number}", size, self.chance, sender)
                # Over LMTP each recipient has a reply of its own: one recipient keeps one line of the ledger one answer.
                count = 1 if way == "lmtp" else recipient_count(self.chance, size)
                await self._send(peer, way, letter, tuple(self.chance.sample(READERS, count)))
                self.answered += 1
                self.on_ack(self.answered)

    async def _pace(self) -> None:
        """What a stop has held up is not made up for: that would be a load of another kind."""
        now_s = time.monotonic()
        self.due_s = max(self.due_s + 1 / self.per_s, now_s)
        await asyncio.sleep(self.due_s - now_s)

    async def _send(self, peer: SmtpPeer, way: str, letter: Letter, recipients: tuple[str, ...]) -> None:
        await peer.demand(f"MAIL FROM:<{SENDER if way == 'submission' else 'ledger@sender.example'}>", "250")
        for recipient in recipients:
            await peer.demand(f"RCPT TO:<{recipient}>", "250")
        if way != "bdat":
            await peer.demand("DATA", "354")
        self.ledger.attempt(Entry(letter.id, way, recipients, letter.sha256))
        if way == "bdat":
            half = len(letter.octets) // 2
            await peer.send(b"BDAT %d\r\n%b" % (half, letter.octets[:half]))
            await peer.reply()
            await peer.send(b"BDAT %d LAST\r\n%b" % (len(letter.octets) - half, letter.octets[half:]))
        else:
            await peer.send(dotted(letter.octets))
        reply = await peer.reply()
        self.ledger.ack(letter.id, reply[:3], reply[4:])
        if not reply.startswith("250"):
            raise Broken(reply)


# -- people who move their mail about --


Content = dict[str, dict[int, tuple[str, frozenset[str]]]]     # mailbox -> uid -> (letter id, flags)


@dataclass(slots=True)
class Mover:
    """One person with one session and a copy in memory of what both mailboxes hold.

    At a crash one command at most has no answer, so the mailboxes are as they were before it or as it leaves them.
    """

    machine: Machine
    ledger: Ledger
    chance: random.Random
    address: str
    prefix: str
    up: asyncio.Event
    content: Content = field(default_factory=lambda: {box: {} for box in BOXES})
    candidate: Content | None = None        # what the unanswered command would leave; negative uids are not known yet
    stopping: bool = False
    commands: int = 0

    async def run(self) -> None:
        while not self.stopping:
            await self.up.wait()
            try:
                await self._session()
            except Broken:
                await asyncio.sleep(0.02)

    async def _session(self) -> None:
        async with imap_peer(self.machine.place.endpoint("imap"), self.address) as peer:
            boxes = {str(one.data[2], "utf-8") if isinstance(one.data[2], bytes) else one.data[2]
                     for one in (await peer.command("LIST", "", "*"))[1] if one.kind == "LIST"}
            if "Work" not in boxes:
                await peer.command("CREATE", "Work")
            await self._reconcile(peer)
            while not self.stopping:
                box = self.chance.choice(BOXES)
                await peer.select(box)
                for _ in range(self.chance.randint(1, 6)):
                    await self._step(peer, box)

    async def _reconcile(self, peer: ImapPeer) -> None:
        """After a crash: learn which of the two states it is, and the uids that the answer would have told."""
        if self.candidate is not None or self.commands:
            states = {box: await peer.state(box) for box in BOXES}
            verdicts = Verdicts()
            self.judge(states, verdicts)
            assert not verdicts.faults, verdicts.faults

    def judge(self, states: dict[str, MailboxState], verdicts: Verdicts) -> None:
        """Compare with what is known; afterwards `content` is what was seen."""
        seen: Content = {box: {uid: (letter, flags) for uid, (letter, flags, _) in state.messages.items()}
                         for box, state in states.items()}
        if not (_same(self.content, seen) or (self.candidate is not None and _same(self.candidate, seen))):
            verdicts.add(Fault.STATE, f"{self.address}: before {self.content}, after {self.candidate}, found {seen}")
        self.content, self.candidate = seen, None

    # -- one command --

    async def _step(self, peer: ImapPeer, box: str) -> None:
        self.commands += 1
        have = self.content[box]
        kinds = ["append"] if len(have) < 4 else ["append", "copy", "move", "store", "store", "expunge"]
        kind = self.chance.choice(kinds)
        uids = sorted(self.chance.sample(sorted(have), min(len(have), self.chance.randint(1, 5))))
        entry_id = f"{self.prefix}-{self.commands}"
        after, command = getattr(self, f"_{kind}")(box, uids, entry_id)
        self.candidate = after
        self.ledger.attempt(Entry(entry_id, kind, (self.address, box, *map(str, uids)), ""))
        tagged, untagged = await peer.answer(*command)
        self.ledger.ack(entry_id, tagged.status, tagged.code)
        if tagged.status != "OK":
            raise Broken(tagged.text)
        codes = [tagged.code, *(one.code for one in untagged)]
        self.content = _with_uids(after, next((code for code in codes if code.startswith(("APPENDUID", "COPYUID"))), ""))
        self.candidate = None

    def _append(self, box: str, uids: list[int], entry_id: str) -> tuple[Content, tuple[object, ...]]:
        letter = make_letter(entry_id, letter_size(self.chance), self.chance)
        flags = frozenset(self.chance.sample(FLAGS, self.chance.randint(0, 2)))
        after = _copied(self.content)
        after[box][-1] = entry_id, flags
        return after, ("APPEND", box, b"(%b)" % " ".join(sorted(flags)).encode(), Literal(letter.octets))

    def _copy(self, box: str, uids: list[int], entry_id: str) -> tuple[Content, tuple[object, ...]]:
        after, target = _copied(self.content), _other(box)
        for place, uid in enumerate(uids, 1):
            after[target][-place] = self.content[box][uid]
        return after, ("UID COPY", _set(uids), target)

    def _move(self, box: str, uids: list[int], entry_id: str) -> tuple[Content, tuple[object, ...]]:
        after, (_, *command) = self._copy(box, uids, entry_id)
        for uid in uids:
            del after[box][uid]
        return after, ("UID MOVE", *command)

    def _store(self, box: str, uids: list[int], entry_id: str) -> tuple[Content, tuple[object, ...]]:
        flag, sign = self.chance.choice(FLAGS), self.chance.choice("+-")
        after = _copied(self.content)
        for uid in uids:
            letter_id, flags = after[box][uid]
            after[box][uid] = letter_id, flags | {flag} if sign == "+" else flags - {flag}
        return after, ("UID STORE", _set(uids), f"{sign}FLAGS.SILENT ({flag})".encode())

    def _expunge(self, box: str, uids: list[int], entry_id: str) -> tuple[Content, tuple[object, ...]]:
        """Two commands of two steps: first \\Deleted, then, when some have it, EXPUNGE of all of them."""
        deleted = [uid for uid, (_, flags) in self.content[box].items() if "\\Deleted" in flags]
        after = _copied(self.content)
        for uid in deleted:
            del after[box][uid]
        if deleted:
            return after, ("EXPUNGE",)
        for uid in uids:
            letter_id, flags = after[box][uid]
            after[box][uid] = letter_id, flags | {"\\Deleted"}
        return after, ("UID STORE", _set(uids), b"+FLAGS.SILENT (\\Deleted)")


def _other(box: str) -> str:
    return next(one for one in BOXES if one != box)


def _set(uids: list[int]) -> bytes:
    return ",".join(map(str, uids)).encode()


def _copied(content: Content) -> Content:
    return {box: dict(messages) for box, messages in content.items()}


def _with_uids(content: Content, code: str) -> Content:
    """Negative uids replaced by those that APPENDUID or COPYUID told (RFC 4315 §3)."""
    words = code.split()
    told = _numbers(words[-1]) if words else []
    return {box: {(told[-uid - 1] if uid < 0 else uid): value for uid, value in messages.items()}
            for box, messages in content.items()}


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for piece in text.split(","):
        first, _, last = piece.partition(":")
        found += range(int(first), int(last or first) + 1)
    return found


def _same(expected: Content, seen: Content) -> bool:
    """Equal, uids that were never told left open."""
    for box, messages in expected.items():
        known = {uid: value for uid, value in messages.items() if uid > 0}
        told = {uid: value for uid, value in seen[box].items() if uid in known}
        new = [value for uid, value in sorted(seen[box].items()) if uid not in known]
        if known != told or new != [messages[uid] for uid in sorted((uid for uid in messages if uid < 0), reverse=True)]:
            return False
    return True
