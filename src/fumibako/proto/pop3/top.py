"""The beginning of a message for TOP: its header, the empty line, and so many lines of the body.

Specification: RFC 1939 §7 (TOP).
Contract: feed chunks until `done`; constant memory, no loop per line.
Failure: none; any octets are a message.
"""


class TopCutter:
    """lines: how many lines of the body are wanted, 0 or more."""

    def __init__(self, lines: int) -> None:
        self.done = False
        self._lines = lines
        self._in_header = True
        self._tail = b"\r\n"        # the last three octets: the header may end across two chunks

    def feed(self, chunk: bytes) -> bytes:
        """The part of the chunk that belongs to the beginning."""
        if self.done:
            return b""
        if not self._in_header:
            return self._body(chunk)
        joined = self._tail + chunk
        end = joined.find(b"\r\n\r\n")
        if end < 0:
            self._tail = joined[-3:]
            return chunk
        self._in_header = False
        cut = end + 4 - len(self._tail)
        self.done = self._lines == 0
        return chunk[:cut] + (b"" if self.done else self._body(chunk[cut:]))

    def _body(self, chunk: bytes) -> bytes:
        ends = chunk.count(b"\n")
        if ends < self._lines:
            self._lines -= ends
            return chunk
        rest = chunk.split(b"\n", self._lines)[-1]
        self.done = True
        return chunk[: len(chunk) - len(rest)]
