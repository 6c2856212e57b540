"""A server in one process, one with a worker and one with four say the same, octet for octet.

Every file of tests/dialogues is played to all three. What it expects is what the scripted face of the core's tests says, so
the three are compared with each other: they have the same accounts, and the same history.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.dialogues import test_imap_scripts as scripts
from tests.support.clients import Wire
from tests.support.dialogue import Dialogue, load_dialogues
from tests.support.scripts_live import play_script
from tests.support.server import PASSWORD, LiveServer, Place, live_server

pytestmark = pytest.mark.system
WORKERS = ("0", "1", "4")
FOLDER = Path(__file__).parents[2] / "dialogues"
# The server hangs up on these while they still talk: how much of its answer gets through is the network's affair.
CUT_OFF = {"web-client", "states"}
DIALOGUES = [(protocol, dialogue) for protocol in ("smtp", "imap", "pop3") for dialogue in load_dialogues(FOLDER / protocol)
             if dialogue.name not in CUT_OFF]
# In `make test`: those with several sessions, and changes that another session is told of.
SCRIPTS = {"Append", "ConcurrentAppendUIDToMSNMapping", "CondstoreEnable", "Copy", "Expunge", "FetchPeek", "Store"}
_CHUNK = re.compile(rb"BDAT +(\d+)\b.*", re.IGNORECASE)
# What no two servers have in common: ids, times, random challenges.
_OWN = ((re.compile(rb"\b[0-9a-f]{32}\b"), b"<id>"), (re.compile(rb"(UIDVALIDITY|APPENDUID) \d+"), rb"\1 <time>"),
        (re.compile(rb"(?m)^(334|\+) [A-Za-z0-9+/=]{20,}\r$"), rb"\1 <challenge>"))


@pytest.fixture(scope="module")
def servers(network: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LiveServer]]:
    """In the order of WORKERS."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(live_server(
                tmp_path_factory.mktemp("data") / "data", Place(f"{network}.{20 + number}"), accounts=("alice", "bob"),
                server__workers=workers, login__allow_plaintext="true", listen__lmtp=f'["{network}.{20 + number}:2424"]'))
            for number, workers in enumerate(WORKERS)
        ]


@pytest.mark.parametrize("size", [1 << 20, 1], ids=["whole", "octet-by-octet"])
@pytest.mark.parametrize(("protocol", "dialogue"), DIALOGUES, ids=[f"{protocol}-{one.name}" for protocol, one in DIALOGUES])
def test_the_number_of_workers_cannot_be_told(servers: list[LiveServer], protocol: str, dialogue: Dialogue, size: int) -> None:
    alone, *others = [_common(_played(server, protocol, dialogue, size)) for server in servers]
    assert alone.startswith((b"220 ", b"* OK ", b"+OK")), alone
    for workers, heard in zip(WORKERS[1:], others, strict=True):
        assert heard == alone, f"workers = {workers}"


def _played(server: LiveServer, protocol: str, dialogue: Dialogue, size: int) -> bytes:
    """Everything the server says. TLS is another test's: a dialogue ends where it begins."""
    with Wire(_endpoint(server, protocol, dialogue)) as wire:
        heard = wire.line().encode() + b"\r\n"
        if protocol == "smtp":
            heard += SmtpClient(wire, size, one_reply_each=dialogue.config.get("lmtp") == "yes").play(dialogue)
        else:
            _send(wire, _opening(protocol, dialogue), size)
            for exchange in dialogue.exchanges:
                _send(wire, exchange.sent, size)
                if exchange.then_tls:
                    break
        with suppress(OSError):         # the server has left before
            wire.socket.shutdown(socket.SHUT_WR)
        return heard + wire.rest()


def _send(wire: Wire, octets: bytes, size: int) -> None:
    for start in range(0, len(octets), size):
        wire.send(octets[start:start + size])


class SmtpClient:
    """Waits for every reply, as one has to after EHLO and DATA (RFC 2920 §3.1); a message goes where it was invited only."""

    def __init__(self, wire: Wire, size: int, *, one_reply_each: bool) -> None:
        self.wire, self.size, self.one_reply_each = wire, size, one_reply_each
        self.recipients = 0

    def play(self, dialogue: Dialogue) -> bytes:
        heard: list[str] = []
        for exchange in dialogue.exchanges:
            left = exchange.sent
            while left and (not heard or heard[-1]):
                command, left = self._command(left, invited=bool(heard) and heard[-1].startswith("354"))
                with suppress(BrokenPipeError, ConnectionResetError):      # then there is no reply either
                    _send(self.wire, command, self.size)
                if not command.endswith((b"\r\n", b"\n")):
                    break       # the client leaves in the middle of it
                heard += self._replies(command)
                if command.upper() == b"DATA\r\n" and not heard[-1].startswith("354") and b"\r\n.\r\n" in left:
                    left = left.partition(b"\r\n.\r\n")[2]
            if exchange.then_tls:
                break
        return "\r\n".join(heard).encode()

    def _command(self, left: bytes, *, invited: bool) -> tuple[bytes, bytes]:
        """The next thing to send in one go: a line, a line and its chunk, or a message."""
        ending = b"\r\n.\r\n" if invited and not left.startswith(b".\r\n") else b"\r\n"
        line, found, rest = left.partition(ending)
        if chunk := _CHUNK.fullmatch(line):
            return line + found + rest[:int(chunk[1])], rest[int(chunk[1]):]
        return line + found, rest

    def _replies(self, command: bytes) -> list[str]:
        ends = command.endswith(b"\r\n.\r\n") or (command.upper().startswith(b"BDAT") and b"LAST" in command.upper())
        count = max(1, self.recipients) if ends and self.one_reply_each else 1
        replies = [self.wire.reply()]
        if ends and self.one_reply_each and replies[0][:1] == "2":
            replies += [self.wire.reply() for _ in range(count - 1)]
        if command[:4].upper() == b"RCPT" and replies[0].startswith("250"):
            self.recipients += 1
        if ends or command[:4].upper() in (b"MAIL", b"RSET"):
            self.recipients = 0
        return replies


def _endpoint(server: LiveServer, protocol: str, dialogue: Dialogue) -> tuple[str, int]:
    if dialogue.config.get("lmtp") == "yes":
        return server.place.address, 2424
    return server.place.endpoint("submission" if dialogue.config.get("submission") == "yes" else protocol)


def _opening(protocol: str, dialogue: Dialogue) -> bytes:
    """Some dialogues begin after the login."""
    start = dialogue.config.get("start", "")
    login = f'o1 LOGIN alice@example.jp "{PASSWORD}"\r\n'.encode() if protocol == "imap" and start else b""
    return login + (b"o2 SELECT INBOX\r\n" if start == "selected" else b"")


def _common(heard: bytes) -> bytes:
    for pattern, instead in _OWN:
        heard = pattern.sub(instead, heard)
    return heard


@pytest.mark.skipif(not scripts.NAMES, reason="suites/imap-dialogues is not beside the project")
@pytest.mark.parametrize("number", [0, 2], ids=["workers-0", "workers-4"])      # 1: tests/system/05-scripts
@pytest.mark.parametrize("cut", [0, 7], ids=["whole", "cut"])
@pytest.mark.parametrize("name", scripts.NAMES)
def test_script(servers: list[LiveServer], long: bool, name: str, cut: int, number: int) -> None:
    if not long and (name not in SCRIPTS or cut):
        pytest.skip("with --long")
    play_script(servers[number], name, cut)
