"""An account while one operation changes it: its counters, mailboxes and keywords, and the change row that results.

Contract: rows are read once, changed as values and written by `save`: one UPDATE an account and touched mailbox, one
    change row. Everything an operation does to an account carries the same modseq (DESIGN §3).
Failure: StoreRefused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fumibako.model.change import Arrived, Change, FlagsChanged, Vanished
from fumibako.model.ids import AccountId, EmailId, MailboxId, ModSeq, Uid
from fumibako.model.mailbox import DEFAULT_MAILBOXES, FIRST_KEYWORD_BIT, KEYWORD_BITS, SYSTEM_FLAGS, Flag
from fumibako.model.ops import Refusal
from fumibako.store.base import StoreRefused
from fumibako.store.sqlite.database import Database
from fumibako.store.sqlite.unit import pack

_MAX_UID = 2**32 - 1
_SYSTEM_FLAGS = {name.lower(): int(bit) for name, bit in SYSTEM_FLAGS.items()}
_SEEN, _DELETED = int(Flag.SEEN), int(Flag.DELETED)

_MAILBOX_COLUMNS = "id, name, uid_validity, uid_next, total, unseen, deleted, size_octets, special_use, no_select"


@dataclass(slots=True)
class MailboxRow:
    id: MailboxId
    name: str
    uid_validity: int
    uid_next: int
    total: int
    unseen: int
    deleted: int
    size_octets: int
    special_use: str
    no_select: int

    def take_uids(self, count: int) -> int:
        """The first of `count` new uids."""
        if self.uid_next + count > _MAX_UID:
            raise StoreRefused(Refusal.LIMIT, f"mailbox {self.name} has no UIDs left")
        first, self.uid_next = self.uid_next, self.uid_next + count
        return first

    def count(self, flags: int, size_octets: int, sign: int) -> None:
        """An entry came (sign 1) or went (-1)."""
        self.total += sign
        self.size_octets += sign * size_octets
        if not flags & _SEEN:
            self.unseen += sign
        if flags & _DELETED:
            self.deleted += sign

    def recount(self, before: int, after: int) -> None:
        """An entry's flags changed."""
        self.unseen += (before & _SEEN) - (after & _SEEN)
        self.deleted += ((after & _DELETED) - (before & _DELETED)) // _DELETED

    def clear(self) -> None:
        self.total = self.unseen = self.deleted = self.size_octets = 0

    def take_over(self, other: MailboxRow) -> None:
        """All its entries came here."""
        self.total, self.unseen, self.deleted, self.size_octets = other.total, other.unseen, other.deleted, other.size_octets
        other.clear()


@dataclass(slots=True)
class AccountWrite:
    """Opened by `open_account_write`."""

    database: Database
    id: AccountId
    now_ms: int
    modseq: int
    next_email_id: int
    next_mailbox_id: int
    used_octets: int
    messages: int
    uid_validity: int
    changed: bool = False
    arrived: list[Arrived] = field(default_factory=list)
    flags_changed: list[FlagsChanged] = field(default_factory=list)
    vanished: list[Vanished] = field(default_factory=list)
    mailboxes_changed: list[MailboxId] = field(default_factory=list)
    keywords_added: list[tuple[int, str]] = field(default_factory=list)
    _mailboxes: dict[MailboxId, MailboxRow] = field(default_factory=dict)
    _touched: set[MailboxId] = field(default_factory=set)
    _keywords: dict[str, int] | None = None

    def touch(self) -> ModSeq:
        """The modseq of this operation; the first call makes it."""
        if not self.changed:
            self.changed = True
            self.modseq += 1
        return ModSeq(self.modseq)

    # -- mailboxes --

    def mailbox(self, mailbox_id: MailboxId, *, selectable: bool = True) -> MailboxRow:
        found = self._mailboxes.get(mailbox_id) or self._load("id", mailbox_id)
        if found is None or (selectable and found.no_select):
            raise StoreRefused(Refusal.NO_SUCH_MAILBOX, f"account {self.id} mailbox {mailbox_id}")
        return found

    def mailbox_named(self, name: str) -> MailboxRow | None:
        return self._load("name", name)

    def _load(self, column: str, value: object) -> MailboxRow | None:
        row = self.database.row(
            f"SELECT {_MAILBOX_COLUMNS} FROM mailbox WHERE account_id = ? AND {column} = ?",  # noqa: S608 - our own column
            self.id, value)
        if row is None:
            return None
        # The one already in hand holds counters that are not written yet.
        return self._mailboxes.setdefault(row[0], MailboxRow(*row))

    def add_mailbox(self, name: str, special_use: str = "") -> MailboxRow:
        """RFC 9051 §2.3.1.1: a UIDVALIDITY never comes back, whatever the clock does."""
        mailbox_id = MailboxId(self.next_mailbox_id)
        self.next_mailbox_id += 1
        self.uid_validity = max(self.now_ms // 1000, self.uid_validity + 1)
        mailbox = self._mailboxes[mailbox_id] = MailboxRow(mailbox_id, name, self.uid_validity, 1, 0, 0, 0, 0, special_use, 0)
        self.database.run("INSERT INTO mailbox VALUES(?, ?, ?, ?, 1, ?, 0, 0, 0, 0, ?, 0)",
                          self.id, mailbox_id, name, self.uid_validity, self.touch(), special_use)
        self.mailboxes_changed.append(mailbox_id)
        return mailbox

    def forget_mailbox(self, mailbox_id: MailboxId) -> None:
        """Its row is deleted: nothing of it is written at the end."""
        self._mailboxes.pop(mailbox_id, None)
        self._touched.discard(mailbox_id)
        self.mailboxes_changed.append(mailbox_id)

    def touch_mailbox(self, mailbox: MailboxRow) -> ModSeq:
        self._touched.add(mailbox.id)
        return self.touch()

    # -- entries --

    def charge(self, size_octets: int, messages: int, quota_limit_octets: int) -> None:
        self.used_octets += size_octets
        self.messages += messages
        if quota_limit_octets and self.used_octets > quota_limit_octets:
            raise StoreRefused(Refusal.OVER_QUOTA, f"account {self.id}: {self.used_octets} of {quota_limit_octets} octets")

    def arrive(self, mailbox: MailboxRow, email_id: EmailId, flags: int, size_octets: int) -> Uid:
        """A new entry at the end of a mailbox."""
        uid = Uid(mailbox.take_uids(1))
        modseq = self.touch_mailbox(mailbox)
        self.database.run("INSERT INTO entry VALUES(?, ?, ?, ?, ?, ?, ?)",
                          self.id, mailbox.id, uid, email_id, flags, modseq, self.now_ms)
        mailbox.count(flags, size_octets, 1)
        self.arrived.append(Arrived(mailbox.id, uid, email_id, flags))
        return uid

    def vanish(self, mailbox: MailboxRow, uids: Sequence[Uid], email_ids: Sequence[int]) -> None:
        """Delete entries whose counters the caller has taken off, and write them down for QRESYNC (RFC 7162 §3.2.10)."""
        modseq = self.touch_mailbox(mailbox)
        self.database.many("DELETE FROM entry WHERE account_id = ? AND mailbox_id = ? AND uid = ?",
                           [(self.id, mailbox.id, uid) for uid in uids])
        self.database.run("INSERT INTO vanished VALUES(?, ?, ?, ?, ?)", self.id, mailbox.id, modseq, pack(uids), pack(email_ids))
        self.vanished.append(Vanished(mailbox.id, tuple(uids)))

    # -- keywords --

    def flag_word(self, names: Sequence[str], *, grow: bool = True, full_is_error: bool = True) -> int:
        """Names to bits. grow: unknown keywords get a bit; else they are left out, as are those that find no room
        where full_is_error is False (a delivery is not refused for a keyword)."""
        word = 0
        for name in names:
            bit = _SYSTEM_FLAGS.get(name.lower())
            if bit is None and name.startswith("\\"):
                raise StoreRefused(Refusal.NOT_ALLOWED, f"flag {name} can't be set")
            word |= bit if bit is not None else self._keyword_bit(name, grow, full_is_error)
        return word

    def _keyword_bit(self, name: str, grow: bool, full_is_error: bool) -> int:
        if self._keywords is None:
            rows = self.database.rows("SELECT name, bit FROM keyword WHERE account_id = ?", self.id)
            self._keywords = {known.lower(): bit for known, bit in rows}
        folded = name.lower()
        if folded in self._keywords:
            return 1 << self._keywords[folded]
        if not grow:
            return 0
        bit = FIRST_KEYWORD_BIT + len(self._keywords)       # a bit is never taken back, so the count is the next one
        if len(self._keywords) >= KEYWORD_BITS:
            if full_is_error:
                raise StoreRefused(Refusal.LIMIT, f"account {self.id} has {KEYWORD_BITS} keywords")
            return 0
        self._keywords[folded] = bit
        self.database.run("INSERT INTO keyword VALUES(?, ?, ?)", self.id, bit, name)
        self.touch()
        self.keywords_added.append((bit, name))
        return 1 << bit

    # -- the end --

    def save(self) -> Change | None:
        """Write what changed; None when nothing did."""
        if not self.changed:
            return None
        for mailbox_id in self._touched:
            box = self._mailboxes[mailbox_id]
            self.database.run(
                "UPDATE mailbox SET uid_next = ?, highest_modseq = ?, total = ?, unseen = ?, deleted = ?, size_octets = ? "
                "WHERE account_id = ? AND id = ?",
                box.uid_next, self.modseq, box.total, box.unseen, box.deleted, box.size_octets, self.id, mailbox_id)
        self.database.run(
            "UPDATE account SET modseq = ?, next_email_id = ?, next_mailbox_id = ?, used_octets = ?, messages = ?, "
            "uid_validity = ? WHERE id = ?",
            self.modseq, self.next_email_id, self.next_mailbox_id, self.used_octets, self.messages, self.uid_validity, self.id)
        change = Change(self.id, ModSeq(self.modseq), self.now_ms, tuple(self.arrived), tuple(self.flags_changed),
                        tuple(self.vanished), tuple(self.mailboxes_changed), tuple(self.keywords_added))
        self.database.run("INSERT INTO change VALUES(?, ?, ?, ?)", self.id, self.modseq, self.now_ms, pack(change))
        return change


def open_account_write(database: Database, account_id: AccountId, now_ms: int) -> AccountWrite:
    """The account's rows, made with the default mailboxes where they are missing: the caller knows that it exists."""
    row = database.row("SELECT modseq, next_email_id, next_mailbox_id, used_octets, messages, uid_validity "
                       "FROM account WHERE id = ?", account_id)
    if row is not None:
        return AccountWrite(database, account_id, now_ms, *row)
    return new_account_write(database, account_id, now_ms)


def new_account_write(database: Database, account_id: AccountId, now_ms: int,
                      before: int = 0, uid_validity: int = 0) -> AccountWrite:
    """before: numbers that may have been given already, of modseqs, messages and mailboxes; uid_validity: likewise."""
    database.run("INSERT INTO account(id, log_floor) VALUES(?, ?)", account_id, before)
    write = AccountWrite(database, account_id, now_ms, before, before + 1, before + 1, 0, 0, uid_validity)
    for name, special_use in DEFAULT_MAILBOXES:
        write.add_mailbox(name, special_use)
        # Clients that show only what is subscribed would hide the Sent mailbox of a new account.
        database.run("INSERT INTO subscription VALUES(?, ?)", account_id, name)
    return write
