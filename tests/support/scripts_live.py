"""The IMAP scripts of tests/dialogues/test_imap_scripts.py, played to a running server through TLS."""

from __future__ import annotations

import asyncio
import re

from tests.dialogues import test_imap_scripts as scripts
from tests.support.clients import Wire, trusting
from tests.support.server import PASSWORD, LiveServer

DEFAULT_MAILBOXES = ("Drafts", "Sent", "Junk", "Trash", "Archive")
_COMPLETION = re.compile(r"(?:\\?\S+ )?(?:OK|NO|BAD)\b")


class LiveClient:
    """Looks to a script like a session in memory. cut: how many octets go out at a time, 0 for all."""

    def __init__(self, server: LiveServer, cut: int) -> None:
        self.wire, self.cut = Wire(server.place.endpoint("imaps"), tls=trusting(server)), cut

    async def send(self, text: str) -> None:
        octets = text.encode("latin-1")
        for start in range(0, len(octets), self.cut or len(octets) or 1):
            self.wire.send(octets[start : start + (self.cut or len(octets))])

    def until(self, step: scripts.Step) -> list[str]:
        """Lines up to the completion that the step ends with; without one, as many as it expects."""
        last = step.expect[-1][-1] if step.expect else ""
        count = sum(map(len, step.expect))
        lines: list[str] = []
        while step.expect and not (self._completes(last, lines[-1]) if _is_completion(last) and lines else
                                   not _is_completion(last) and len(lines) >= count):
            lines.append(self.wire.line())
            assert lines[-1] or not self.wire.buffer or len(lines) < 1000, lines
        return lines

    @staticmethod
    def _completes(pattern: str, line: str) -> bool:
        return not line.startswith("* ") and scripts.matches(pattern, line)


def _is_completion(pattern: str) -> bool:
    return not pattern.startswith("\\*") and _COMPLETION.match(pattern) is not None


class LivePlay(scripts.Play):
    """A script with its sessions over sockets."""

    def __init__(self, server: LiveServer, user: str, cut: int) -> None:
        self.server, self.user, self.cut = server, user, cut
        self.sessions: dict[str, LiveClient] = {}      # type: ignore[assignment]

    async def session(self, name: str) -> LiveClient:      # type: ignore[override]
        if name not in self.sessions:
            client = LiveClient(self.server, self.cut)
            assert client.wire.line().startswith("* OK ")
            assert client.wire.command(f'LOGIN {self.user} "{PASSWORD}"')[-1].startswith("a OK ")
            self.sessions[name] = client
        return self.sessions[name]

    async def run(self, text: str) -> None:
        for step in scripts.parse(text):
            client = await self.session(step.session)
            await client.send("".join(f"{scripts.ours(line)}\r\n" for line in scripts.filled(step.send)))
            self.check(step, client.until(step))


async def _begin(server: LiveServer, name: str, user: str, cut: int) -> LivePlay:
    play = LivePlay(server, user, cut)
    if name in scripts.NOT_LOGGED_IN:
        play.sessions["1"] = LiveClient(server, cut)
        if name == "Authenticate":
            assert play.sessions["1"].wire.line().startswith("* OK ")
        return play
    client = await play.session("1")
    for mailbox in DEFAULT_MAILBOXES:
        assert client.wire.command(f"DELETE {mailbox}")[-1].startswith("a OK")
    if name in scripts.SELECTED_FIRST:
        await play.run((scripts.SCRIPTS / "SelectedStateSetup.test").read_text("utf-8"))
    return play


def play_script(server: LiveServer, name: str, cut: int) -> None:
    """With an account of its own. AssertionError where an answer is not as the script has it."""
    user = f"{name.lower()}-{cut}@example.jp"
    server.say("account", "add", user, "--password-stdin", said=f"{PASSWORD}\n")
    asyncio.run(_play(server, name, user, cut))
    server.say("account", "remove", user)


async def _play(server: LiveServer, name: str, user: str, cut: int) -> None:
    play = await _begin(server, name, user, cut)
    text = (scripts.SCRIPTS / f"{name}.test").read_text("utf-8")
    if name.startswith("Peek"):     # as tests/dialogues/test_imap_scripts.py says
        text = text.replace("\\* 0 RECENT", "\\* \\d RECENT")
    await play.run(text)
    for session in play.sessions.values():
        session.wire.close()
