"""Which mailbox a name means: exact names first, then other names of a role, then the INBOX prefix of old servers.

Specification: RFC 6154 §2 (special-use attributes); spec/japanese-mail.md §6 (what Japanese clients call them).
Contract: pure. Classic Outlook makes 送信済みアイテム beside Sent, and a client moved from Courier asks for INBOX.Sent;
    both mean the mailbox that is there already. A mailbox that really has the name always wins.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from fumibako.model.mailbox import DELIMITER, INBOX, Mailbox

ROLE_NAMES: dict[str, tuple[str, ...]] = {
    "\\Sent": ("Sent", "Sent Messages", "Sent Items", "Sent Mail", "Sent-mail", "送信済み", "送信済みアイテム", "送信済みメール",
               "送信済みトレイ", "送信済みメッセージ", "送信控え"),
    "\\Trash": ("Trash", "Deleted", "Deleted Messages", "Deleted Items", "ゴミ箱", "ごみ箱", "削除済みアイテム",
                "削除済みメッセージ"),
    "\\Junk": ("Junk", "Junk E-mail", "Junk Email", "Junk Mail", "Spam", "Bulk Mail", "迷惑メール", "迷惑メールフォルダー"),
    "\\Drafts": ("Drafts", "Draft", "下書き"),
    "\\Archive": ("Archive", "Archives", "アーカイブ"),
}
_INBOX_PREFIXES = (INBOX + DELIMITER, INBOX + ".")


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


_ROLE_OF = {_fold(name): role for role, names in ROLE_NAMES.items() for name in names}


def role_of(name: str) -> str:
    """'ごみ箱' -> '\\\\Trash'; "" for any other name."""
    return _ROLE_OF.get(_fold(name), "")


def resolve_name(name: str, rows: Iterable[Mailbox]) -> str:
    """The stored name that `name` means among an account's mailboxes; `name` itself where nothing else fits."""
    by_name = {row.name: row for row in rows}
    if name in by_name:
        return name
    if (stripped := _without_inbox_prefix(name)) and (found := _by_role(stripped, by_name)) in by_name:
        return found
    return _by_role(name, by_name)


def _without_inbox_prefix(name: str) -> str:
    """'INBOX.Sent.2024' -> 'Sent/2024', 'INBOX/Sent' -> 'Sent'; "" without the prefix."""
    for prefix in _INBOX_PREFIXES:
        if name[: len(prefix)].upper() == prefix:
            rest = name[len(prefix) :]
            return rest.replace(".", DELIMITER) if prefix[-1] == "." else rest
    return ""


def _by_role(name: str, by_name: dict[str, Mailbox]) -> str:
    """The first level is exchanged for the mailbox that has its role, unless a mailbox of that name exists."""
    first, slash, rest = name.partition(DELIMITER)
    if first in by_name or not (role := role_of(first)):
        return name
    owner = next((row.name for row in by_name.values() if row.special_use == role), first)
    return owner + slash + rest
