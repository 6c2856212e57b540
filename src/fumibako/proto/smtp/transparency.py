"""Message octets on the wire: dot-stuffing both ways, and line ends that a second reader can't read differently.

Specification: RFC 5321 §4.5.2 (transparency), §2.3.8 (CR and LF only as CRLF), §4.1.1.4 (only CRLF.CRLF ends the data).
Contract: constant memory, linear time, no loop per octet or line.  What is read is what was sent minus dot-stuffing;
    what is written holds no CR, LF or NUL but in CRLF.  POP3 (RFC 1939 §3) uses the same transparency.
Failure: none; odd octets are counted by NewlineScan and left to the reader's policy.
"""

import re

CHUNK_MAX = 64 * 1024       # octets of a message in one piece
_END = b"\r\n.\r\n"
_ODD = re.compile(rb"\r+\n?|\n")


class DotReader:
    """Takes dot-stuffed data off the front of a buffer, in pieces that depend on the data alone, not on its arrival."""

    def __init__(self) -> None:
        self._begun = False
        self._skip = 0          # octets of the first piece that are not the peer's
        self._scanned = 0       # no terminator begins before this offset

    def read(self, buffer: bytearray) -> tuple[bytes, bool] | None:
        """(octets of the message, whether they are the last), removed from `buffer`; None: more octets are needed."""
        if not self._begun:
            # The CRLF of the command line counts as the first one of CRLF.CRLF: RFC 5321 §4.5.2.
            buffer[:0] = b"\r\n"
            self._begun, self._skip = True, 2
        end = buffer.find(_END, self._scanned, CHUNK_MAX + len(_END))
        if end < 0 and len(buffer) < CHUNK_MAX + len(_END):
            self._scanned = max(0, len(buffer) - len(_END) + 1)
            return None
        cut = end + 2 if end >= 0 else _safe_cut(buffer)
        block = bytes(buffer[:cut])
        del buffer[: end + len(_END) if end >= 0 else cut]
        octets = block.replace(b"\r\n.", b"\r\n")[self._skip :]
        self._scanned = self._skip = 0
        return octets, end >= 0


def _safe_cut(buffer: bytearray) -> int:
    """Where to cut so that no CRLF is parted from the dot behind it."""
    if buffer[CHUNK_MAX - 1] == 0x0D:
        return CHUNK_MAX - 1
    if buffer[CHUNK_MAX - 2 : CHUNK_MAX] == b"\r\n":
        return CHUNK_MAX - 2
    return CHUNK_MAX


class DotWriter:
    """Dot-stuffs a message and ends it: RFC 5321 §4.5.2."""

    def __init__(self) -> None:
        self._tail = b"\r\n"    # the last two octets written: a dot behind CRLF is doubled

    def feed(self, chunk: bytes) -> bytes:
        """The octets to send for the next octets of the message."""
        stuffed = (self._tail + chunk).replace(b"\r\n.", b"\r\n..")[len(self._tail) :]
        self._tail = (self._tail + chunk[-2:])[-2:]
        return stuffed

    def close(self) -> bytes:
        """The end of the data; a message that lacks its last CRLF gets it."""
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"


class NewlineNormaliser:
    """Makes every line end CRLF and drops NUL, so that nothing we send can be read as two messages.

    A run of CR, with LF or without, is one line end, as is a lone LF.  Octets that are in order pass unchanged.
    To be applied before signing (a signature made earlier would break), and by the client core in any case.
    """

    def __init__(self) -> None:
        self._held = b""        # a CR at the end of a chunk: its LF may follow

    def feed(self, chunk: bytes) -> bytes:
        """The normalised form of the next octets; a trailing CR waits for what follows."""
        block = (self._held + chunk).replace(b"\0", b"")
        kept = block.rstrip(b"\r")
        self._held = b"\r" if len(kept) < len(block) else b""
        crlf = kept.count(b"\r\n")
        if kept.count(b"\r") == crlf == kept.count(b"\n"):
            return kept
        return _ODD.sub(b"\r\n", kept)

    def close(self) -> bytes:
        """What was held back."""
        held, self._held = self._held, b""
        return b"\r\n" if held else b""


class NewlineScan:
    """Notices what only a careless reader takes for a line end: CR or LF outside CRLF, and NUL."""

    def __init__(self) -> None:
        self.size_octets = 0
        self.nul = False
        self._bare = False
        self._cr = False        # the last octet so far is a CR

    def feed(self, octets: bytes) -> None:
        """Count the next octets of the message."""
        if not octets:
            return
        self.size_octets += len(octets)
        self.nul = self.nul or b"\0" in octets
        crlf = octets.count(b"\r\n")
        joined = self._cr and octets[:1] == b"\n"
        self._bare = self._bare or (self._cr and not joined)
        self._cr = octets[-1:] == b"\r"
        if octets.count(b"\n") != crlf + joined or octets.count(b"\r") != crlf + self._cr:
            self._bare = True

    @property
    def bare_newline(self) -> bool:
        """Whether a CR or LF outside CRLF was seen, at the end too."""
        return self._bare or self._cr
