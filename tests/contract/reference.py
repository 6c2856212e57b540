"""The store's mail operations over plain dicts: what every engine must answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from fumibako.model.change import Arrived, Change, FlagsChanged, Vanished
from fumibako.model.mailbox import DEFAULT_MAILBOXES, SYSTEM_FLAGS
from fumibako.model.ops import (
    Append,
    Copied,
    Copy,
    CreateMailbox,
    DeleteMailbox,
    Deliver,
    Delivered,
    Done,
    Expunge,
    Expunged,
    FlagMode,
    FlagsSet,
    MailboxMade,
    Move,
    OpenAccount,
    Placed,
    Recover,
    Recovered,
    Refusal,
    RenameMailbox,
    SetFlags,
)
from tests.contract.building import NOW_MS


class Refuse(Exception):
    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


@dataclass
class Entry:
    email_id: int
    flags: int
    modseq: int


@dataclass
class Box:
    id: int
    name: str
    uid_validity: int
    special_use: str = ""
    uid_next: int = 1
    highest_modseq: int = 0
    no_select: bool = False
    entries: dict[int, Entry] = field(default_factory=dict)


@dataclass
class Draft:
    """What the operation in hand does to an account."""

    arrived: list[Arrived] = field(default_factory=list)
    flags: list[FlagsChanged] = field(default_factory=list)
    vanished: list[Vanished] = field(default_factory=list)
    mailboxes: list[int] = field(default_factory=list)
    keywords: list[tuple[int, str]] = field(default_factory=list)


class Account:
    def __init__(self, account_id: int) -> None:
        self.id = account_id
        self.modseq = 0
        self.boxes: dict[int, Box] = {}
        self.sizes: dict[int, int] = {}
        self.last_flags: dict[int, int] = {}        # of an email's last entry, once it is gone
        self.keywords: list[str] = []
        self.changes: list[Change] = []
        self.vanished: dict[int, list[tuple[int, int]]] = {}
        self.delivered: dict[tuple[bytes, str], Placed] = {}
        self.last_validity = self.last_box = self.last_email = 0
        self.draft, self.touched = Draft(), False

    # -- small steps --

    def touch(self) -> int:
        if not self.touched:
            self.touched = True
            self.modseq += 1
        return self.modseq

    def begin(self) -> None:
        if not self.boxes:
            for name, special_use in DEFAULT_MAILBOXES:
                self.add_box(name, special_use)

    def finish(self) -> None:
        if self.touched:
            made, self.draft, self.touched = self.draft, Draft(), False
            self.changes.append(Change(self.id, self.modseq, NOW_MS, tuple(made.arrived), tuple(made.flags), tuple(made.vanished),
                                       tuple(made.mailboxes), tuple(made.keywords)))

    def add_box(self, name: str, special_use: str = "") -> Box:
        self.last_box += 1
        self.last_validity = max(NOW_MS // 1000, self.last_validity + 1)
        box = self.boxes[self.last_box] = Box(self.last_box, name, self.last_validity, special_use, highest_modseq=self.touch())
        self.draft.mailboxes.append(box.id)
        return box

    def named(self, name: str) -> Box | None:
        return next((box for box in self.boxes.values() if box.name == name), None)

    def box(self, box_id: int, *, selectable: bool = True) -> Box:
        box = self.boxes.get(box_id)
        if box is None or (selectable and box.no_select):
            raise Refuse(Refusal.NO_SUCH_MAILBOX)
        return box

    def superiors(self, name: str) -> None:
        levels = name.split("/")
        for depth in range(1, len(levels)):
            if self.named("/".join(levels[:depth])) is None:
                self.add_box("/".join(levels[:depth]))

    def used(self) -> int:
        return sum(self.sizes[entry.email_id] for box in self.boxes.values() for entry in box.entries.values())

    def check_quota(self, limit: int) -> None:
        if limit and self.used() > limit:
            raise Refuse(Refusal.OVER_QUOTA)

    def word(self, names: tuple[str, ...], *, grow: bool = True) -> int:
        word = 0
        for name in names:
            if name in SYSTEM_FLAGS:
                word |= int(SYSTEM_FLAGS[name])
                continue
            if name not in self.keywords and grow:
                self.keywords.append(name)
                self.touch()
                self.draft.keywords.append((4 + len(self.keywords), name))
            if name in self.keywords:
                word |= 1 << (5 + self.keywords.index(name))
        return word

    def put(self, box: Box, email_id: int, flags: int) -> int:
        uid, box.uid_next = box.uid_next, box.uid_next + 1
        box.highest_modseq = self.touch()
        box.entries[uid] = Entry(email_id, flags, self.modseq)
        self.draft.arrived.append(Arrived(box.id, uid, email_id, flags))
        return uid

    def arrive(self, box: Box, size: int, flags: int, limit: int) -> Placed:
        self.last_email += 1
        self.sizes[self.last_email] = size
        uid = self.put(box, self.last_email, flags)
        self.check_quota(limit)
        return Placed(self.id, box.id, box.uid_validity, uid, self.last_email, self.modseq)

    def forget(self, box: Box, uids: list[int]) -> None:
        for uid in uids:
            entry = box.entries.pop(uid)
            self.last_flags[entry.email_id] = entry.flags & ~8

    def take_out(self, box: Box, uids: list[int]) -> None:
        if uids:
            box.highest_modseq = self.touch()
            self.forget(box, uids)
            for uid in uids:
                self.vanished.setdefault(box.id, []).append((self.modseq, uid))
            self.draft.vanished.append(Vanished(box.id, tuple(uids)))

    # -- operations on one account --

    def append(self, operation: Append) -> Delivered:
        box = self.box(operation.mailbox_id)
        return Delivered(tuple(self.arrive(box, one.body.size_octets, self.word(one.flags), operation.quota_limit_octets)
                               for one in operation.messages))

    def set_flags(self, operation: SetFlags) -> FlagsSet:
        box = self.box(operation.mailbox_id)
        word = self.word(operation.flags, grow=operation.mode is not FlagMode.REMOVE)
        changed, modified = [], []
        for uid in sorted(set(operation.uids) & set(box.entries)):
            entry = box.entries[uid]
            results = {FlagMode.ADD: entry.flags | word, FlagMode.REMOVE: entry.flags & ~word, FlagMode.REPLACE: word}
            after = results[operation.mode]
            if 0 <= operation.unchanged_since < entry.modseq:
                modified.append(uid)
            elif after != entry.flags:
                changed.append((uid, after))
        if changed:
            box.highest_modseq = self.touch()
            for uid, after in changed:
                box.entries[uid] = Entry(box.entries[uid].email_id, after, self.modseq)
            uids, words = zip(*changed, strict=True)
            self.draft.flags.append(FlagsChanged(box.id, uids, words))
        return FlagsSet(self.modseq, tuple(changed), tuple(modified))

    def copy(self, operation: Copy | Move) -> Copied:
        source, target = self.box(operation.mailbox_id), self.box(operation.target_id)
        uids = sorted(set(operation.uids) & set(source.entries))
        found = [source.entries[uid] for uid in uids]
        targets = tuple(self.put(target, entry.email_id, entry.flags) for entry in found)
        if isinstance(operation, Move):
            self.take_out(source, uids)
        elif found:
            self.check_quota(operation.quota_limit_octets)
        return Copied(target.uid_validity, tuple(uids), targets, self.modseq)

    def expunge(self, operation: Expunge) -> Expunged:
        box = self.box(operation.mailbox_id)
        uids = [uid for uid in sorted(set(operation.uids) & set(box.entries))
                if box.entries[uid].flags & 8 or not operation.only_deleted]
        self.take_out(box, uids)
        return Expunged(tuple(uids), self.modseq)

    def recover(self, operation: Recover) -> Recovered:
        held = {entry.email_id for box in self.boxes.values() for entry in box.entries.values()}
        lost = [email_id for email_id in sorted(set(self.sizes) - held)
                if not operation.email_ids or email_id in operation.email_ids]
        box = self.named(operation.mailbox)
        if not lost:
            return Recovered(box.id if box else 0, box.uid_validity if box else 0, (), (), self.modseq)
        if box is None or box.no_select:
            made = self.create(CreateMailbox(self.id, operation.mailbox))
            box = self.boxes[made.mailbox_id]
        uids = tuple(self.put(box, email_id, self.last_flags[email_id]) for email_id in lost)
        self.check_quota(operation.quota_limit_octets)
        return Recovered(box.id, box.uid_validity, tuple(lost), uids, self.modseq)

    def create(self, operation: CreateMailbox) -> MailboxMade:
        old = self.named(operation.name)
        if old and not old.no_select:
            raise Refuse(Refusal.EXISTS)
        if old:
            self.drop(old)
        self.superiors(operation.name)
        box = self.add_box(operation.name)
        return MailboxMade(box.id, box.uid_validity)

    def drop(self, box: Box) -> None:
        self.touch()
        del self.boxes[box.id]
        self.draft.mailboxes.append(box.id)

    def inferiors(self, box: Box) -> list[Box]:
        below = [one for one in self.boxes.values() if one.name.startswith(box.name + "/")]
        return sorted(below, key=lambda one: one.name.encode())

    def delete(self, operation: DeleteMailbox) -> Done:
        box = self.box(operation.mailbox_id, selectable=False)
        children = self.inferiors(box)
        if box.name == "INBOX" or (box.no_select and children):
            raise Refuse(Refusal.NOT_ALLOWED)
        self.forget(box, sorted(box.entries))
        self.vanished.pop(box.id, None)
        if children:
            box.no_select, box.special_use, box.highest_modseq = True, "", self.touch()
            self.draft.mailboxes.append(box.id)
        else:
            self.drop(box)
        return Done()

    def rename(self, operation: RenameMailbox) -> MailboxMade:
        box, name = self.box(operation.mailbox_id, selectable=False), operation.name
        if self.named(name):
            raise Refuse(Refusal.EXISTS)
        if name.startswith(box.name + "/") and box.name != "INBOX":
            raise Refuse(Refusal.NOT_ALLOWED)
        if box.name == "INBOX":
            return self.rename_inbox(box, name)
        below, old = self.inferiors(box), box.name
        self.superiors(name)
        for one in [box, *below]:
            one.name, one.highest_modseq = name + one.name[len(old):], self.touch()
            self.draft.mailboxes.append(one.id)
        return MailboxMade(box.id, box.uid_validity)

    def rename_inbox(self, inbox: Box, name: str) -> MailboxMade:
        self.superiors(name)
        target = self.add_box(name)
        for uid in sorted(inbox.entries):
            self.put(target, inbox.entries[uid].email_id, inbox.entries[uid].flags)
        self.take_out(inbox, sorted(inbox.entries))
        return MailboxMade(target.id, target.uid_validity)


def apply(accounts: dict[int, Account], operation: object) -> object:
    """The result. Raises Refuse; the caller then goes back to a copy made before."""
    if isinstance(operation, Deliver):
        return deliver(accounts, operation)
    account = accounts[operation.account_id]    # type: ignore[attr-defined]
    account.begin()
    steps = {Append: account.append, SetFlags: account.set_flags, Copy: account.copy, Move: account.copy,
             Expunge: account.expunge, Recover: account.recover, CreateMailbox: account.create, DeleteMailbox: account.delete,
             RenameMailbox: account.rename}
    result = Done() if isinstance(operation, OpenAccount) else steps[type(operation)](operation)    # type: ignore[operator]
    account.finish()
    return result


def deliver(accounts: dict[int, Account], operation: Deliver) -> Delivered:
    placed = []
    for recipient in operation.recipients:
        account, key = accounts[recipient.account_id], (operation.trace_id, recipient.address)
        known = account.delivered.get(key)
        if known:
            placed.append(Placed(*(getattr(known, name) for name in known.__struct_fields__[:-1]), True))
            continue
        account.begin()
        box = account.named(recipient.mailbox)
        if box is None or box.no_select:
            box = account.named("INBOX")
        assert box is not None
        size = len(recipient.prefix) + operation.body.size_octets
        account.delivered[key] = account.arrive(box, size, account.word(recipient.flags), recipient.quota_limit_octets)
        placed.append(account.delivered[key])
    for account in {recipient.account_id: accounts[recipient.account_id] for recipient in operation.recipients}.values():
        account.finish()
    return Delivered(tuple(placed))
