"""POP3, client side, without I/O: for migration from another server, and for tests.

Specification: RFC 1939 §3, §5, §7; RFC 2449 §5 (CAPA), §6.6 (PIPELINING); RFC 2595 §4 (STLS); RFC 5034 §4 (AUTH).
Contract: one command at a time: call its method, send data_to_send(), feed receive_data(), take next_event() until
    Replied, or where lines follow, until EndOfLines.  The first event of all is Replied("", greeting).
    A message comes in chunks as stored at the server, minus dot-stuffing.
Failure: ProtocolError for a peer that does not speak POP3 or talks out of turn; ValueError for an argument that can't be
    sent; RuntimeError for a command while another is under way.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass

from fumibako.proto.pop3.response import Response, parse_response
from fumibako.proto.reader import Need, ProtocolError, parse_uint
from fumibako.proto.sasl.base64 import decode_base64, encode_base64
from fumibako.proto.sasl.client import ClientMechanism
from fumibako.proto.smtp.transparency import DotReader

PEER_LINE_MAX = 4096            # what we take of a server: it should keep to 512
INITIAL_RESPONSE_MAX = 200      # octets of base64 that still fit a command of 255: RFC 5034 §4

_ARGUMENT = re.compile(r"[^\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Replied:
    """The status line of a command; "" for the greeting."""

    command: str
    response: Response


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next octets of a multi-line response."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class EndOfLines:
    """The multi-line response is whole."""


Event = Replied | Chunk | EndOfLines


class ClientConnection:
    """One connection, or the part of it behind STLS."""

    def __init__(self) -> None:
        self._in = bytearray()
        self._out: list[bytes] = []
        self._tls = False
        self._running: Generator[Event | None, None, None] | None = self._single("")

    def after_tls(self) -> ClientConnection:
        """The core for what follows the handshake (RFC 2595 §4: no second greeting)."""
        if not self._tls or self._in:
            raise ProtocolError("no accepted STLS, or plaintext behind it")
        core = ClientConnection()
        core._running = None
        return core

    def receive_data(self, octets: bytes) -> None:
        """Octets from the peer."""
        self._in += octets

    def data_to_send(self) -> bytes:
        """What to send now; empty when there is nothing."""
        out, self._out = b"".join(self._out), []
        return out

    def next_event(self) -> Event | Need:
        """The next event; BYTES: octets are needed; REPLY: a command is your turn."""
        if self._running is None:
            if self._in:
                raise ProtocolError("response without a command")
            return Need.REPLY
        event = next(self._running, Need.REPLY)
        if event is Need.REPLY:
            self._running = None
            return self.next_event()
        return Need.BYTES if event is None else event

    def command(self, keyword: str, argument: str | None = None, *, lines: bool = False) -> None:
        """Any command; lines: a +OK is followed by a multi-line response (CAPA, RETR, TOP, LIST and UIDL without number)."""
        if not keyword.isascii() or not keyword.isalnum() or not (argument is None or _ARGUMENT.fullmatch(argument)):
            raise ValueError("not a POP3 command")
        line = keyword if argument is None else f"{keyword} {argument}"
        self._begin(self._multi(keyword) if lines else self._single(keyword), line.encode("utf-8"))

    def stls(self) -> None:
        """STLS; behind +OK begin TLS and go on with after_tls()."""
        self._begin(self._stls(), b"STLS")

    def auth(self, mechanism: ClientMechanism) -> None:
        """AUTH with a mechanism that holds the credentials."""
        self._begin(self._auth(mechanism), None)

    def _begin(self, running: Generator[Event | None, None, None], line: bytes | None) -> None:
        if self._tls or (self._running is not None and self.next_event() is not Need.REPLY):
            running.close()
            raise RuntimeError("a command is under way, or the connection is over")
        self._running = running
        if line is not None:
            self._line(line)

    def _line(self, octets: bytes) -> None:
        self._out.append(octets + b"\r\n")

    def _status(self) -> Generator[None, None, bytes]:
        scanned = 0
        while (end := self._in.find(b"\r\n", scanned, PEER_LINE_MAX)) < 0:
            if len(self._in) >= PEER_LINE_MAX:
                raise ProtocolError("response line too long")
            scanned = max(0, len(self._in) - 1)
            yield None
        line = bytes(self._in[:end])
        del self._in[: end + 2]
        return line

    def _single(self, keyword: str) -> Generator[Event | None, None, None]:
        yield Replied(keyword, parse_response((yield from self._status())))

    def _multi(self, keyword: str) -> Generator[Event | None, None, None]:
        response = parse_response((yield from self._status()))
        yield Replied(keyword, response)
        reader, last = DotReader(), not response.ok
        while not last:
            piece = reader.read(self._in)
            if piece is None:
                yield None
                continue
            octets, last = piece
            if octets:
                yield Chunk(octets)
        if response.ok:
            yield EndOfLines()

    def _stls(self) -> Generator[Event | None, None, None]:
        response = parse_response((yield from self._status()))
        if response.ok and self._in:
            raise ProtocolError("plaintext behind the response to STLS")
        self._tls = response.ok
        yield Replied("STLS", response)

    def _auth(self, mechanism: ClientMechanism) -> Generator[Event | None, None, None]:
        """RFC 5034 §4."""
        initial = mechanism.step(None)
        encoded = b"" if initial is None else encode_base64(initial) or b"="
        fits = len(encoded) <= INITIAL_RESPONSE_MAX
        self._line(b"AUTH " + mechanism.name.encode("ascii") + (b" " + encoded if encoded and fits else b""))
        while (line := (yield from self._status())).startswith(b"+ "):
            if not fits:
                self._line(encoded)
                fits = True
                continue
            try:
                response = mechanism.step(decode_base64(line[2:]))
            except ProtocolError:
                self._line(b"*")
                yield from self._status()
                raise
            self._line(encode_base64(response or b""))
        response_line = parse_response(line)
        if response_line.ok and not mechanism.is_complete:
            raise ProtocolError("the server did not prove that it knows the password")
        yield Replied("AUTH", response_line)


def parse_listing(octets: bytes) -> dict[int, str]:
    """The lines of LIST or UIDL: message number -> size or unique_id; ProtocolError for anything else."""
    listing = {}
    for line in octets.split(b"\r\n"):
        if line:
            number, _, value = line.partition(b" ")
            listing[parse_uint(number, 10)] = value.decode("ascii", "replace").strip(" ")
    return listing
