"""A server of others for the mail that leaves: it takes, refuses, defers or breaks off, and remembers what it has taken."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.ledger import letter_in

_PATH = re.compile(r"(?:MAIL FROM|RCPT TO):<([^>]*)>.*", re.IGNORECASE | re.DOTALL)


class Sink:
    """What happens to a recipient stands in its local part.

    At RCPT: "ok-1", "fail-2" (550), "defer-3" (450). At the end of the message: "silent-4" (taken, closed without a reply),
    "drop-5" (closed without being taken), "bye-6" (250, then closed).
    The end of a message is answered while `gate` is open.
    """

    def __init__(self) -> None:
        self.taken: Counter[tuple[str, str]] = Counter()       # (letter id, recipient) -> how often a 250 was sent for it
        self.silent: Counter[tuple[str, str]] = Counter()      # taken, but the 250 was never sent
        self.changed = asyncio.Event()                          # a message has come to its end
        self.gate = asyncio.Event()
        self.gate.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._session(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass        # the server was killed
        finally:
            writer.transport.abort()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")
            await writer.drain()

        recipients: list[str] = []
        await say("220 sink.example ESMTP")
        while line := (await reader.readline()).decode():
            verb = line[:4].upper()
            if verb == "EHLO":
                await say("250-sink.example\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES")
            elif verb == "RCPT":
                path = _PATH.fullmatch(line)
                assert path is not None, line
                reply = _reply_to_recipient(path[1])
                recipients += [path[1]] if reply.startswith("250") else []
                await say(reply)
            elif verb == "DATA" and recipients:
                await say("354 go on")
                if not await self._end_of_data(await reader.readuntil(b"\r\n.\r\n"), recipients, say):
                    return
                recipients = []
            elif verb == "DATA":
                await say("503 5.5.1 no recipients")
            else:
                recipients = [] if verb in ("MAIL", "RSET") else recipients
                await say("221 2.0.0 bye" if verb == "QUIT" else "250 2.0.0 ok")

    async def _end_of_data(self, octets: bytes, recipients: list[str], say: object) -> bool:
        """False: the connection is to be closed."""
        assert callable(say)
        letter_id, _ = letter_in(octets[:-3].replace(b"\r\n..", b"\r\n."))
        kinds = {recipient.partition("-")[0] for recipient in recipients}
        if "drop" in kinds:
            return False
        box = self.silent if "silent" in kinds else self.taken
        box.update((letter_id, recipient) for recipient in recipients)
        self.changed.set()
        await self.gate.wait()
        if "silent" in kinds:
            return False
        await say("250 2.0.0 taken")
        return "bye" not in kinds


def _reply_to_recipient(path: str) -> str:
    if path.startswith("fail-"):
        return f"550 5.1.1 no such user {path}"
    return f"450 4.2.0 come back later {path}" if path.startswith("defer-") else "250 2.1.5 ok"


@asynccontextmanager
async def running_sink(address: str, port: int) -> AsyncIterator[Sink]:
    """Listening while the block runs."""
    sink = Sink()
    server = await asyncio.start_server(sink.serve, address, port, limit=1 << 24)
    try:
        yield sink
    finally:
        server.close()
