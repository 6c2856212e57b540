"""Three sessions on one mailbox, random commands, and a model of what each client must believe.

RFC 9051 §2.3.1.2, §5.5, §7.5.1: a sequence number means the same message to client and server at every moment.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from fumibako.model.mailbox import Flag
from tests.support.imap_session import Client, House, Reply

MESSAGE = "Subject: x\r\n\r\nbody\r\n"
STEPS = 120
_FETCH = re.compile(r"\* (\d+) FETCH \((.*)\)", re.DOTALL)


class Believer:
    """A client that keeps a list of messages by what it is told, and nothing else. None: uid not known yet."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.uids: list[int | None] = []
        self.modseqs: dict[int, int] = {}

    async def select(self) -> None:
        self.hear(await self.client.run("SELECT INBOX (CONDSTORE)"))
        await self.learn()

    async def learn(self) -> None:
        if self.uids:
            self.hear(await self.run("FETCH 1:* (UID FLAGS MODSEQ)"))

    async def run(self, command: str) -> Reply:
        """Hears the answer; asserts what may not be told with this command."""
        reply = await self.client.run(command)
        if re.match(r"(FETCH|STORE|SEARCH) ", command):
            assert not any(line.endswith(" EXPUNGE") for line in reply.untagged), command
        return reply

    def hear(self, reply: Reply) -> None:
        for line in reply.untagged:
            number, _, word = line.removeprefix("* ").partition(" ")
            if word == "EXISTS":
                assert int(number) >= len(self.uids), "EXISTS never takes a message away"
                self.uids += [None] * (int(number) - len(self.uids))
            elif word == "EXPUNGE":
                assert 1 <= int(number) <= len(self.uids)
                self.uids.pop(int(number) - 1)
            elif found := _FETCH.fullmatch(line):
                self.hear_fetch(int(found[1]), found[2])

    def hear_fetch(self, seq: int, items: str) -> None:
        assert 1 <= seq <= len(self.uids), "a message the client was not told of"
        if uid := re.search(r"UID (\d+)", items):
            known = self.uids[seq - 1]
            assert known in (None, int(uid[1])), "a sequence number changed its message"
            self.uids[seq - 1] = int(uid[1])
        if (modseq := re.search(r"MODSEQ \((\d+)\)", items)) and (uid_ := self.uids[seq - 1]):
            assert int(modseq[1]) >= self.modseqs.get(uid_, 0), "a modseq went back"
            self.modseqs[uid_] = int(modseq[1])


def command_of(chance: random.Random, believer: Believer) -> str:
    count = len(believer.uids)
    if not count or chance.random() < 0.3:
        return "append"
    one = chance.randint(1, count)
    some = f"{min(one, other := chance.randint(1, count))}:{max(one, other)}"
    flag = chance.choice(["\\Seen", "\\Flagged", "\\Deleted", "word"])
    return chance.choice([
        f"STORE {some} {chance.choice('+-')}FLAGS{chance.choice(['', '.SILENT'])} ({flag})",
        f"UID STORE {believer.uids[one - 1] or 1}:* +FLAGS ({flag})",
        f"STORE {one} +FLAGS (\\Deleted)", f"STORE {some} FLAGS ()", "EXPUNGE", "NOOP", "IDLE",
        f"FETCH {some} (UID FLAGS MODSEQ)", "UID FETCH 1:* (FLAGS)", "SEARCH UNSEEN", "UID SEARCH ALL",
        f"COPY {some} Archive", f"COPY {one} INBOX", f"MOVE {one} Archive", f"UID MOVE {believer.uids[one - 1] or 1} INBOX",
        f"FETCH {one} BODY[TEXT]", "SELECT INBOX",
    ])


async def step(chance: random.Random, believer: Believer) -> None:
    command = command_of(chance, believer)
    if command == "append":
        believer.hear(await believer.client.append("INBOX", MESSAGE, chance.choice(["", "(\\Deleted) ", "(\\Seen) "])))
    elif command == "IDLE":
        await believer.client.send("i IDLE\r\n")
        await believer.client.send("DONE\r\n")
        lines = [line for line in believer.client.responses() if not line.startswith("+")]
        believer.hear(Reply(lines[:-1], lines[-1]))
    elif command == "SELECT INBOX":
        believer.uids.clear()
        believer.hear(await believer.run(command))
    else:
        believer.hear(await believer.run(command))


@pytest.mark.parametrize("seed", range(4))
async def test_three_sessions(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    house = await House.build(tmp_path / "data")
    believers = [Believer(await house.login()) for _ in range(3)]
    for believer in believers:
        await believer.select()
    for _ in range(STEPS):
        await step(chance, chance.choice(believers))
    account = await house.account()
    inbox = (await house.store.mailboxes(account.id))[0]
    view = await house.store.view(account.id, inbox.id)
    assert view is not None
    for believer in believers:
        believer.hear(await believer.run("NOOP"))
        await believer.learn()
        assert believer.uids == list(view.uids)
        lines = (await believer.run("FETCH 1:* FLAGS")).untagged if believer.uids else []
        assert [bool("\\Seen" in line) for line in lines] == [bool(flags & Flag.SEEN) for flags in view.flags]
        assert [believer.modseqs[uid] for uid in view.uids] == list(view.modseqs)
    assert (inbox.total, inbox.unseen) == (len(view), sum(not flags & Flag.SEEN for flags in view.flags))
    await house.close()
