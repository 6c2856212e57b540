"""Ways to talk to a running server: octets on a wire, the standard library's clients, and programs of others."""

from __future__ import annotations

import email
import email.policy
import imaplib
import smtplib
import socket
import ssl
import subprocess
import zlib
from collections.abc import Iterable, Mapping
from email.message import EmailMessage
from pathlib import Path

from tests.support.server import PASSWORD, LiveServer, die_with_tests, eventually, find_program

WIRE_S = 15.0


class Wire:
    """A connection as octets; every wait is bounded."""

    def __init__(self, endpoint: tuple[str, int], *, tls: ssl.SSLContext | None = None, source: str = "") -> None:
        self.socket = socket.create_connection(endpoint, WIRE_S, (source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        if tls is not None:
            self.start_tls(tls)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_tls(self, context: ssl.SSLContext) -> None:
        assert not self.buffer, "octets before the handshake"
        self.socket = context.wrap_socket(self.socket, server_hostname="mail.example.jp")

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def line(self) -> str:
        """The next line without its CRLF; "" at the end of the connection."""
        while b"\r\n" not in self.buffer:
            try:
                octets = self.socket.recv(65536)
            except ConnectionResetError:
                octets = b""
            if not octets:
                return ""
            self.buffer += octets
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line.decode("utf-8", "replace")

    def rest(self) -> bytes:
        """Everything until the server closes."""
        try:
            while octets := self.socket.recv(65536):
                self.buffer += octets
        except (ConnectionResetError, ssl.SSLEOFError):
            pass
        octets, self.buffer = self.buffer, b""
        return octets

    def close(self) -> None:
        self.socket.close()

    # -- SMTP --

    def reply(self) -> str:
        """The next SMTP reply, its lines joined; "" at the end of the connection."""
        lines = [self.line()]
        while lines[-1][3:4] == "-":
            lines.append(self.line())
        return "\n".join(lines)

    def ask(self, line: str) -> str:
        self.send(line.encode() + b"\r\n")
        return self.reply()

    # -- IMAP --

    def command(self, line: str, tag: str = "a") -> list[str]:
        """Every response line up to the tagged one."""
        self.send(f"{tag} {line}\r\n".encode())
        lines = [self.line()]
        while lines[-1] and not lines[-1].startswith(f"{tag} "):
            lines.append(self.line())
        return lines


def trusting(server: LiveServer) -> ssl.SSLContext:
    """A context that knows this server's certificate and nobody else's, and demands its name."""
    return ssl.create_default_context(cafile=str(server.certificate))


def smtp_wire(server: LiveServer, listener: str = "smtp", *, source: str = "") -> Wire:
    """A greeted connection."""
    tls = trusting(server) if listener == "submissions" else None
    wire = Wire(server.place.endpoint(listener), tls=tls, source=source)
    assert wire.reply().startswith("220 ")
    return wire


def imap_wire(server: LiveServer, user: str = "alice@example.jp", password: str = PASSWORD) -> Wire:
    """A logged-in IMAP connection under TLS."""
    wire = Wire(server.place.endpoint("imaps"), tls=trusting(server))
    assert wire.line().startswith("* OK ")
    assert wire.command(f'LOGIN {user} "{password}"')[-1].startswith("a OK ")
    return wire


# -- mail --


def letter(subject: str = "hello", *, sender: str = "bob@neighbour.example", to: str = "alice@example.jp", body: str = "Hello.\n",
           attachment: bytes = b"") -> EmailMessage:
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"], message["To"], message["Subject"] = sender, to, subject
    message["Date"] = "Tue, 01 Apr 2025 09:00:00 +0900"
    message["Message-ID"] = f"<{zlib.crc32(subject.encode()):x}@{sender.partition('@')[2]}>"
    message.set_content(body)
    if attachment:
        message.add_attachment(attachment, maintype="application", subtype="octet-stream", filename="attachment.bin")
    return message


def hand_in(endpoint: tuple[str, int], message: EmailMessage, sender: str, *recipients: str, source: str = "127.0.0.1",
            helo: str = "client.neighbour.example") -> None:
    """Brings a mail to a server's port for other servers."""
    with smtplib.SMTP(*endpoint, local_hostname=helo, timeout=WIRE_S, source_address=(source, 0)) as client:
        client.send_message(message, sender, list(recipients))


def submit(server: LiveServer, message: EmailMessage, *recipients: str, sender: str = "alice@example.jp") -> None:
    """Hands in a mail as one of the server's users."""
    host, port = server.place.endpoint("submission")
    with smtplib.SMTP(host, port, local_hostname="client.example.jp", timeout=WIRE_S) as client:
        client._host = server.hostname      # what the certificate has to say
        client.starttls(context=trusting(server))
        client.login(sender, PASSWORD)
        client.send_message(message, sender, list(recipients))


class Imap(imaplib.IMAP4_SSL):
    """The standard library's client, connected to an address and demanding a name."""

    def __init__(self, server: LiveServer) -> None:
        self._tls, self._name = trusting(server), server.hostname
        host, port = server.place.endpoint("imaps")
        super().__init__(host, port, ssl_context=self._tls, timeout=WIRE_S)

    def _create_socket(self, timeout: float | None) -> ssl.SSLSocket:
        plain = socket.create_connection((self.host, self.port), timeout)
        return self._tls.wrap_socket(plain, server_hostname=self._name)


def imap(server: LiveServer, user: str = "alice@example.jp", password: str = PASSWORD) -> Imap:
    """Logged in."""
    client = Imap(server)
    client.login(user, password)
    return client


def messages(client: imaplib.IMAP4, mailbox: str = "INBOX", *, search: str = "ALL") -> list[bytes]:
    """The messages of a mailbox, whole."""
    assert client.select(mailbox, readonly=True)[0] == "OK"
    numbers = client.search(None, search)[1][0].split()
    found = []
    for number in numbers:
        parts = client.fetch(number.decode(), "(BODY.PEEK[])")[1]
        found.append(next(part[1] for part in parts if isinstance(part, tuple)))
    return found


def arrived(server: LiveServer, subject: str, user: str = "alice@example.jp", *, within_s: float = 20.0) -> EmailMessage:
    """The mail with this subject in a user's INBOX, once it is there."""
    with imap(server, user) as client:
        return eventually(lambda: with_subject(messages(client), subject), f"{subject!r} in the INBOX of {user}", within_s)


def with_subject(found: Iterable[bytes], subject: str) -> EmailMessage | None:
    for octets in found:
        parsed = email.message_from_bytes(octets, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        if subject in str(parsed["Subject"]):
            return parsed
    return None


# -- programs --


def tool(*arguments: str | Path, said: str | bytes = b"", expect: int | None = 0, home: Path | None = None,
         timeout_s: float = 40.0, env: Mapping[str, str] | None = None) -> str:
    """Runs a program to its end; its standard output and error together. expect None: any exit code."""
    program = find_program(str(arguments[0]))
    assert program is not None
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "TERM": "xterm-256color",
                   "HOME": str(home or "/nonexistent"), **(env or {})}
    done = subprocess.run(
        [program, *map(str, arguments[1:])], input=said.encode() if isinstance(said, str) else said, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=timeout_s, env=environment, check=False, cwd=home,
        preexec_fn=die_with_tests,
    )
    text = done.stdout.decode("utf-8", "replace")
    assert expect is None or done.returncode == expect, f"{' '.join(map(str, arguments))}: exit {done.returncode}\n{text}"
    return text
