"""What must hold in the databases, as queries for the rows where it doesn't.

Contract: a query names each wrong row by its key; `mend` makes derived values right again and changes nothing else. A counter
    that fell behind jumps ahead: what it had given away meanwhile may be gone, and nothing is given twice (DESIGN §3 Epoch).
"""

# ruff: noqa: S608 - what is put into the text of a statement is always a constant of ours

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fumibako.model.account import AccountStatus
from fumibako.model.queue import RecipientState


@dataclass(frozen=True, slots=True)
class Rule:
    """kind: a stable word; mend: "" where nothing can be derived. It may use :later, a time in ms.

    since: the schema of the tables it asks; an older file, which the next start migrates, is not asked.
    """

    kind: str
    query: str
    mend: str = ""
    since: int = 1


SIZES = "message sizes"
_ENTRIES = "FROM entry e JOIN email m ON m.account_id = e.account_id AND m.id = e.email_id WHERE e.account_id"
_COUNTED = ("(SELECT count(*), coalesce(sum(e.flags & 1 = 0), 0), coalesce(sum(e.flags & 8 = 8), 0), "
            f"coalesce(sum(m.size_octets), 0) {_ENTRIES} = mailbox.account_id AND e.mailbox_id = mailbox.id)")
_CHARGED = f"(SELECT coalesce(sum(m.size_octets), 0), count(*) {_ENTRIES} = account.id)"
_MAX_UID = "(SELECT coalesce(max(uid), 0) FROM entry e WHERE e.account_id = mailbox.account_id AND e.mailbox_id = mailbox.id)"
_JUMP_UID, _LAST_UID = 1 << 20, (1 << 32) - 1
_JUMP = 1 << 32
_OF_MAILBOX = "account_id = mailbox.account_id AND mailbox_id = mailbox.id"
_MAILBOX_MODSEQ = (f"max((SELECT coalesce(max(modseq), 0) FROM entry WHERE {_OF_MAILBOX}), "
                   f"(SELECT coalesce(max(modseq), 0) FROM vanished WHERE {_OF_MAILBOX}))")
_ACCOUNT_MODSEQ = "max({})".format(", ".join(
    f"(SELECT coalesce(max({column}), 0) FROM {table} WHERE account_id = account.id)"
    for table, column in (("entry", "modseq"), ("mailbox", "highest_modseq"), ("change", "modseq"), ("vanished", "modseq"))))
# The directory's modseq goes into the serials of zones, which come round after 2^32: a mended one jumps less.
_COUNTERS = "'modseq', 'published'"
_DIRECTORY_MODSEQ = "max((SELECT coalesce(max(modseq), 0) FROM domain), (SELECT coalesce(max(modseq), 0) FROM principal))"
_DIRECTORY_COUNTER = "coalesce((SELECT value FROM counter WHERE name = 'modseq'), -1)"
_MAX_EMAIL = "(SELECT coalesce(max(id), 0) FROM email WHERE account_id = account.id)"
_MAX_MAILBOX = "(SELECT coalesce(max(id), 0) FROM mailbox WHERE account_id = account.id)"
_MAX_VALIDITY = "(SELECT coalesce(max(uid_validity), 0) FROM mailbox WHERE account_id = account.id)"
_WHOLE_SIZE = "length(prefix) + (SELECT size_octets FROM blob WHERE blob.id = blob_id)"
# Joined, not asked row by row: nothing indexes entry by email or email by blob.
_WRONGLY_HELD = ("SELECT email.account_id, email.id, coalesce(n, 0) AS n FROM email LEFT JOIN "
                 "(SELECT account_id, email_id, count(*) AS n FROM entry GROUP BY account_id, email_id) AS held "
                 "ON held.account_id = email.account_id AND held.email_id = email.id "
                 "WHERE entries <> coalesce(n, 0) OR (entries = 0) <> (purge_after_ms > 0)")


def _wrong_refs(holders: str) -> str:
    return (f"SELECT blob.id, coalesce(n, 0) AS n FROM blob LEFT JOIN (SELECT blob_id, count(*) AS n FROM ({holders}) "
            "GROUP BY blob_id) AS held ON held.blob_id = blob.id WHERE refs <> coalesce(n, 0)")


_SHARD_REFS = _wrong_refs("SELECT blob_id FROM email UNION ALL SELECT blob_id FROM outbox")
_QUEUE_REFS = _wrong_refs("SELECT blob_id FROM q_message")
_MEND_REFS = "UPDATE blob SET refs = wrong.n FROM ({}) AS wrong WHERE wrong.id = blob.id"

def _behind(kind: str, table: str, column: str, highest: str, mended: str) -> Rule:
    """column has to be above `highest`."""
    key = "account_id, id" if table == "mailbox" else "id"
    return Rule(kind, f"SELECT {key} FROM {table} WHERE {column} <= {highest}",
                f"UPDATE {table} SET {column} = {mended} WHERE {column} <= {highest}")


def _wrong_sizes(table: str, key: str) -> Rule:
    return Rule(SIZES, f"SELECT {key} FROM {table} WHERE size_octets <> {_WHOLE_SIZE}",
                f"UPDATE {table} SET size_octets = {_WHOLE_SIZE} WHERE size_octets <> {_WHOLE_SIZE}")


def _sequences(*tables: str) -> tuple[Rule, ...]:
    """What AUTOINCREMENT remembers of the ids it gave: none is given twice, whatever was deleted."""
    known = ", ".join(f"'{table}'" for table in tables)
    stray = f"SELECT name FROM sqlite_sequence WHERE name NOT IN ({known})"
    bare = " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table}) AND '{table}' NOT IN "
                              "(SELECT name FROM sqlite_sequence)" for table in tables)
    only = f"(SELECT count(*) FROM ({stray})) = 1 AND (SELECT count(*) FROM ({bare})) = 1"
    return (
        # A name that is wrong can only be that of the one table that has rows and no name.
        Rule("sequences of no table", stray, f"UPDATE sqlite_sequence SET name = ({bare}) WHERE name IN ({stray}) AND {only}"),
        *map(_sequence, tables))


def _sequence(table: str) -> Rule:
    """The number of a segment has 31 bits, so it can't jump far."""
    jump = _JUMP_UID if table == "segment" else _JUMP
    return Rule("sequences", f"SELECT '{table}' FROM (SELECT max(id) AS last FROM {table}) WHERE last > "
                f"(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = '{table}')",
                f"DELETE FROM sqlite_sequence WHERE name = '{table}'; "
                f"INSERT INTO sqlite_sequence SELECT '{table}', max(id) + {jump} FROM {table}")


def _unknown(column: str, table: str, key: str, words: Iterable[str], mended: str = "") -> Rule:
    """A word that this program has not written. mended: the one that loses nothing, where there is one."""
    wrong = f"{column} NOT IN ({', '.join(map(repr, words))})"
    return Rule(f"unknown {column}", f"SELECT {key} FROM {table} WHERE {wrong}",
                f"UPDATE {table} SET {column} = '{mended}' WHERE {wrong}" if mended else "")


_IN_USE = "SELECT id FROM segment WHERE replaced_ms > 0 AND id IN (SELECT segment_id FROM blob)"
_SEGMENT_RULES = (
    Rule("two blobs in one place", "SELECT segment_id, offset FROM blob GROUP BY segment_id, offset HAVING count(*) > 1"),
    Rule("blobs without segment", "SELECT id FROM blob WHERE segment_id NOT IN (SELECT id FROM segment)"),
    Rule("segments in use about to go", _IN_USE, f"UPDATE segment SET replaced_ms = 0 WHERE id IN ({_IN_USE})", since=2),
    Rule("open segments about to go", "SELECT id FROM segment WHERE replaced_ms > 0 AND sealed = 0",
         "UPDATE segment SET replaced_ms = 0 WHERE sealed = 0", since=2),
)

SHARD_RULES = (
    _wrong_sizes("email", "account_id, id"),        # the counters are sums of these
    Rule("mailbox counters", f"SELECT account_id, id FROM mailbox WHERE (total, unseen, deleted, size_octets) <> {_COUNTED}",
         f"UPDATE mailbox SET (total, unseen, deleted, size_octets) = {_COUNTED}"),
    _behind("uid_next", "mailbox", "uid_next", _MAX_UID,
            f"max({_MAX_UID} + 1, min({_MAX_UID} + {_JUMP_UID}, {_LAST_UID}))"),
    Rule("highest_modseq", f"SELECT account_id, id FROM mailbox WHERE highest_modseq < {_MAILBOX_MODSEQ}",
         f"UPDATE mailbox SET highest_modseq = {_MAILBOX_MODSEQ} WHERE highest_modseq < {_MAILBOX_MODSEQ}"),
    Rule("quota", f"SELECT id FROM account WHERE (used_octets, messages) <> {_CHARGED}",
         f"UPDATE account SET (used_octets, messages) = {_CHARGED}"),
    Rule("modseq", f"SELECT id FROM account WHERE modseq < {_ACCOUNT_MODSEQ}",
         f"UPDATE account SET modseq = {_ACCOUNT_MODSEQ} + {_JUMP} WHERE modseq < {_ACCOUNT_MODSEQ}"),
    _behind("next_email_id", "account", "next_email_id", _MAX_EMAIL, f"{_MAX_EMAIL} + {_JUMP}"),
    _behind("next_mailbox_id", "account", "next_mailbox_id", _MAX_MAILBOX, f"{_MAX_MAILBOX} + {_JUMP}"),
    Rule("uid_validity", f"SELECT id FROM account WHERE uid_validity < {_MAX_VALIDITY}",
         f"UPDATE account SET uid_validity = {_MAX_VALIDITY} WHERE uid_validity < {_MAX_VALIDITY}"),
    Rule("entry counts", _WRONGLY_HELD,
         "UPDATE email SET entries = wrong.n, purge_after_ms = CASE WHEN wrong.n > 0 THEN 0 ELSE max(purge_after_ms, :later) END "
         f"FROM ({_WRONGLY_HELD}) AS wrong WHERE wrong.account_id = email.account_id AND wrong.id = email.id"),
    Rule("entries without message", "SELECT e.account_id, e.mailbox_id, e.uid FROM entry e LEFT JOIN email m "
         "ON m.account_id = e.account_id AND m.id = e.email_id WHERE m.id IS NULL"),
    Rule("entries without mailbox", "SELECT e.account_id, e.mailbox_id, e.uid FROM entry e LEFT JOIN mailbox b "
         "ON b.account_id = e.account_id AND b.id = e.mailbox_id WHERE b.id IS NULL"),
    Rule("messages without blob",
         "SELECT account_id, email.id FROM email LEFT JOIN blob ON blob.id = blob_id WHERE blob.id IS NULL"),
    Rule("same EMAILID twice", "SELECT account_id, hex(guid) FROM email GROUP BY account_id, guid HAVING count(*) > 1"),
    Rule("blob references", _SHARD_REFS, _MEND_REFS.format(_SHARD_REFS)),
    Rule("caches without blob", "SELECT blob_id FROM email_cache WHERE blob_id NOT IN (SELECT id FROM blob)",
         "DELETE FROM email_cache WHERE blob_id NOT IN (SELECT id FROM blob)"),
    *_sequences("outbox", "segment"),
    *_SEGMENT_RULES,
)
QUEUE_RULES = (
    _wrong_sizes("q_message", "id"),
    Rule("recipients without message", "SELECT id FROM q_recipient WHERE message_id NOT IN (SELECT id FROM q_message)"),
    Rule("messages without recipient", "SELECT id FROM q_message WHERE id NOT IN (SELECT message_id FROM q_recipient)"),
    Rule("messages without blob", "SELECT id FROM q_message WHERE blob_id NOT IN (SELECT id FROM blob)"),
    # It may have been delivered or not: so it waits for the administrator, who sees it in the queue.
    _unknown("state", "q_recipient", "id", map(str, RecipientState), RecipientState.POISON),
    Rule("blob references", _QUEUE_REFS, _MEND_REFS.format(_QUEUE_REFS)),
    *_sequences("q_message", "q_recipient", "segment"),
    *_SEGMENT_RULES,
)
CONTROL_RULES = (
    *_sequences("domain", "principal"),
    Rule("unknown counters", f"SELECT name FROM counter WHERE name NOT IN ({_COUNTERS})",
         f"DELETE FROM counter WHERE name NOT IN ({_COUNTERS})"),
    Rule("modseq of the directory", f"SELECT 'modseq' WHERE {_DIRECTORY_MODSEQ} > {_DIRECTORY_COUNTER}",
         f"INSERT OR REPLACE INTO counter SELECT 'modseq', {_DIRECTORY_MODSEQ} + {_JUMP_UID} "
         f"WHERE {_DIRECTORY_MODSEQ} > {_DIRECTORY_COUNTER}"),
    Rule("accounts without domain", "SELECT address FROM principal WHERE domain_id NOT IN (SELECT id FROM domain)"),
    Rule("aliases without domain", "SELECT address_key FROM alias WHERE domain_id NOT IN (SELECT id FROM domain)"),
    _unknown("status", "principal", "address", map(str, AccountStatus)),
    _unknown("kind", "principal", "address", ("account",)),
    Rule("accounts without shard", "SELECT address FROM principal WHERE shard NOT IN (SELECT id FROM shard)"),
    Rule("holds of nobody", "SELECT account_id, reason FROM hold WHERE account_id > "
         "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'principal')", since=2),
    Rule("address is account and alias",
         "SELECT address_key FROM alias WHERE address_key IN (SELECT address_key FROM principal)"),
)
