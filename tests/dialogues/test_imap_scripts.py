"""The IMAP scripts of Apache James, which Dovecot passes too, against a session over a real store.

They are read where they lie (suites/imap-dialogues, see its README) and skipped where that folder is absent. Of a tagged
answer tag and status count, its wording is James's; every untagged line has to match its regular expression, but for the
order of the flags in FLAGS. The scripts write "." between levels of a mailbox name, we have "/"; a new account's default
mailboxes are deleted first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.imap_session import Client, House

SCRIPTS = Path(__file__).parents[3] / "shared" / "suites" / "imap-dialogues"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.test"))
SELECTED_FIRST = frozenset({
    "Check", "Copy", "Expunge", "FetchBodyNoSection", "FetchEnvelope", "FetchInternalDate", "FetchMultipleMessages", "FetchPeek",
    "FetchRFC822", "FetchRFC822Header", "FetchRFC822Text", "FetchSaveDate", "FetchText", "Search", "SearchSaveDate", "Store",
})
NOT_LOGGED_IN = frozenset({"Welcome", "Authenticate"})
_NAMED = re.compile(r"\S+ (?:CREATE|DELETE|SELECT|EXAMINE|STATUS|SUBSCRIBE) ", re.IGNORECASE)
_FLAGS = re.compile(r"\\?\* (?:OK \\?\[PERMANENT)?FLAGS \\?\(([\w\\ *]+)\)(?:\\?\].*)?")
_SELECT = re.compile(r"\S+ (?:SELECT|EXAMINE) ", re.IGNORECASE)
_RENAME = re.compile(r"\S+ RENAME INBOX ", re.IGNORECASE)
_EXPUNGED = re.compile(r"\* \d+ (?:EXPUNGE|RECENT)")
_WORDING = re.compile(r"(\\?\* OK \\?\[[^\]]*\] ).*", re.DOTALL)
_UNESCAPED_SIZE = re.compile(r"(?<!\\)\{(\d+)\}\Z")
_FIXED_VALIDITY = re.compile(r"(UIDVALIDITY) \d+")
_SIZE = re.compile(r"\{(\d+)\+?\}\Z")
# RFC 9051 §6.3.3: EXAMINE says that no flag can be changed for good; James lists them.
_NO_PERMANENT_FLAGS = "* OK [PERMANENTFLAGS ()] Limited"
_TAGGED = re.compile(r"(?:(\S+) )?(OK|NO|BAD)\b")


@dataclass(slots=True)
class Step:
    """Lines to send to one session, then what has to come back: a pattern, or a set of them in any order."""

    session: str
    send: list[str] = field(default_factory=list)
    expect: list[list[str]] = field(default_factory=list)

    def groups(self) -> list[list[str]]:
        """RFC 9051 §6.3.2 prescribes no order for what SELECT tells; two scripts want another one than the rest."""
        if self.send and _SELECT.match(self.send[0]):
            return [[pattern for group in self.expect[:-1] for pattern in group], self.expect[-1]]
        return self.expect


def parse(text: str) -> Iterator[Step]:
    step, group = Step("1"), None
    for line in text.replace("\r\n", "\n").split("\n"):
        kind, _, rest = line.partition(":")
        rest = rest.removeprefix(" ")
        if line.startswith("SUB {"):
            group = []
        elif line.startswith("}"):
            assert group is not None
            step.expect.append(group)
            group = None
        elif kind == "C":
            if step.expect:
                yield step
                step = Step(step.session)
            step.send.append(rest)
        elif kind == "SESSION":
            if step.send or step.expect:
                yield step
            step = Step(rest.strip())
        elif kind == "S" and group is not None:
            group.append(rest)
        elif kind == "S":
            step.expect.append([rest])
    yield step


def ours(line: str) -> str:
    return line.replace(".", "/") if _NAMED.match(line) else line


def filled(lines: list[str]) -> list[str]:
    """Two messages are an octet shorter than announced, which a server that takes a bare LF doesn't notice."""
    if lines and (size := _SIZE.search(lines[0])):
        missing = int(size[1]) - len("\r\n".join(lines[1:]))
        return [*lines[:-1], lines[-1] + " " * missing] if missing == 1 else lines
    return lines


def flag_set(line: str) -> frozenset[str] | None:
    found = _FLAGS.fullmatch(line)
    return frozenset(found[1].replace("\\", "").split(" ")) if found else None


def without_wording(text: str) -> str:
    r"""`* OK [CODE] text` -> `* OK [CODE] `, of a line and of a pattern."""
    return _WORDING.sub(lambda found: found[1], text)


def matches(pattern: str, line: str) -> bool:
    if pattern.startswith("\\+"):
        return line.startswith("+ ")
    if pattern == "\\* OK IMAP4rev1 Server ready":
        return line.startswith("* OK ")
    if line == _NO_PERMANENT_FLAGS and pattern.startswith("\\* OK \\[PERMANENTFLAGS"):
        return True
    pattern = _UNESCAPED_SIZE.sub(r"\\{\1\\}", _FIXED_VALIDITY.sub(r"\1 \\d+", pattern))
    if (flags := flag_set(line)) is not None and flags == flag_set(pattern.replace("\\(", "(").replace("\\)", ")")):
        return True
    if (tagged := _TAGGED.match(pattern)) and not pattern.startswith("\\*"):
        tag, status = tagged[1] or line.partition(" ")[0], tagged[2]
        return line.startswith((f"{tag} {status} ", f"{tag} {status}\r\n"))
    pattern, line = without_wording(pattern.replace('\\"\\.\\"', '"/"')), without_wording(line)
    return re.fullmatch(pattern, line, re.DOTALL) is not None


def tolerated(step: Step, lines: list[str]) -> list[str]:
    """What we say and James doesn't, or not yet."""
    if step.send and _RENAME.match(step.send[0]):
        # RENAME INBOX moves its messages out, which the client hears at once (RFC 9051 §7.5.1); in James later.
        return [line for line in lines if not _EXPUNGED.fullmatch(line)]
    if step.send and _SELECT.match(step.send[0]) and not any("MAILBOXID" in text for group in step.expect for text in group):
        # Two scripts are older than RFC 8474.
        return [line for line in lines if not line.startswith("* OK [MAILBOXID ")]
    return lines


class Play:
    """One script with its sessions."""

    def __init__(self, house: House, first: Client) -> None:
        self.house, self.sessions = house, {"1": first}

    async def session(self, name: str) -> Client:
        if name not in self.sessions:
            self.sessions[name] = await self.house.login()
        return self.sessions[name]

    async def run(self, text: str) -> None:
        for step in parse(text):
            client = await self.session(step.session)
            await client.send("".join(f"{ours(line)}\r\n" for line in filled(step.send)))
            lines = client.take().split("\r\n")
            assert lines.pop() == "", lines
            self.check(step, lines)

    def check(self, step: Step, lines: list[str]) -> None:
        lines = tolerated(step, lines)
        for group in step.groups():
            waiting = list(group)
            while waiting:
                assert lines, f"after {step.send[-3:]}: nothing more came, expected {waiting}"
                line = lines.pop(0)
                found = next((pattern for pattern in waiting if matches(pattern, line)), None)
                assert found is not None, f"after {step.send[-3:]}: {line!r} is not {waiting}"
                waiting.remove(found)
        assert lines == [], f"after {step.send[-3:]}"


async def begin(house: House, name: str) -> Play:
    """The state a script expects to begin in."""
    if name in NOT_LOGGED_IN:
        return Play(house, house.connect())
    client = await house.login()
    for mailbox in ("Drafts", "Sent", "Junk", "Trash", "Archive"):
        assert (await client.run(f"DELETE {mailbox}")).ok
    play = Play(house, client)
    if name in SELECTED_FIRST:
        await play.run((SCRIPTS / "SelectedStateSetup.test").read_text("utf-8"))
    return play


@pytest.mark.skipif(not NAMES, reason="suites/imap-dialogues is not beside the project")
@pytest.mark.parametrize("name", NAMES)
async def test_script(name: str, tmp_path: Path) -> None:
    house = await House.build(tmp_path / "data")
    play = await begin(house, name)
    if name == "Authenticate":
        play.sessions["1"].take()   # the greeting
    text = (SCRIPTS / f"{name}.test").read_text("utf-8")
    if name.startswith("Peek"):     # contradicts the other scripts about what is \Recent after a second SELECT
        text = text.replace("\\* 0 RECENT", "\\* \\d RECENT")
    await play.run(text)
    for session in play.sessions.values():
        await session.leave()
    await house.close()
