"""The same random sessions to us and to servers that have served for decades: Dovecot 2.3 for IMAP, Postfix 3.7 for SMTP."""

from __future__ import annotations

import imaplib
import random
import re
from collections.abc import Callable

import pytest

from tests.support.clients import Wire, imap, letter
from tests.support.internet import Internet
from tests.support.server import PASSWORD, LiveServer

pytestmark = [pytest.mark.system, pytest.mark.root]
OPERATIONS, SESSIONS = 250, 60
FLAGS = ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", "$Work", "Later")
MAILBOXES = ("INBOX", "One", "Two", "Three")

State = dict[str, list[tuple[str, frozenset[str]]]]


# -- IMAP --


class Player:
    """One server's end of the same operations; every answer is brought to what must be equal."""

    def __init__(self, client: imaplib.IMAP4) -> None:
        self.client = client
        for name in MAILBOXES[1:]:
            client.create(name)
        client.select("INBOX")

    def ask(self, name: str, *arguments: str) -> tuple[str, list[str]]:
        """Status, and the numbers of a SEARCH or the flags that were told."""
        try:
            status, _ = self.client._simple_command(name, *arguments)
        except self.client.error as error:
            return re.findall(r"\b(?:NO|BAD)\b", str(error))[0], []
        told = self.client.untagged_responses
        if name == "STORE":     # flags that stay as they are may be told or not (RFC 9051 §6.4.6)
            told.pop("FETCH", None)
        facts = [number for line in told.pop("SEARCH", []) for number in line.decode().split()]
        facts += sorted(_flags_told(line) for line in told.pop("FETCH", []) if isinstance(line, bytes) and b"FLAGS" in line)
        facts += [f"expunged {number}" for number in _removed([int(line) for line in told.pop("EXPUNGE", [])])]
        told.clear()
        return status, facts

    def append(self, mailbox: str, flags: str, octets: bytes) -> tuple[str, list[str]]:
        status, _ = self.client.append(mailbox, flags, "", octets)
        self.client.noop()
        self.client.untagged_responses.clear()
        return status, []

    def size(self) -> int:
        return len(self.ask("SEARCH", "ALL")[1])

    def state(self) -> State:
        """Every mailbox: subjects and flags in order."""
        found: State = {}
        for mailbox in MAILBOXES:
            self.client.untagged_responses.clear()
            if self.client.select(mailbox, readonly=True)[0] != "OK":
                continue
            count = int(self.client.untagged_responses["EXISTS"][-1])
            rows = self.client.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1] if count else []
            found[mailbox] = [_row(row) for row in _joined(rows)]
        self.client.select("INBOX")
        self.client.untagged_responses.clear()
        return found


Operation = Callable[[Player], tuple[str, list[str]]]


def _removed(told: list[int]) -> list[int]:
    """Which messages went, by the numbers they had before: one server counts down, the other says the first n times."""
    there = list(range(1, OPERATIONS + 1))
    return sorted(there.pop(number - 1) for number in told)


def _flags_told(line: bytes) -> str:
    number = line.split(b" ", 1)[0].decode()
    return f"{number} {' '.join(sorted(_flags(line)))}"


def _flags(line: bytes) -> set[str]:
    told = re.search(rb"FLAGS \(([^)]*)\)", line)
    assert told is not None, line
    return {flag for flag in told[1].decode().split() if flag != "\\Recent"}


def _joined(rows: list[object]) -> list[bytes]:
    """A FETCH response whole: imaplib gives (head, literal) and then what follows the literal."""
    joined: list[bytes] = []
    for row in rows:
        if isinstance(row, tuple):
            joined.append(b" ".join(row))
        elif isinstance(row, bytes) and joined:
            joined[-1] += b" " + row
    return joined


def _row(response: bytes) -> tuple[str, frozenset[str]]:
    subject = re.search(rb"Subject: ([^\r\n]*)", response)
    assert subject is not None, response
    return subject[1].decode(), frozenset(_flags(response))


def _sequence(chance: random.Random, size: int) -> str:
    numbers = [str(chance.randint(1, max(size, 1))) for _ in range(2)]
    return chance.choice([numbers[0], ":".join(numbers), ",".join(numbers), "1:*", "*", f"{numbers[0]}:*"])


def _operation(chance: random.Random, number: int, size: int) -> tuple[str, Operation]:
    """The next thing to do, in words, and as it is asked of both."""
    flags = "(" + " ".join(chance.sample(FLAGS, chance.randint(1, 3))) + ")"
    mailbox, octets = chance.choice(MAILBOXES), letter(f"m{number}").as_bytes()
    if not size or chance.random() < 0.25:
        into = chance.choice(("INBOX", mailbox))
        return f"APPEND {into} {flags}", lambda one: one.append(into, flags, octets)
    where = _sequence(chance, size)
    how = chance.choice(["FLAGS", "+FLAGS", "-FLAGS", "FLAGS.SILENT", "+FLAGS.SILENT"])
    key = chance.choice([
        "ALL", "SEEN", "UNSEEN", "FLAGGED", "DELETED", "UNDELETED", "KEYWORD $Work", "NOT KEYWORD Later", "DRAFT",
        f'SUBJECT "m{chance.randint(0, 9)}"', "OR SEEN ANSWERED", "LARGER 100", "SMALLER 300", "TEXT hello", f"NOT {where}",
        "BODY absent", "HEADER Subject m", "SINCE 1-Jan-2000", "SENTBEFORE 1-Jan-2030",
    ])
    # RFC 6851 §3.3 leaves a MOVE onto the selected mailbox itself to the server.
    command = chance.choice([("STORE", where, how, flags), ("STORE", where, how, flags), ("COPY", where, mailbox),
                             ("MOVE", where, chance.choice(MAILBOXES[1:])), ("SEARCH", key), ("SEARCH", key),
                             ("FETCH", where, "(FLAGS)"), ("EXPUNGE",), ("COPY", where, "Absent"), ("SEARCH", "NONSENSE"),
                             ("CREATE", mailbox), ("DELETE", "Absent"), ("STATUS", "Absent", "(MESSAGES)")])
    return " ".join(command), lambda one: one.ask(*command)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_imap_like_dovecot(internet: Internet, house: LiveServer, seed: int) -> None:
    chance = random.Random(seed)
    user = f"differs{seed}"
    house.say("account", "add", f"{user}@example.jp", "--password-stdin", said=f"{PASSWORD}\n")
    with imap(house, f"{user}@example.jp") as ours, internet.neighbour.imap(user) as theirs:
        us, dovecot = Player(ours), Player(theirs)
        done: list[object] = []
        for number in range(OPERATIONS):
            words, operation = _operation(chance, number, us.size())
            answers = operation(us), operation(dovecot)
            done.append(words)
            assert answers[0] == answers[1], f"operation {number}: {done[-4:]}: {answers}"
            if number % 25 == 24:
                assert us.state() == dovecot.state(), f"after operation {number}"
    house.say("account", "remove", f"{user}@example.jp")


# -- SMTP --

COMMANDS = (
    "MAIL FROM:<x@neighbour.example>", "MAIL FROM:<>", "MAIL FROM:<x@neighbour.example> BODY=8BITMIME SIZE=1000",
    "MAIL FROM:<x@neighbour.example> NONSENSE=1", "MAIL FROM:", "MAIL",
    "RCPT TO:<bob@{domain}>", "RCPT TO:<bob@{domain}>", "RCPT TO:<carol@{domain}>", "RCPT TO:<no-such-user@{domain}>",
    "RCPT TO:<x@elsewhere.example>", "RCPT TO:", "RCPT", "DATA", "DATA", "DATA", "DATA now", "RSET", "RSET", "NOOP", "NOOP x",
    "EXPN list", "FOO", "FOO bar", "EHLO again.example", "STARTTLS now", "TURN",
)
# Left out: a malformed BDAT, where we hang up, since nobody knows how many octets belong to it; and a MAIL refused for its
# SIZE, behind which Postfix 3.7 takes the next MAIL for a second one (RFC 5321 §4.1.1.2: a refused MAIL leaves no sender).


def _session(endpoint: tuple[str, int], domain: str, commands: list[str]) -> list[str]:
    """Each command with the class of its reply: "2", "3", "4" or "5"."""
    with Wire(endpoint) as wire:
        said = [f"greeting {wire.reply()[:1]}"]
        for command in commands:
            reply = wire.ask(command.format(domain=domain))
            said.append(f"{command} {reply[:1]}")
            if reply.startswith("354"):
                wire.send(b"Subject: differential\r\n\r\nhello\r\n.\r\n")
                said.append(f"message {wire.reply()[:1]}")
    return said


@pytest.mark.parametrize("seed", range(3))
def test_smtp_like_postfix(internet: Internet, house: LiveServer, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(SESSIONS // 3):
        # At most nine errors: Postfix answers slowly after ten.
        commands = ["EHLO client.example", *chance.choices(COMMANDS, k=9), "QUIT"]
        ours = _session(house.place.endpoint("smtp"), "example.jp", commands)
        theirs = _session(internet.neighbour.smtp, "neighbour.example", commands)
        assert ours == theirs, "\n".join(f"{one:70}{other[-1]}" for one, other in zip(ours, theirs, strict=False))
