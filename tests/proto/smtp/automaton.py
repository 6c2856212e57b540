"""A second, independent statement of SMTP's order of commands, to run random sessions against.

It knows three facts (greeted, sender, recipients and what the message is sent by) instead of named states.
"""

import random


class Automaton:
    """step() draws a command and says which codes it must get."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.replies: dict[str, str] = {}
        self.trace: list[bytes] = []
        self.greeted = self.logged_in = self.tls = self.in_tls_handshake = False
        self.sender = False
        self.recipients = 0
        self.chunks = 0
        self.ended = False

    def step(self) -> tuple[bytes, list[int] | None]:
        """(what to send, the codes due); None: the session is over."""
        if self.ended:
            return b"", None
        command = self.chance.choice(
            [
                self.hello,
                self.mail,
                self.mail,
                self.rcpt,
                self.rcpt,
                self.rcpt,
                self.data,
                self.data,
                self.bdat,
                self.bdat,
                self.rset,
                self.starttls,
                self.auth,
                self.vrfy,
                self.noop,
                self.junk,
                self.quit if len(self.trace) > 30 else self.noop,
            ]
        )
        self.replies.clear()
        line, codes = command()
        self.trace.append(line)
        return line, codes

    def clear(self) -> None:
        self.sender, self.recipients, self.chunks = False, 0, 0

    def refused(self, event: str, reply: str) -> bool:
        """Whether the face refuses this time."""
        if self.chance.random() < 0.25:
            self.replies[event] = reply
            return True
        return False

    def hello(self) -> tuple[bytes, list[int]]:
        if self.refused("HELLO", "550 5.7.1 no"):
            return b"EHLO x\r\n", [550]
        self.greeted = True
        self.clear()
        return b"EHLO x\r\n", [250]

    def mail(self) -> tuple[bytes, list[int]]:
        if not self.greeted or self.sender:
            return b"MAIL FROM:<>\r\n", [503]
        if self.refused("MAIL", "451 4.7.1 no"):
            return b"MAIL FROM:<>\r\n", [451]
        self.sender = True
        return b"MAIL FROM:<>\r\n", [250]

    def rcpt(self) -> tuple[bytes, list[int]]:
        line = b"RCPT TO:<c@mx.example>\r\n"
        if not self.sender or self.chunks:
            return line, [503]
        if self.recipients == 3:
            return line, [452]
        if self.refused("RCPT", "550 5.1.1 no"):
            return line, [550]
        self.recipients += 1
        return line, [250]

    def data(self) -> tuple[bytes, list[int]]:
        if not self.recipients or self.chunks:
            return b"DATA\r\n", [503]
        if self.refused("DATA", "451 4.3.0 no"):
            self.clear()
            return b"DATA\r\n", [451]
        refused = self.refused("END", "550 5.7.1 no")
        self.clear()
        self.pending = b"a\r\n.\r\n"
        self.command_after_354 = 550 if refused else 250
        # The message follows in the next step.
        self.step_before, self.step = self.step, self.message  # type: ignore[method-assign]
        return b"DATA\r\n", [354]

    def message(self) -> tuple[bytes, list[int]]:
        self.step = self.step_before  # type: ignore[method-assign]
        self.trace.append(self.pending)
        return self.pending, [self.command_after_354]

    def bdat(self) -> tuple[bytes, list[int]]:
        last = self.chance.random() < 0.5
        line = b"BDAT 6 LAST\r\nQUIT\r\n" if last else b"BDAT 6\r\nQUIT\r\n"
        if not self.recipients:
            return line, [503]
        if self.refused("END" if last else "CHUNK", "451 4.3.0 no"):
            self.clear()
            return line, [451]
        self.chunks += 1
        if last:
            self.clear()
        return line, [250]

    def rset(self) -> tuple[bytes, list[int]]:
        self.clear()
        return b"RSET\r\n", [250]

    def starttls(self) -> tuple[bytes, list[int]]:
        if self.tls or self.sender:
            return b"STARTTLS\r\n", [503]
        self.tls, self.greeted, self.logged_in, self.in_tls_handshake = True, False, False, True
        return b"STARTTLS\r\n", [220]

    def auth(self) -> tuple[bytes, list[int]]:
        line = b"AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=\r\n"
        if not self.greeted or self.sender or self.logged_in:
            return line, [503]
        self.logged_in = True
        return line, [235]

    def vrfy(self) -> tuple[bytes, list[int]]:
        return b"VRFY a\r\n", [252]

    def noop(self) -> tuple[bytes, list[int]]:
        return b"NOOP\r\n", [250]

    def junk(self) -> tuple[bytes, list[int]]:
        return self.chance.choice([(b"XYZZY\r\n", [500]), (b"RCPT TO:<>\r\n", [501]), (b"MAIL FROM:<> X=1\r\n", [555])])

    def quit(self) -> tuple[bytes, list[int]]:
        self.ended = True
        return b"QUIT\r\n", [221]
