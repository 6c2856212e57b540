"""Dialogues as data: a file of C: and S: lines, run against a core in every way the octets can arrive.

A dialogue file holds comments (`# ...`), then directives (`word: value`), then the lines:

    config: KEY=VALUE ...     options of the server's configuration
    reply: EVENT = REPLY      what the scripted face answers to one event instead of its usual
    compare: codes            only the codes of replies count: examples that stand as their RFC has them
    C: text                   a line of the client; CRLF is added
    C~ text                   octets of the client with Python escapes, nothing added
    S: text                   a line of the server; CRLF is added
    TLS                       the handshake happens here

Lines of the client that stand together are sent together: that is PIPELINING.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_DIRECTIVE = re.compile(r"([a-z]+): (.*)")
_LINE = re.compile(r"([CS])([:~])(?: (.*)|())")


class Peer(Protocol):
    """A server that answers octets with octets."""

    def feed(self, octets: bytes) -> bytes:
        """What it sends after these octets; b"" first of all for the greeting."""
        ...

    def start_tls(self) -> None:
        """The handshake is done."""
        ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the client sends in one go, what the server answers, and whether TLS begins behind it."""

    sent: bytes
    expected: bytes
    then_tls: bool = False


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A parsed file."""

    name: str
    config: dict[str, str]
    replies: dict[str, str]
    codes_only: bool
    exchanges: tuple[Exchange, ...]

    def client_size(self) -> int:
        """Octets the client sends in all."""
        return sum(len(exchange.sent) for exchange in self.exchanges)

    def comparable(self, octets: bytes) -> bytes:
        """What of the server's octets has to be equal."""
        return b"\n".join(re.findall(rb"(?m)^\d{3}(?= |\r)|^[+-]\w*", octets)) if self.codes_only else octets


def load_dialogues(folder: Path) -> list[Dialogue]:
    """Every dialogue of a folder, by name."""
    return [parse_dialogue(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.txt"))]


def parse_dialogue(name: str, text: str) -> Dialogue:
    """A file's text; ValueError names the line that is none of the format's."""
    config: dict[str, str] = {}
    replies: dict[str, str] = {}
    directives: dict[str, str] = {}
    exchanges: list[Exchange] = []
    sent, expected = b"", b""
    for line in text.split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        if line == "TLS":
            exchanges.append(Exchange(sent, expected, then_tls=True))
            sent, expected = b"", b""
        elif found := _LINE.fullmatch(line):
            side, kind, said, _ = found.groups()
            octets = (said or "").encode("latin-1" if kind == "~" else "utf-8")
            octets = octets.decode("unicode_escape").encode("latin-1") if kind == "~" else octets + b"\r\n"
            if side == "S":
                expected += octets
                continue
            if expected:
                exchanges.append(Exchange(sent, expected))
                sent, expected = b"", b""
            sent += octets
        elif found := _DIRECTIVE.fullmatch(line):
            if found[1] == "config":
                config |= dict(word.split("=", 1) for word in found[2].split())
            elif found[1] == "reply":
                event, _, reply = found[2].partition(" = ")
                replies[event] = reply
            else:
                directives[found[1]] = found[2]
        else:
            raise ValueError(f"{name}: {line!r}")
    exchanges.append(Exchange(sent, expected))
    return Dialogue(name, config, replies, directives.get("compare") == "codes", tuple(exchanges))


def run_dialogue(dialogue: Dialogue, peer: Peer, cut: Callable[[bytes, int], Iterator[bytes]]) -> list[bytes]:
    """What the server sent in each exchange; cut(octets, position in the whole stream) gives the pieces to feed."""
    heard, position = [], 0
    for exchange in dialogue.exchanges:
        answer = peer.feed(b"")
        for piece in cut(exchange.sent, position):
            answer += peer.feed(piece)
        position += len(exchange.sent)
        heard.append(answer)
        if exchange.then_tls:
            peer.start_tls()
    return heard


def whole(octets: bytes, _position: int) -> Iterator[bytes]:
    """In one piece."""
    yield octets


def octet_by_octet(octets: bytes, _position: int) -> Iterator[bytes]:
    """One octet at a time."""
    return (octets[i : i + 1] for i in range(len(octets)))


def cut_at(place: int) -> Callable[[bytes, int], Iterator[bytes]]:
    """In one piece, but for the one that holds this place of the whole stream: that in two."""

    def cut(octets: bytes, position: int) -> Iterator[bytes]:
        inside = min(max(place - position, 0), len(octets))
        yield octets[:inside]
        yield octets[inside:]

    return cut


def check_dialogue(dialogue: Dialogue, connect: Callable[[], Peer]) -> None:
    """Runs the dialogue whole, octet by octet, and cut at every position; AssertionError names what differs."""
    ways = [("whole", whole), ("octet by octet", octet_by_octet)]
    ways += [(f"cut at {place}", cut_at(place)) for place in range(1, dialogue.client_size())]
    for way, cut in ways:
        heard = run_dialogue(dialogue, connect(), cut)
        for exchange, octets in zip(dialogue.exchanges, heard, strict=True):
            where = f"{dialogue.name}, {way}, after {exchange.sent!r}"
            assert dialogue.comparable(octets) == dialogue.comparable(exchange.expected), where
