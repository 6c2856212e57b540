"""SMTP and LMTP, client side, without I/O: a command in, octets out, octets in, the outcome out.

Specification: RFC 5321 §3.3, §4.2 (replies), §4.5.3.1; RFC 2920 §3.1 (PIPELINING); RFC 2033 §4; RFC 3207 §4; RFC 4954 §4;
    RFC 1870 §6.2; RFC 3461 §5.2; RFC 6531 §3.4.
Contract: one command at a time: call its method, send data_to_send(), feed receive_data(), take next_event() until the
    event that ends it.  The first event of all is Replied("", greeting), nobody asked for it.
    A message leaves normalised and dot-stuffed: no bare CR, LF or NUL ever does.
Failure: ProtocolError for a peer that does not speak SMTP, or that sent replies nobody asked for; ValueError for
    addresses or texts that can't be sent; RuntimeError for a command while another is under way.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from fumibako.model.envelope import Envelope, Notify, Recipient
from fumibako.proto.reader import Need, ProtocolError
from fumibako.proto.sasl.base64 import decode_base64, encode_base64
from fumibako.proto.sasl.client import ClientMechanism
from fumibako.proto.smtp.extensions import Capabilities, parse_capabilities
from fumibako.proto.smtp.path import format_path
from fumibako.proto.smtp.reply import Reply, ReplyParser
from fumibako.proto.smtp.transparency import DotWriter, NewlineNormaliser
from fumibako.proto.smtp.xtext import encode_ascii_address, encode_xtext

INITIAL_RESPONSE_MAX = 500      # octets of base64 that still fit a command line: RFC 4954 §4
_NOT_SENT = Reply.of("503 5.5.1 Command not sent")
_TOO_BIG = Reply.of("552 5.3.4 Message is larger than the next hop takes")
_NO_SMTPUTF8 = Reply.of("550 5.6.7 Next hop does not take internationalized addresses")


@dataclass(frozen=True, slots=True)
class Replied:
    """A command other than a transaction is over.  command: its verb; "" for the greeting, or for a 421 out of the blue."""

    command: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class SendMessage:
    """The peer waits for the message: call send_message() and end_message()."""


@dataclass(frozen=True, slots=True)
class RecipientResult:
    """What became of one recipient: the reply that decided it, and the command it answered (MAIL, RCPT, DATA or .)."""

    forward_path: str
    reply: Reply
    stage: str

    @property
    def is_delivered(self) -> bool:
        """Whether the peer took responsibility: only a positive reply to the message itself counts."""
        return self.stage == "." and self.reply.is_positive


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """A transaction is over: one result for each recipient, in the order of the envelope."""

    recipients: tuple[RecipientResult, ...]


Event = Replied | SendMessage | TransactionResult


class ClientConnection:
    """One connection, or the part of it behind STARTTLS."""

    def __init__(self, hostname: str, *, lmtp: bool = False) -> None:
        _refuse_breaks(hostname)
        self.hostname = hostname
        self.lmtp = lmtp
        self.capabilities = Capabilities()
        self.closed = False             # the peer said 421, answered QUIT, or broke the protocol
        self._in = bytearray()
        self._out: list[bytes] = []
        self._parser = ReplyParser()
        self._tls = False               # 220 to STARTTLS: no more plaintext
        self._running: Generator[Event | None, None, None] | None = self._await("")
        self._writer: tuple[NewlineNormaliser, DotWriter] | None = None
        self._paths: list[str] = []                     # of the transaction
        self._replies: list[Reply] = []                 # to MAIL, then to each RCPT
        self._results: dict[int, RecipientResult] = {}  # from DATA on

    @property
    def decided(self) -> dict[int, RecipientResult]:
        """What the peer has said about recipients of the transaction, by their place in the envelope; of those it has only
        accepted, nothing. A reply stands (RFC 5321 §4.2.1): this is what is left of a transaction that broke off."""
        return (_rejected(self._paths, self._replies) if self._replies else {}) | self._results

    def after_tls(self) -> ClientConnection:
        """The core for what follows the handshake: what the peer offered before is forgotten (RFC 3207 §4.2)."""
        if not self._tls or self._in:
            raise ProtocolError("no accepted STARTTLS, or plaintext behind it")
        core = ClientConnection(self.hostname, lmtp=self.lmtp)
        core._running = None            # no second greeting
        return core

    def receive_data(self, octets: bytes) -> None:
        """Octets from the peer."""
        self._in += octets

    def data_to_send(self) -> bytes:
        """What to send now; empty when there is nothing."""
        out, self._out = b"".join(self._out), []
        return out

    def next_event(self) -> Event | Need:
        """The next event; BYTES: octets are needed; REPLY: it is your turn (a command, or the message)."""
        if self._tls and self._in:
            raise ProtocolError("plaintext behind the reply to STARTTLS")
        if self._writer is not None:
            return Need.REPLY
        if self._running is None:
            return self._unasked()
        try:
            event = next(self._running)
        except ProtocolError:
            self._running, self.closed = None, True
            raise
        if event is None:
            return Need.BYTES
        if not isinstance(event, SendMessage):
            self._running = None
        return event

    def hello(self, *, extended: bool = True) -> None:
        """EHLO (LHLO for LMTP); extended False: HELO, for a peer that answered EHLO with 500 or 502."""
        verb = "LHLO" if self.lmtp else "EHLO" if extended else "HELO"
        self._begin(self._hello(verb))

    def starttls(self) -> None:
        """STARTTLS; behind a 220 begin TLS and go on with after_tls()."""
        self._begin(self._starttls())

    def auth(self, mechanism: ClientMechanism) -> None:
        """AUTH with a mechanism that holds the credentials; ends in Replied("AUTH", 235 or the refusal)."""
        self._begin(self._auth(mechanism))

    def reset(self) -> None:
        """RSET."""
        self._begin(self._simple("RSET"))

    def noop(self) -> None:
        """NOOP."""
        self._begin(self._simple("NOOP"))

    def quit(self) -> None:
        """QUIT."""
        self._begin(self._simple("QUIT"))

    def transaction(self, envelope: Envelope, size_octets: int | None = None) -> None:
        """MAIL, RCPT and DATA, in one go where PIPELINING allows; ends in a TransactionResult.

        On the way SendMessage comes, unless nobody is to get the message.  ValueError for a path that can't be sent.
        An 8BITMIME message for a peer without 8BITMIME is sent as it is: who must not, looks at `capabilities` first.
        """
        mail = self._mail_command(envelope, size_octets)
        recipients = [self._rcpt_command(recipient, envelope.smtputf8) for recipient in envelope.recipients]
        if not recipients:
            raise ValueError("no recipients")
        paths = [recipient.forward_path for recipient in envelope.recipients]
        self._paths, self._replies, self._results = paths, [], {}
        if (refusal := self._local_refusal(envelope, size_octets)) is not None:
            self._begin(_finish([RecipientResult(path, refusal, "MAIL") for path in paths]))
        else:
            self._begin(self._transaction([mail, *recipients]))

    def send_message(self, octets: bytes) -> None:
        """The next octets of the message, after SendMessage."""
        if self._writer is None:
            raise RuntimeError("no message is due")
        normaliser, stuffer = self._writer
        self._out.append(stuffer.feed(normaliser.feed(octets)))

    def end_message(self) -> None:
        """The message is whole."""
        if self._writer is None:
            raise RuntimeError("no message is due")
        normaliser, stuffer = self._writer
        self._out += (stuffer.feed(normaliser.close()), stuffer.close())
        self._writer = None

    def _begin(self, running: Generator[Event | None, None, None]) -> None:
        if self._running is not None or self._tls or self.closed:
            running.close()
            raise RuntimeError("a command is under way, or the connection is over")
        self._running = running

    def _unasked(self) -> Event | Need:
        """RFC 5321 §3.8: a server may say 421 at any time; anything else nobody asked for."""
        if self.closed or not self._in or (reply := self._parser.read(self._in)) is None:
            return Need.REPLY
        if reply.code != 421:
            raise ProtocolError("reply without a command")
        self.closed = True
        return Replied("", reply)

    def _line(self, text: bytes) -> None:
        self._out.append(text + b"\r\n")

    def _reply(self) -> Generator[None, None, Reply]:
        while (reply := self._parser.read(self._in)) is None:
            yield None
        self.closed = self.closed or reply.code == 421
        return reply

    def _await(self, command: str) -> Generator[Event | None, None, None]:
        yield Replied(command, (yield from self._reply()))

    def _simple(self, verb: str) -> Generator[Event | None, None, None]:
        self._line(verb.encode("ascii"))
        reply = yield from self._reply()
        self.closed = self.closed or verb == "QUIT"
        yield Replied(verb, reply)

    def _hello(self, verb: str) -> Generator[Event | None, None, None]:
        self._line(f"{verb} {self.hostname}".encode("ascii"))
        reply = yield from self._reply()
        self.capabilities = parse_capabilities(reply) if reply.code == 250 and verb != "HELO" else Capabilities()
        yield Replied(verb, reply)

    def _starttls(self) -> Generator[Event | None, None, None]:
        self._line(b"STARTTLS")
        reply = yield from self._reply()
        if reply.code == 220:
            if self._in:
                raise ProtocolError("plaintext behind the reply to STARTTLS")
            self._tls = True
        yield Replied("STARTTLS", reply)

    def _auth(self, mechanism: ClientMechanism) -> Generator[Event | None, None, None]:
        initial = mechanism.step(None)
        encoded = b"" if initial is None else encode_base64(initial) or b"="
        fits = len(encoded) <= INITIAL_RESPONSE_MAX
        self._line(b"AUTH " + mechanism.name.encode("ascii") + (b" " + encoded if encoded and fits else b""))
        while (reply := (yield from self._reply())).code == 334:
            if not fits:
                self._line(encoded)
                fits = True
            else:
                yield from self._auth_step(mechanism, reply)
        if reply.code == 235 and not mechanism.is_complete:
            raise ProtocolError("the server did not prove that it knows the password")     # RFC 5802 §5
        yield Replied("AUTH", reply)

    def _auth_step(self, mechanism: ClientMechanism, reply: Reply) -> Generator[Event | None, None, None]:
        try:
            response = mechanism.step(decode_base64(reply.lines[0].encode("utf-8")))
        except ProtocolError:
            self._line(b"*")            # RFC 4954 §4: cancel, before anything else is given away
            yield from self._reply()
            raise
        self._line(encode_base64(response or b""))

    def _transaction(self, commands: list[bytes]) -> Generator[Event | None, None, None]:
        paths, replies = self._paths, self._replies
        pipelined = "PIPELINING" in self.capabilities
        if pipelined:
            self._out.append(b"".join(command + b"\r\n" for command in [*commands, b"DATA"]))
        for number, command in enumerate(commands):
            if self.closed or (not pipelined and number and not replies[0].is_positive):
                replies.append(_NOT_SENT)
                continue
            if not pipelined:
                self._line(command)
            replies.append((yield from self._reply()))
        rejected = self.decided
        if not self.closed and (pipelined or len(rejected) < len(paths)):
            yield from self._data([index for index in range(len(paths)) if index not in rejected], pipelined)
        results = self.decided
        if replies[0].is_positive and all(result.stage != "." for result in results.values()):
            yield from self._abandon()
        yield TransactionResult(tuple(results[index] for index in range(len(paths))))

    def _data(self, accepted: list[int], pipelined: bool) -> Generator[Event | None, None, None]:
        """DATA and the message: the results of the recipients that were not rejected."""
        paths, results = self._paths, self._results
        if not pipelined:
            self._line(b"DATA")
        reply = yield from self._reply()
        if reply.code != 354:
            if reply.is_positive:
                raise ProtocolError("neither 354 nor a refusal to DATA")
            results |= {index: RecipientResult(paths[index], reply, "DATA") for index in accepted}
            return
        if not accepted:
            # RFC 2920 §3.1: a server that accepts DATA without recipients gets an empty message.
            self._line(b".")
            if not self.lmtp:
                yield from self._reply()
            return
        self._writer = (NewlineNormaliser(), DotWriter())
        yield SendMessage()
        for index in accepted:
            if self.lmtp or index == accepted[0]:       # RFC 2033 §4.2: LMTP has a reply for each of them
                reply = reply if self.closed else (yield from self._reply())
            results[index] = RecipientResult(paths[index], reply, ".")

    def _abandon(self) -> Generator[Event | None, None, None]:
        """Clear a transaction that came to nothing, so that the next one can begin."""
        if not self.closed:
            self._line(b"RSET")
            yield from self._reply()

    def _local_refusal(self, envelope: Envelope, size_octets: int | None) -> Reply | None:
        limit = self.capabilities.size_limit_octets
        if size_octets is not None and limit is not None and size_octets > limit:
            return _TOO_BIG             # RFC 1870 §6.2
        if envelope.smtputf8 and "SMTPUTF8" not in self.capabilities:
            return _NO_SMTPUTF8         # RFC 6531 §3.5
        return None

    def _mail_command(self, envelope: Envelope, size_octets: int | None) -> bytes:
        path = b"<>" if not envelope.reverse_path else _path(envelope.reverse_path, envelope.smtputf8)
        offered = self.capabilities
        parameters = [
            (size_octets is not None and "SIZE" in offered, f"SIZE={size_octets}".encode("ascii")),
            (envelope.body == "8BITMIME" and "8BITMIME" in offered, b"BODY=8BITMIME"),
            (envelope.smtputf8, b"SMTPUTF8"),
            (bool(envelope.ret) and "DSN" in offered, b"RET=" + _word(envelope.ret)),
            (bool(envelope.envelope_id) and "DSN" in offered, b"ENVID=" + encode_xtext(envelope.envelope_id)),
        ]
        return b" ".join([b"MAIL FROM:" + path, *(parameter for wanted, parameter in parameters if wanted)])

    def _rcpt_command(self, recipient: Recipient, smtputf8: bool) -> bytes:
        command = b"RCPT TO:" + _path(recipient.forward_path, smtputf8)
        if "DSN" in self.capabilities:
            if recipient.notify:
                command += b" NOTIFY=" + _notify(Notify(recipient.notify))
            if recipient.original_recipient:
                original = recipient.original_recipient
                command += b" ORCPT=" + encode_xtext(original if smtputf8 else encode_ascii_address(original))
        return command


def _rejected(paths: list[str], replies: list[Reply]) -> dict[int, RecipientResult]:
    """Results of those already rejected, by index; replies: to MAIL, then to each RCPT, as far as they came."""
    mail, *answers = replies
    if not mail.is_positive:
        return {index: RecipientResult(path, mail, "MAIL") for index, path in enumerate(paths)}
    # A 421 on the way is the reply to whoever had not been asked yet.
    last = next((reply for reply in answers if reply.code == 421), None)
    results = {}
    for index, (path, answer) in enumerate(zip(paths, answers, strict=False)):
        decisive = last if last is not None and (answer is _NOT_SENT or answer.is_positive) else answer
        if not decisive.is_positive:
            results[index] = RecipientResult(path, decisive, "RCPT")
    return results


def _finish(results: list[RecipientResult]) -> Generator[Event | None, None, None]:
    yield TransactionResult(tuple(results))


def _path(mailbox: str, smtputf8: bool) -> bytes:
    if not smtputf8 and not mailbox.isascii():
        raise ValueError("non-ASCII address in an envelope without SMTPUTF8")
    return format_path(mailbox)


def _word(text: str) -> bytes:
    if text not in ("", "FULL", "HDRS"):
        raise ValueError(f"not a RET value: {text!r}")
    return text.encode("ascii")


def _notify(notify: Notify) -> bytes:
    """notify-esmtp-value: RFC 3461 §4.1."""
    if Notify.NEVER in notify:
        return b"NEVER"
    return b",".join(name.encode("ascii") for name in ("SUCCESS", "FAILURE", "DELAY") if Notify[name] in notify)


def _refuse_breaks(text: str) -> None:
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"not a host name: {text!r}")
