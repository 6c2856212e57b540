"""A blocking IMAP client that does no more than the measurements need: what it costs must not show in them."""

from __future__ import annotations

import re
import socket
import ssl


class ImapClient:
    """Logged in when constructed. tls: certificate not checked, it is all on loopback; source: address to come from."""

    def __init__(self, address: tuple[str, int], user: str, password: str, *, tls: bool = False, source: str = "") -> None:
        here = (source, 0) if source else None
        self._socket: socket.socket = socket.create_connection(address, timeout=120, source_address=here)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self._socket = context.wrap_socket(self._socket)
        self._number = 0
        self._read_until(b"\r\n")
        self.command(f"LOGIN {user} {password}")

    def command(self, text: str, literal: bytes = b"") -> bytes:
        """Everything up to the tagged OK; literal: sent behind the text without waiting (RFC 7888 §4)."""
        self._number += 1
        tag = b"a%d" % self._number
        line = tag + b" " + text.encode()
        self._socket.sendall(line + (b" {%d+}\r\n%b\r\n" % (len(literal), literal) if literal else b"\r\n"))
        answer = self._read_until(b"\r\n", tag)
        if not answer[answer.rfind(b"\n", 0, -2) + 1 :].startswith(tag + b" OK"):
            raise RuntimeError(f"{text}: {answer[-200:]!r}")
        return answer

    @property
    def socket(self) -> socket.socket:
        """For who waits for what comes unasked."""
        return self._socket

    def idle(self) -> None:
        """Enter IDLE and stay there."""
        self._socket.sendall(b"idle IDLE\r\n")
        self._read_until(b"\r\n")

    def messages(self, mailbox: str) -> int:
        answer = self.command(f"STATUS {mailbox} (MESSAGES)")
        found = re.search(rb"MESSAGES (\d+)", answer)
        if found is None:
            raise RuntimeError(f"no count in {answer!r}")
        return int(found[1])

    def close(self) -> None:
        self._socket.close()

    def _read_until(self, end: bytes, tag: bytes = b"") -> bytes:
        """Octets up to a line end; with a tag: up to the end of the line that begins with it."""
        pieces, tail = [], b"\r\n"
        begin = b"\r\n" + tag + b" " if tag else b""
        while True:
            octets = self._socket.recv(1 << 20)
            if not octets:
                raise ConnectionError("the server hung up")
            pieces.append(octets)
            tail = (tail + octets)[-1000:]
            if tail.endswith(end) and begin in tail:
                return b"".join(pieces)
