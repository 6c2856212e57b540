"""Who the client is: LOGIN, AUTHENTICATE, ENABLE and ID.

Specification: RFC 9051 §6.2.2, §6.2.3, §6.3.1; RFC 4959 §3 (initial response); RFC 2971 §3.1 (ID).
Contract: parsers of what follows the verb; passwords stay octets.
Failure: `scanner.CommandError`; NO for a mechanism that isn't on offer, BAD for everything else.
"""

from __future__ import annotations

import base64
import binascii

from fumibako.proto.imap.commands import Authenticate, Enable, Id, Login
from fumibako.proto.imap.scanner import CommandError, Scanner
from fumibako.proto.reader import ProtocolError

MAX_ID_FIELDS = 30              # RFC 2971 §3.3
MAX_ID_VALUE_OCTETS = 1024


def parse_login(scanner: Scanner) -> Login:
    """login = "LOGIN" SP userid SP password"""
    scanner.space()
    user = scanner.astring()
    scanner.space()
    return Login(user, scanner.astring())


def parse_authenticate(scanner: Scanner) -> Authenticate:
    """authenticate = "AUTHENTICATE" SP auth-type [SP initial-resp];  initial-resp = (base64 / "=")"""
    scanner.space()
    mechanism = scanner.atom().decode("ascii").upper()
    if mechanism not in scanner.context.mechanisms:
        # Said before the rest of the line is looked at: it is the mechanism's, and unknown with it.
        raise CommandError("That authentication mechanism is not available", no=True, code=b"CANNOT")
    if not scanner.take_space():
        return Authenticate(mechanism, None)
    if scanner.take(b"=") and scanner.pos == len(scanner.octets):
        return Authenticate(mechanism, b"")
    return Authenticate(mechanism, parse_base64(scanner.atom()))


def parse_base64(octets: bytes) -> bytes:
    """base64 = *(4base64-char) [base64-terminal]"""
    try:
        return base64.b64decode(octets, validate=True)
    except binascii.Error:
        raise ProtocolError("Expected base64") from None


def parse_enable(scanner: Scanner) -> Enable:
    """enable = "ENABLE" 1*(SP capability)"""
    scanner.space()
    names = [scanner.atom().decode("ascii").upper()]
    while scanner.take_space():
        names.append(scanner.atom().decode("ascii").upper())
    return Enable(tuple(names))


def parse_id(scanner: Scanner) -> Id:
    """id = "ID" SP id-params-list;  id-params-list = "(" *(string SP nstring) ")" / nil"""
    scanner.space()
    if scanner.take(b"NIL"):
        return Id({})
    pairs = scanner.list_of(lambda: _id_field(scanner), empty=True)
    if len(pairs) > MAX_ID_FIELDS:
        raise CommandError("ID has more than 30 fields")
    return Id(dict(pairs))


def _id_field(scanner: Scanner) -> tuple[str, str | None]:
    field = scanner.string()
    scanner.space()
    value = scanner.nstring()
    if len(field) > MAX_ID_FIELDS or len(value or b"") > MAX_ID_VALUE_OCTETS:
        raise CommandError("An ID field is too long")
    return field.decode("utf-8", "replace").lower(), None if value is None else value.decode("utf-8", "replace")
