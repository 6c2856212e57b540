"""Operations on mailboxes themselves: open an account, create, delete, rename, subscribe.

Specification: RFC 9051 §5.1 (names), §6.3.4 (CREATE), §6.3.5 (DELETE), §6.3.6 (RENAME), §6.3.7 (SUBSCRIBE); RFC 6154 §3.
Contract: see store.sqlite.unit. Names are NFC, "/" between levels; INBOX in any case is INBOX.
Failure: StoreRefused; BAD_NAME for a name that can't be.
"""

from __future__ import annotations

import unicodedata

from fumibako.model.change import Arrived, Change
from fumibako.model.ids import EmailId, MailboxId, Uid
from fumibako.model.mailbox import DELIMITER, INBOX
from fumibako.model.ops import CreateMailbox, DeleteMailbox, Done, MailboxMade, OpenAccount, Refusal, RenameMailbox, Subscribe
from fumibako.store.base import StoreRefused
from fumibako.store.sqlite.account import AccountWrite, MailboxRow, open_account_write
from fumibako.store.sqlite.mail import unhold
from fumibako.store.sqlite.unit import Executed, Unit

MAX_NAME_OCTETS = 1_000
MAX_DEPTH = 32
MAX_MAILBOXES = 10_000
# RFC 6154 §2; \\All and \\Flagged are views over other mailboxes, which this store doesn't make.
SPECIAL_USES = frozenset({"\\Archive", "\\Drafts", "\\Junk", "\\Sent", "\\Trash"})


def mailbox_name(name: str) -> str:
    """The name as it is stored."""
    name = unicodedata.normalize("NFC", name)
    levels = name.split(DELIMITER)
    if levels[0].upper() == INBOX and levels[0].isascii():
        levels[0] = INBOX
    name = DELIMITER.join(levels)
    too_big = len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_OCTETS or len(levels) > MAX_DEPTH
    if "" in levels or too_big or any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name):
        raise StoreRefused(Refusal.BAD_NAME, repr(name[:100]))
    return name


def open_account(unit: Unit, operation: OpenAccount, now_ms: int) -> Executed:
    write = open_account_write(unit.database, operation.account_id, now_ms)
    return Done(), _change(write)


def create_mailbox(unit: Unit, operation: CreateMailbox, now_ms: int) -> Executed:
    write = open_account_write(unit.database, operation.account_id, now_ms)
    mailbox = make_mailbox(write, mailbox_name(operation.name), operation.special_use)
    return MailboxMade(mailbox.id, mailbox.uid_validity), _change(write)


def make_mailbox(write: AccountWrite, name: str, special_use: str = "") -> MailboxRow:
    """name: as `mailbox_name` gave it."""
    old = write.mailbox_named(name)
    if old and not old.no_select:
        raise StoreRefused(Refusal.EXISTS, name)
    _check_special_use(write, special_use)
    _check_count(write)
    if old:
        _delete_row(write, old)     # RFC 8474 §4.1: a name that is made anew is another mailbox
    _make_superiors(write, name)
    return write.add_mailbox(name, special_use)


def _check_special_use(write: AccountWrite, special_use: str) -> None:
    if not special_use:
        return
    if special_use not in SPECIAL_USES:
        raise StoreRefused(Refusal.NOT_ALLOWED, f"special use {special_use} isn't offered")
    if write.database.row("SELECT 1 FROM mailbox WHERE account_id = ? AND special_use = ?", write.id, special_use):
        raise StoreRefused(Refusal.NOT_ALLOWED, f"the account has a mailbox for {special_use}")


def _check_count(write: AccountWrite) -> None:
    count = write.database.row("SELECT count(*) FROM mailbox WHERE account_id = ?", write.id)[0]
    if count >= MAX_MAILBOXES:
        raise StoreRefused(Refusal.LIMIT, f"account {write.id} has {count} mailboxes")


def _make_superiors(write: AccountWrite, name: str) -> None:
    """RFC 9051 §6.3.4: the server SHOULD create superior hierarchical names."""
    levels = name.split(DELIMITER)
    for depth in range(1, len(levels)):
        superior = DELIMITER.join(levels[:depth])
        if write.mailbox_named(superior) is None:
            write.add_mailbox(superior)


def delete_mailbox(unit: Unit, operation: DeleteMailbox, now_ms: int) -> Executed:
    write = open_account_write(unit.database, operation.account_id, now_ms)
    mailbox = write.mailbox(operation.mailbox_id, selectable=False)
    children = bool(_inferiors(write, mailbox.name))
    if mailbox.name == INBOX or (mailbox.no_select and children):
        raise StoreRefused(Refusal.NOT_ALLOWED, f"{mailbox.name} can't be deleted")
    _empty(write, mailbox)
    if children:
        write.touch_mailbox(mailbox)
        write.database.run("UPDATE mailbox SET no_select = 1, special_use = '' WHERE account_id = ? AND id = ?",
                           write.id, mailbox.id)
        write.mailboxes_changed.append(mailbox.id)
    else:
        _delete_row(write, mailbox)
    return Done(), _change(write)


def _empty(write: AccountWrite, mailbox: MailboxRow) -> None:
    """The whole mailbox goes: the change names the mailbox, not each of its messages."""
    database = write.database
    held = database.rows("SELECT email_id, flags FROM entry WHERE account_id = ? AND mailbox_id = ? ORDER BY uid",
                         write.id, mailbox.id)
    database.run("DELETE FROM entry WHERE account_id = ? AND mailbox_id = ?", write.id, mailbox.id)
    database.run("DELETE FROM vanished WHERE account_id = ? AND mailbox_id = ?", write.id, mailbox.id)
    database.run("DELETE FROM pop3_uidl WHERE account_id = ? AND mailbox_id = ?", write.id, mailbox.id)
    unhold(database, write.id, held, write.now_ms)
    write.charge(-mailbox.size_octets, -mailbox.total, 0)
    mailbox.clear()


def _delete_row(write: AccountWrite, mailbox: MailboxRow) -> None:
    write.touch()
    write.database.run("DELETE FROM mailbox WHERE account_id = ? AND id = ?", write.id, mailbox.id)
    write.forget_mailbox(mailbox.id)


def rename_mailbox(unit: Unit, operation: RenameMailbox, now_ms: int) -> Executed:
    write = open_account_write(unit.database, operation.account_id, now_ms)
    mailbox = write.mailbox(operation.mailbox_id, selectable=False)
    name = mailbox_name(operation.name)
    if write.mailbox_named(name):
        raise StoreRefused(Refusal.EXISTS, name)
    if name.startswith(mailbox.name + DELIMITER) and mailbox.name != INBOX:
        raise StoreRefused(Refusal.NOT_ALLOWED, f"{mailbox.name} can't move into itself")
    if mailbox.name == INBOX:
        return _rename_inbox(write, mailbox, name)
    renamed = [(mailbox.id, name)]
    for child_id, child in _inferiors(write, mailbox.name):
        renamed.append((child_id, mailbox_name(name + child[len(mailbox.name):])))
    _make_superiors(write, name)
    modseq = write.touch()
    write.database.many("UPDATE mailbox SET name = ?, highest_modseq = ? WHERE account_id = ? AND id = ?",
                        [(new, modseq, write.id, mailbox_id) for mailbox_id, new in renamed])
    write.mailboxes_changed.extend(mailbox_id for mailbox_id, _ in renamed)
    return MailboxMade(mailbox.id, mailbox.uid_validity), _change(write)


def _inferiors(write: AccountWrite, name: str) -> list[tuple[MailboxId, str]]:
    """Every mailbox below: "/" is U+002F, so the names stand between name/ and name0."""
    return write.database.rows("SELECT id, name FROM mailbox WHERE account_id = ? AND name > ? AND name < ? ORDER BY name",
                               write.id, f"{name}/", f"{name}0")


def _rename_inbox(write: AccountWrite, inbox: MailboxRow, name: str) -> Executed:
    """RFC 9051 §6.3.6: its messages move to a new mailbox, INBOX stays and is empty; inferiors stay where they are."""
    _check_count(write)
    _make_superiors(write, name)
    target = write.add_mailbox(name)
    rows = write.database.rows("SELECT uid, email_id, flags FROM entry WHERE account_id = ? AND mailbox_id = ? ORDER BY uid",
                               write.id, inbox.id)
    if rows:
        modseq = write.touch_mailbox(target)
        first = target.take_uids(len(rows))
        write.database.many("INSERT INTO entry VALUES(?, ?, ?, ?, ?, ?, ?)",
                            [(write.id, target.id, uid, email_id, flags, modseq, write.now_ms)
                             for uid, (_, email_id, flags) in enumerate(rows, first)])
        write.arrived.extend(Arrived(target.id, Uid(uid), EmailId(email_id), flags)
                             for uid, (_, email_id, flags) in enumerate(rows, first))
        write.vanish(inbox, [row[0] for row in rows], [row[1] for row in rows])
        target.take_over(inbox)
    return MailboxMade(target.id, target.uid_validity), _change(write)


def subscribe(unit: Unit, operation: Subscribe, now_ms: int) -> Executed:
    """RFC 9051 §6.3.7: the name need not be a mailbox (any more)."""
    write = open_account_write(unit.database, operation.account_id, now_ms)
    name = mailbox_name(operation.name)
    if operation.on:
        write.database.run("INSERT OR IGNORE INTO subscription VALUES(?, ?)", write.id, name)
    else:
        write.database.run("DELETE FROM subscription WHERE account_id = ? AND name = ?", write.id, name)
    if write.database.changes:
        write.touch()
        mailbox = write.mailbox_named(name)
        write.mailboxes_changed.extend([mailbox.id] if mailbox else [])
    return Done(), _change(write)


def _change(write: AccountWrite) -> tuple[Change, ...]:
    change = write.save()
    return (change,) if change else ()
