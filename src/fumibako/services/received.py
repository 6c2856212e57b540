"""The two trace fields we put in front of a message: where it came from, and where errors go.

Specification: RFC 5321 §4.4 (Received, Return-Path); RFC 3848 §1 and RFC 6531 §4.3 (WITH protocol types);
    RFC 6532 §3 (UTF-8 in header fields).
Contract: values of peers are put in only where they fit the grammar, so that no name can forge a field.
Failure: none.
"""

from __future__ import annotations

import re

from fumibako.model.envelope import Peer
from fumibako.model.ids import TraceId
from fumibako.proto.message.header import format_date

_HELO = re.compile(r"[A-Za-z0-9._-]{1,255}|\[[A-Za-z0-9.:-]{1,64}\]")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f<>()]")


def format_return_path(reverse_path: str) -> bytes:
    """Return-path-line = "Return-Path:" FWS Reverse-path CRLF"""
    return f"Return-Path: <{_safe(reverse_path)}>\r\n".encode()


def format_received(peer: Peer, hostname: str, trace_id: TraceId, only_recipient: str, now_ms: int, offset_minutes: int) -> bytes:
    """Time-stamp-line = "Received:" FWS From-domain By-domain Opt-info ";" FWS date-time CRLF

    only_recipient: for the FOR clause, "" where there are several.
    """
    helo = peer.helo if _HELO.fullmatch(peer.helo) else "unknown"
    name = f"{peer.name} " if _HELO.fullmatch(peer.name) else ""
    tls = f" ({_safe(peer.tls)})" if peer.tls else ""
    clauses = [
        f"Received: from {helo} ({name}{address_literal(peer.address)})" if peer.address else f"Received: from {helo} (local)",
        f" by {hostname} with {peer.protocol}{tls}",
        f" id {trace_id.hex()}",
    ]
    if only_recipient:
        clauses.append(f" for <{_safe(only_recipient)}>")
    return ("\r\n".join(clauses) + f";\r\n {format_date(now_ms, offset_minutes)}\r\n").encode()


def address_literal(address: str) -> str:
    """'192.0.2.1' -> '[192.0.2.1]', '2001:db8::1' -> '[IPv6:2001:db8::1]' (RFC 5321 §4.1.3)."""
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def protocol_name(*, esmtp: bool, lmtp: bool, tls: bool, login: bool, smtputf8: bool) -> str:
    """The WITH protocol type: "SMTP", "ESMTPSA", "LMTPS", "UTF8SMTPS"... (RFC 3848 §1, RFC 6531 §4.3)."""
    base = ("UTF8LMTP" if lmtp else "UTF8SMTP") if smtputf8 else "LMTP" if lmtp else "ESMTP" if esmtp else "SMTP"
    return base + ("S" if tls and base != "SMTP" else "") + ("A" if login and base != "SMTP" else "")


def _safe(text: str) -> str:
    return _UNSAFE.sub("?", text)
