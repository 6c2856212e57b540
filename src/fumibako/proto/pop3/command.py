"""POP3 command lines as events.

Specification: RFC 1939 §3, §5, §7; RFC 2449 §3 (command), §4; RFC 2595 §4; RFC 5034 §4; RFC 6856 §2.
Contract: syntax only; what is legal when is ServerConnection's LEGAL.
Failure: ProtocolError, whose text is the -ERR the client gets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fumibako.proto.pop3.events import Auth, Command, Dele, List, Noop, Quit, Reset, Retr, StartTLS, Stat, Top, Uidl, Utf8
from fumibako.proto.reader import ProtocolError, parse_uint
from fumibako.proto.sasl.base64 import decode_base64
from fumibako.proto.sasl.prepare import prepare_password

NUMBER_DIGITS_MAX = 10

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_MECHANISM = re.compile(rb"[A-Za-z0-9_-]{1,20}")


@dataclass(frozen=True, slots=True)
class Capa:
    """CAPA: the core answers it."""


@dataclass(frozen=True, slots=True)
class User:
    """USER: the core answers it and keeps the name for PASS."""

    name: str


@dataclass(frozen=True, slots=True)
class Pass:
    """PASS: becomes a Login."""

    password: str


Line = Command | Capa | User | Pass


def parse_command(line: bytes) -> Line:
    """command = keyword *(SP param), without its CRLF."""
    if _CONTROL.search(line):
        raise ProtocolError("Control character in command")
    keyword, _, argument = line.partition(b" ")
    parse = _KEYWORDS.get(keyword.rstrip(b" ").upper())
    if parse is None:
        raise ProtocolError("Unknown command")
    return parse(argument)


def _bare(command: Callable[[], Line]) -> Callable[[bytes], Line]:
    def parse(argument: bytes) -> Line:
        if argument.strip(b" "):
            raise ProtocolError("Unexpected argument")
        return command()

    return parse


def _number(octets: bytes) -> int:
    """A message-number: positive, decimal (RFC 1939 §4)."""
    number = parse_uint(octets, NUMBER_DIGITS_MAX)
    if not number:
        raise ProtocolError("Message numbers begin with 1")
    return number


def _numbered(command: Callable[[int], Line]) -> Callable[[bytes], Line]:
    return lambda argument: command(_number(argument.strip(b" ")))


def _optional(command: Callable[[int | None], Line]) -> Callable[[bytes], Line]:
    return lambda argument: command(_number(word) if (word := argument.strip(b" ")) else None)


def _top(argument: bytes) -> Top:
    """TOP msg n"""
    match argument.split():
        case [number, lines]:
            return Top(_number(number), parse_uint(lines, NUMBER_DIGITS_MAX))
    raise ProtocolError("Expected TOP message lines")


def _user(argument: bytes) -> User:
    """USER name"""
    if not (name := _text(argument.strip(b" "))):
        raise ProtocolError("Expected a name")
    return User(name)


def _pass(argument: bytes) -> Pass:
    """PASS string; spaces belong to it (RFC 1939 §7)."""
    try:
        return Pass(prepare_password(_text(argument)))
    except ValueError as error:
        raise ProtocolError("Not a password") from error


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError("Not UTF-8") from error


def _auth(argument: bytes) -> Auth:
    """auth-command = "AUTH" SP mechanism [SP initial-response]; initial-response = base64 / "=" """
    mechanism, _, initial = argument.strip(b" ").partition(b" ")
    if not _MECHANISM.fullmatch(mechanism):
        raise ProtocolError("Expected a mechanism")
    response = None if not initial else b"" if initial == b"=" else decode_base64(initial)
    return Auth(mechanism.decode("ascii").upper(), response)


_KEYWORDS: dict[bytes, Callable[[bytes], Line]] = {
    b"CAPA": _bare(Capa),
    b"USER": _user,
    b"PASS": _pass,
    b"AUTH": _auth,
    b"STLS": _bare(StartTLS),
    b"UTF8": _bare(Utf8),
    b"STAT": _bare(Stat),
    b"LIST": _optional(List),
    b"UIDL": _optional(Uidl),
    b"RETR": _numbered(Retr),
    b"TOP": _top,
    b"DELE": _numbered(Dele),
    b"NOOP": _bare(Noop),
    b"RSET": _bare(Reset),
    b"QUIT": _bare(lambda: Quit(update=False)),
}
