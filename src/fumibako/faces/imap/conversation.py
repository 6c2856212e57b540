r"""What every IMAP command works with: the core, the account somebody is logged in to, the selected mailbox.

Specification: RFC 9051 §3 (states), §5.2 and §7.5.1 (unasked responses), §7.1 (response codes); RFC 5530 §3.
Contract: `synchronize` tells what has changed and is called between commands only; EXPUNGE only where `expunge` allows it.
    A refusal of the store becomes the same NO for a mailbox that is absent and one that is forbidden.
Failure: `Unavailable` passes through: no tagged answer, the session ends with BYE.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fumibako.faces.imap.flags import RECENT, SYSTEM_BITS, flag_names
from fumibako.model.mailbox import KEYWORD_BITS
from fumibako.model.ops import Refusal
from fumibako.net.clock import Clock
from fumibako.net.stream import Stream
from fumibako.proto.imap.commands import SequenceSet
from fumibako.proto.imap.format import code_permanent_flags, format_flags
from fumibako.proto.imap.render import FlagLists, render_expunge, render_flags_fetch
from fumibako.proto.imap.server import ServerConnection
from fumibako.services.login import Login
from fumibako.services.mailboxes import Mailboxes, Visit
from fumibako.services.selection import Selection

CHUNK_MESSAGES = 500        # messages rendered between two drains

# RFC 5530 §3 and RFC 9051 §7.1: why the answer is NO, as a client can read it, and as a person can.
REFUSALS: dict[Refusal, tuple[bytes, str]] = {
    Refusal.NO_SUCH_MAILBOX: (b"NONEXISTENT", "No such mailbox"),
    Refusal.EXISTS: (b"ALREADYEXISTS", "The mailbox exists already"),
    Refusal.BAD_NAME: (b"CANNOT", "That can't be the name of a mailbox"),
    Refusal.NOT_ALLOWED: (b"CANNOT", "That is not allowed with this mailbox"),
    Refusal.IN_USE: (b"INUSE", "The mailbox is in use"),
    Refusal.OVER_QUOTA: (b"OVERQUOTA", "The quota is exhausted: delete messages and empty the trash"),
    Refusal.LIMIT: (b"LIMIT", "A limit is reached, for instance the number of keywords"),
    Refusal.FROZEN: (b"UNAVAILABLE", "The account is being moved, try again later"),
    Refusal.DISK_FULL: (b"UNAVAILABLE", "The server's disk is full, try again later"),
    Refusal.NO_FILES: (b"UNAVAILABLE", "The server has too many files open, try again later"),
}
UNKNOWN_REFUSAL = (b"UNAVAILABLE", "That is not possible now, try again later")


@dataclass(frozen=True, slots=True)
class ImapServices:
    """What every session of a process shares."""

    mailboxes: Mailboxes
    login: Login
    clock: Clock


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ends: `tag STATUS [code] text`. code: without brackets."""

    text: str
    code: bytes = b""
    status: str = "OK"


class Declined(Exception):
    """The command can't be carried out: its Answer is NO or BAD."""

    def __init__(self, text: str, code: bytes = b"", status: str = "NO") -> None:
        super().__init__(text)
        self.answer = Answer(text, code, status)


def refused(refusal: Refusal, *, try_create: bool = False) -> Answer:
    """What a refusal of the store means to a client. try_create: it appends or copies, and may make the mailbox first
    (RFC 9051 §6.3.12)."""
    code, text = REFUSALS.get(refusal, UNKNOWN_REFUSAL)
    return Answer(text, b"TRYCREATE" if try_create and refusal is Refusal.NO_SUCH_MAILBOX else code, "NO")


class Conversation:
    """One connection's state, as the command modules see it."""

    def __init__(self, core: ServerConnection, stream: Stream, services: ImapServices) -> None:
        self.core = core
        self.stream = stream
        self.services = services
        self.selection: Selection | None = None
        self.tag = b""                      # of the command at hand
        self.woken = asyncio.Event()        # there may be something to tell
        self._visit: Visit | None = None
        self.flag_lists = FlagLists(self._names)
        self._told_flags = 0                # flag bits of the last FLAGS response

    # -- the account and the mailbox --

    @property
    def visit(self) -> Visit:
        if self._visit is None:
            raise RuntimeError("nobody is logged in")
        return self._visit

    @property
    def is_authenticated(self) -> bool:
        return self._visit is not None

    def enter(self, visit: Visit) -> None:
        self._visit = visit

    @property
    def selected(self) -> Selection:
        if self.selection is None:
            raise RuntimeError("no mailbox is selected")
        return self.selection

    def positions(self, numbers: SequenceSet, *, uid: bool) -> list[int]:
        try:
            return self.selected.positions(numbers, uid=uid)
        except ValueError:
            raise Declined("There is no such sequence number", status="BAD") from None

    def pieces(self, numbers: SequenceSet, *, uid: bool) -> Iterator[list[int]]:
        """The same in pieces that an operation can take, between which others have their turn."""
        try:
            return self.selected.pieces(numbers, uid=uid)
        except ValueError:
            raise Declined("There is no such sequence number", status="BAD") from None

    @property
    def writable(self) -> Selection:
        if self.selected.read_only:
            raise Declined("The mailbox is selected read-only", b"READ-ONLY")
        return self.selected

    def unselect(self) -> Selection | None:
        """Leaves the selected mailbox; the core is told by the caller."""
        before, self.selection = self.selection, None
        if before is not None:
            self.visit.unselect(before)
        return before

    async def leave(self) -> None:
        self.unselect()
        visit, self._visit = self._visit, None
        if visit is not None:
            await visit.leave()

    # -- sending --

    async def drain(self) -> None:
        """Sends what is rendered; waits while the client reads slowly."""
        if octets := self.core.data_to_send():
            await self.stream.write(octets)

    # -- flags --

    def flag_words(self, positions: Sequence[int]) -> list[int]:
        r"""Flag words with \Recent as a bit, for `flag_lists`."""
        selection, view = self.selected, self.selected.view
        if not selection.recent or self.core.rev2:
            return [view.flags[at] for at in positions]
        return [view.flags[at] | (RECENT if selection.is_recent(view.uids[at]) else 0) for at in positions]

    def _names(self, word: int) -> list[str]:
        return flag_names(word, self.visit.keywords)

    def tell_flags(self) -> None:
        """FLAGS of the selected mailbox: those it may hold (RFC 9051 §7.3.5)."""
        self._told_flags = self.selected.used_flags | SYSTEM_BITS
        self.core.untagged(b"FLAGS " + format_flags(self._names(self._told_flags)))

    def tell_new_keywords(self) -> None:
        """Keywords that came up in the mailbox are named before the first message has them."""
        if self.selected.used_flags & ~self._told_flags:
            self.tell_flags()
            self.tell_permanent_flags()

    def tell_permanent_flags(self) -> None:
        r"""`PERMANENTFLAGS (... \*)`; without `\*` when the account can't take another keyword."""
        selection, keywords = self.selected, self.visit.keywords
        full = len(keywords) >= KEYWORD_BITS
        word = sum(1 << bit for bit in keywords) if full else selection.used_flags
        names = [] if selection.read_only else self._names(word | SYSTEM_BITS)
        code = code_permanent_flags(names, more=not full and not selection.read_only)
        self.core.untagged(b"OK [%b] Limited" % code)

    # -- what others did --

    @property
    def has_news(self) -> bool:
        return self.selection is not None and self.selection.has_news

    async def catch_up(self) -> None:
        """Before a command looks at the selected mailbox: what another session was told is done is seen by it."""
        if self.selection is not None:
            await self.visit.catch_up()

    async def synchronize(self, *, expunge: bool) -> None:
        """Tells the client what has changed in the selected mailbox since it was told last."""
        selection = self.selection
        if selection is None or not selection.has_news or self.core.closed:
            return
        if selection.gone or (selection.row_changed and not await self._still_there(selection)):
            self.core.bye("The selected mailbox is gone or was rebuilt: connect again", b"UNAVAILABLE")
            return
        recent_before = selection.recent_count
        news = await selection.news(expunge=expunge)
        for lines in render_expunge(news.expunged):
            self.core.send(lines)
        if news.exists is not None:
            self.core.untagged(b"%d EXISTS" % news.exists)
        if not self.core.rev2 and selection.recent_count != recent_before:
            self.core.untagged(b"%d RECENT" % selection.recent_count)
        self.tell_new_keywords()
        self.tell_flag_changes(news.changed)

    async def _still_there(self, selection: Selection) -> bool:
        selection.row_is_known()
        return await self.visit.exists(selection.mailbox.id)

    def tell_flag_changes(self, uids: Iterable[int], *, with_uid: bool = False) -> None:
        """FETCH responses with the flags of messages the client knows.

        RFC 9051 §7.5.2: IMAP4rev2 wants the UID too; RFC 7162 §3.2: MODSEQ once CONDSTORE is on.
        """
        selection, view = self.selected, self.selected.view
        positions = [at for uid in uids if 0 <= (at := view.index(uid)) < selection.told]
        for lines in render_flags_fetch(
            [at + 1 for at in positions], self.flag_words(positions), self.flag_lists,
            uids=[view.uids[at] for at in positions] if with_uid or self.core.rev2 else None,
            modseqs=[view.modseqs[at] for at in positions] if self.core.condstore else None,
        ):
            self.core.send(lines)
