"""A session for a new IMAP or POP3 connection: what the listener's settings and the connection's TLS make of it.

Specification: RFC 9051 §7.1.5 (BYE as a greeting); RFC 1939 §3 and RFC 3206 (a POP3 server that turns a connection away).
Contract: mechanisms with channel binding are offered only where the connection has it.
Failure: none.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from fumibako.faces import pop3
from fumibako.faces.imap.conversation import ImapServices
from fumibako.faces.imap.session import Session as ImapSession
from fumibako.net.stream import Stream
from fumibako.proto.imap.server import ServerConfig as ImapConfig
from fumibako.proto.pop3.server import ServerConfig as Pop3Config
from fumibako.proto.sasl.server import MECHANISMS


@dataclass(frozen=True, slots=True)
class Door:
    """One listener. starttls: None where there is none or where TLS came first; allow_plaintext: tests on loopback."""

    hostname: str
    starttls: ssl.SSLContext | None
    allow_plaintext: bool


def open_imap(door: Door, services: ImapServices, stream: Stream) -> ImapSession:
    config = ImapConfig(
        door.hostname, tls_available=door.starttls is not None, tls_active=stream.tls is not None,
        allow_plaintext_login=door.allow_plaintext, auth_mechanisms=_mechanisms(stream),
    )
    return ImapSession(config, stream, services, door.starttls)


def open_pop3(door: Door, services: pop3.Pop3Services, stream: Stream) -> pop3.Session:
    config = Pop3Config(
        tls_available=door.starttls is not None, tls_active=stream.tls is not None,
        auth_mechanisms=_mechanisms(stream), auth_without_tls=door.allow_plaintext,
    )
    return pop3.Session(config, stream, services, door.starttls)


def refuse_imap(reason: str) -> bytes:
    """What a connection beyond the caps is told."""
    return f"* BYE [UNAVAILABLE] {reason[:1].upper()}{reason[1:]}, try again later\r\n".encode("ascii")


def refuse_pop3(reason: str) -> bytes:
    """What a connection beyond the caps is told."""
    return f"-ERR [SYS/TEMP] {reason[:1].upper()}{reason[1:]}, try again later\r\n".encode("ascii")


def _mechanisms(stream: Stream) -> tuple[str, ...]:
    binding = stream.tls is not None and bool(stream.tls.server_end_point)
    return tuple(name for name in MECHANISMS if binding or not name.endswith("-PLUS"))
