"""SMTP and LMTP command lines as events.

Specification: RFC 5321 §4.1.1 (commands), §4.1.2 (arguments);
    RFC 1870 §6, RFC 3461 §4, RFC 4954 §4, RFC 6152, RFC 6531 §3.4, RFC 3030 §2 (parameters).
Contract: `parse_command` knows syntax only; what is legal when is ServerConnection's LEGAL.
Failure: CommandError, holding the reply the client is due.
"""

import re
from collections.abc import Callable

from fumibako.model.envelope import Notify
from fumibako.proto.reader import ProtocolError, parse_uint
from fumibako.proto.sasl.base64 import decode_base64
from fumibako.proto.smtp.events import (
    Auth,
    Bdat,
    Command,
    Data,
    Expand,
    Hello,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reset,
    StartTLS,
    Verify,
)
from fumibako.proto.smtp.path import DOMAIN_MAX, NonAsciiPath, PathError, parse_path, split_path
from fumibako.proto.smtp.reply import Reply
from fumibako.proto.smtp.xtext import decode_xtext

SIZE_DIGITS_MAX = 20    # RFC 1870 §5

_KEYWORD = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]*")
# esmtp-value = 1*(%d33-60 / %d62-126), with UTF-8 as RFC 6531 §3.3 extends it.  Quirk equals_in_value: AUTH=<a=b>.
_VALUE = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_HELLO = re.compile(rb"[\x21-\x7e]+")
_TEXT = re.compile(rb"[\x20-\x7e\x80-\xff]*")
_ADDR_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+;.+")
_ENVID_MAX = 100        # RFC 3461 §4.4
_ORCPT_MAX = 500        # RFC 3461 §4.2
_HTTP = (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"DELETE", b"PATCH", b"TRACE")
_NOT_OFFERED = (b"SEND", b"SOML", b"SAML", b"TURN", b"ETRN", b"ATRN")

UNRECOGNIZED = Reply.of("500 5.5.2 Command not recognized")
NOT_IMPLEMENTED = Reply.of("502 5.5.1 Command not implemented")
BAD_ARGUMENT = Reply.of("501 5.5.4 Syntax error in arguments")
BAD_BASE64 = Reply.of("501 5.5.2 Not base64")
BAD_SENDER = Reply.of("501 5.1.7 Bad sender address syntax")
BAD_RECIPIENT = Reply.of("501 5.1.3 Bad recipient address syntax")
NON_ASCII_SENDER = Reply.of("550 5.6.7 Non-ASCII sender address without SMTPUTF8")
NON_ASCII_RECIPIENT = Reply.of("553 5.6.7 Non-ASCII recipient address without SMTPUTF8")
BAD_PARAMETER = Reply.of("501 5.5.4 Bad parameter value")
REPEATED_PARAMETER = Reply.of("501 5.5.4 Parameter given twice")
UNKNOWN_PARAMETER = Reply.of("555 5.5.4 Parameter not recognized or not implemented")
NOT_SMTP = Reply.of("521 5.5.1 This is not a web server")


class CommandError(Exception):
    """A command that could not be understood; fatal: what follows can't be trusted to be commands."""

    def __init__(self, reply: Reply, *, fatal: bool = False) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.fatal = fatal


def parse_command(line: bytes, mail_parameters: frozenset[str], rcpt_parameters: frozenset[str], smtputf8: bool) -> Command:
    """command = verb [ SP argument ], without its CRLF.

    mail_parameters, rcpt_parameters: what MAIL and RCPT may have; smtputf8: the transaction was begun with SMTPUTF8.
    """
    # RFC 5321 §4.1.1: trailing white space is tolerated.
    line = line.rstrip(b" \t")
    verb, _, argument = line.partition(b" ")
    verb = verb.upper()
    if not _TEXT.fullmatch(line):
        raise CommandError(BAD_ARGUMENT if verb in _VERBS else UNRECOGNIZED, fatal=verb == b"BDAT")
    match verb:
        case b"MAIL":
            return _mail(argument, mail_parameters)
        case b"RCPT":
            return _rcpt(argument, rcpt_parameters, smtputf8)
        case _ if verb in _VERBS:
            return _VERBS[verb](argument)
        case _ if verb in _HTTP:
            raise CommandError(NOT_SMTP, fatal=True)
        case _ if verb in _NOT_OFFERED:
            raise CommandError(NOT_IMPLEMENTED)
    raise CommandError(UNRECOGNIZED)


def _hello(argument: bytes, *, esmtp: bool) -> Hello:
    """ehlo = "EHLO" SP ( Domain / address-literal ); what stands there is policy's business, a word is all we ask."""
    if not _HELLO.fullmatch(argument) or len(argument) > DOMAIN_MAX:
        raise CommandError(BAD_ARGUMENT)
    return Hello(argument.decode("ascii"), esmtp)


def _mail(argument: bytes, known: frozenset[str]) -> Mail:
    """mail = "MAIL FROM:" Reverse-path [SP Mail-parameters]"""
    path, rest = _split(argument, b"FROM:", BAD_SENDER)
    parameters = _parameters(rest, known)
    smtputf8 = "SMTPUTF8" in parameters
    sender = _path(path, smtputf8, BAD_SENDER, NON_ASCII_SENDER)
    if sender and "@" not in sender:
        raise CommandError(BAD_SENDER)      # <Postmaster> is for RCPT only: RFC 5321 §4.1.1.3
    values = {name: _MAIL_VALUES[name](value) for name, value in parameters.items()}
    return Mail(sender, **{_MAIL_FIELDS[name]: value for name, value in values.items()})    # type: ignore[arg-type]


def _rcpt(argument: bytes, known: frozenset[str], smtputf8: bool) -> Rcpt:
    """rcpt = "RCPT TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path ) [SP Rcpt-parameters]"""
    path, rest = _split(argument, b"TO:", BAD_RECIPIENT)
    parameters = _parameters(rest, known)
    recipient = _path(path, smtputf8, BAD_RECIPIENT, NON_ASCII_RECIPIENT)
    if not recipient:
        raise CommandError(BAD_RECIPIENT)
    notify = _notify(parameters["NOTIFY"]) if "NOTIFY" in parameters else Notify.UNSPECIFIED
    return Rcpt(recipient, notify, _orcpt(parameters["ORCPT"]) if "ORCPT" in parameters else "")


def _split(argument: bytes, prefix: bytes, error: Reply) -> tuple[bytes, bytes]:
    """("<path>", " parameters") of `FROM:<path> parameters`."""
    if argument[: len(prefix)].upper() != prefix:
        raise CommandError(BAD_ARGUMENT)
    try:
        # Quirk space_after_colon: many devices write `FROM: <a@b>`, which RFC 5321 §3.3 does not allow.
        return split_path(argument[len(prefix) :].lstrip(b" "))
    except PathError as cause:
        raise CommandError(error) from cause


def _path(octets: bytes, smtputf8: bool, error: Reply, non_ascii: Reply) -> str:
    try:
        return parse_path(octets, smtputf8=smtputf8)
    except NonAsciiPath as cause:
        raise CommandError(non_ascii) from cause
    except PathError as cause:
        raise CommandError(error) from cause


def _parameters(octets: bytes, known: frozenset[str]) -> dict[str, bytes | None]:
    """*(SP esmtp-param); esmtp-param = esmtp-keyword ["=" esmtp-value]"""
    found: dict[str, bytes | None] = {}
    if octets and not octets.startswith(b" "):
        raise CommandError(BAD_ARGUMENT)
    for word in octets.split():
        keyword, equals, value = word.partition(b"=")
        if not _KEYWORD.fullmatch(keyword) or (equals and not _VALUE.fullmatch(value)):
            raise CommandError(BAD_ARGUMENT)
        name = keyword.decode("ascii").upper()
        if name not in known:
            raise CommandError(UNKNOWN_PARAMETER)
        if name in found:
            raise CommandError(REPEATED_PARAMETER)
        found[name] = value if equals else None
    return found


def _size(value: bytes | None) -> int:
    try:
        return parse_uint(value or b"", SIZE_DIGITS_MAX)
    except ProtocolError as cause:
        raise CommandError(BAD_PARAMETER) from cause


def _one_of(*words: str) -> Callable[[bytes | None], str]:
    def value_of(value: bytes | None) -> str:
        for word in words:
            if value is not None and value.upper() == word.encode("ascii"):
                return word
        raise CommandError(BAD_PARAMETER)

    return value_of


def _no_value(value: bytes | None) -> bool:
    if value is not None:
        raise CommandError(BAD_PARAMETER)       # RFC 6531 §3.4
    return True


def _xtext(value: bytes | None, max_octets: int) -> str:
    if not value or len(value) > max_octets:
        raise CommandError(BAD_PARAMETER)
    try:
        return decode_xtext(value)
    except ValueError as cause:
        raise CommandError(BAD_PARAMETER) from cause


def _envid(value: bytes | None) -> str:
    """envid-parameter = "ENVID=" xtext"""
    return _xtext(value, _ENVID_MAX)


def _orcpt(value: bytes | None) -> str:
    """orcpt-parameter = "ORCPT=" addr-type ";" xtext"""
    text = _xtext(value, _ORCPT_MAX)
    if not _ADDR_TYPE.fullmatch(text):
        raise CommandError(BAD_PARAMETER)
    return text


def _notify(value: bytes | None) -> Notify:
    """notify-esmtp-value = "NEVER" / 1#( "SUCCESS" / "FAILURE" / "DELAY" )"""
    words = (value or b"").upper().split(b",")
    if words == [b"NEVER"]:
        return Notify.NEVER
    asked = Notify.UNSPECIFIED
    for word in words:
        if word not in (b"SUCCESS", b"FAILURE", b"DELAY"):
            raise CommandError(BAD_PARAMETER)
        asked |= Notify[word.decode("ascii")]
    return asked


def _sender_identity(value: bytes | None) -> str:
    """AUTH=xtext, an address or "<>": RFC 4954 §5."""
    return _xtext(value, 500)


def _auth(argument: bytes) -> Auth:
    """auth-command = "AUTH" SP sasl-mech [SP initial-response]; initial-response = base64 / "=" """
    mechanism, _, initial = argument.partition(b" ")
    if not re.fullmatch(rb"[A-Za-z0-9_-]{1,20}", mechanism):
        raise CommandError(BAD_ARGUMENT)
    return Auth(mechanism.decode("ascii").upper(), _initial_response(initial))


def _initial_response(octets: bytes) -> bytes | None:
    try:
        return None if not octets else b"" if octets == b"=" else decode_base64(octets)
    except ProtocolError as cause:
        raise CommandError(BAD_BASE64) from cause


def _bdat(argument: bytes) -> Bdat:
    """bdat-cmd = "BDAT" SP chunk-size [ SP "LAST" ].

    Fatal on error: where the message octets behind it end is then unknown, and they must not be read as commands.
    """
    size, space, marker = argument.partition(b" ")
    if space and marker.upper() != b"LAST":
        raise CommandError(BAD_ARGUMENT, fatal=True)
    try:
        return Bdat(parse_uint(size, SIZE_DIGITS_MAX), bool(space))
    except ProtocolError as cause:
        raise CommandError(BAD_ARGUMENT, fatal=True) from cause


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise CommandError(BAD_ARGUMENT) from cause


def _required_text(octets: bytes) -> str:
    if not octets:
        raise CommandError(BAD_ARGUMENT)
    return _text(octets)


def _bare(event: type[Data] | type[Reset] | type[StartTLS] | type[Quit]) -> Callable[[bytes], Command]:
    def parse(argument: bytes) -> Command:
        if argument:
            raise CommandError(BAD_ARGUMENT)
        return event()

    return parse


_VERBS: dict[bytes, Callable[[bytes], Command]] = {
    b"HELO": lambda argument: _hello(argument, esmtp=False),
    b"EHLO": lambda argument: _hello(argument, esmtp=True),
    b"LHLO": lambda argument: _hello(argument, esmtp=True),
    b"STARTTLS": _bare(StartTLS),
    b"AUTH": _auth,
    b"DATA": _bare(Data),
    b"BDAT": _bdat,
    b"RSET": _bare(Reset),
    b"VRFY": lambda argument: Verify(_required_text(argument)),
    b"EXPN": lambda argument: Expand(_required_text(argument)),
    b"HELP": lambda argument: Help(_text(argument)),
    b"NOOP": lambda argument: Noop(),
    b"QUIT": _bare(Quit),
}
_MAIL_VALUES: dict[str, Callable[[bytes | None], int | str | bool]] = {
    "SIZE": _size,
    "BODY": _one_of("7BIT", "8BITMIME", "BINARYMIME"),
    "SMTPUTF8": _no_value,
    "RET": _one_of("FULL", "HDRS"),
    "ENVID": _envid,
    "AUTH": _sender_identity,
}
_MAIL_FIELDS = {
    "SIZE": "size_octets",
    "BODY": "body",
    "SMTPUTF8": "smtputf8",
    "RET": "ret",
    "ENVID": "envelope_id",
    "AUTH": "auth",
}
