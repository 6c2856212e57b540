"""Directory operations: domains, accounts, aliases, settings, and the keys made once.

Contract: see store.sqlite.unit. Addresses are looked up by model.address.address_key; ids are never reused; a domain's
    modseq rises with each change of it, of what it holds and of the domains below it, an account's with its password, status
    and quota.
Failure: StoreRefused.
"""

# ruff: noqa: S608 - what is put into the text of a statement is always a constant of ours

from __future__ import annotations

import os
from typing import Any

from fumibako.model.account import Account, AccountStatus, Alias, Domain, Hold, PasswordRecord, Setting
from fumibako.model.address import address_key, domain_of, split_address
from fumibako.model.change import Revoked
from fumibako.model.frames import MakeSecret
from fumibako.model.ids import AccountId, DomainId
from fumibako.model.ops import (
    AccountMade,
    AddAccount,
    AddAlias,
    AddDomain,
    AddHold,
    AliasMade,
    Counted,
    DomainMade,
    Done,
    Publish,
    Refusal,
    RemoveAccount,
    RemoveAlias,
    RemoveDomain,
    RemoveHold,
    SetAccountStatus,
    SetPassword,
    SetSetting,
    SettingMade,
    UnsetSetting,
)
from fumibako.store.base import StoreRefused
from fumibako.store.sqlite.database import Database, Row
from fumibako.store.sqlite.unit import Executed, Unit

ACCOUNT_COLUMNS = "id, address, domain_id, status, quota_limit_octets, shard, modseq, display_name"
DOMAIN_COLUMNS = ("id, name, modseq, (SELECT count(*) FROM principal WHERE domain_id = domain.id), "
                  "(SELECT count(DISTINCT address_key) FROM alias WHERE domain_id = domain.id)")
RECORD_COLUMNS = "argon2id, scram_salt, scram_iterations, scram_stored_key, scram_server_key"
SECRET_OCTETS = 32


def account_value(row: Row) -> Account:
    id_, address, domain_id, status, *rest = row
    return Account(AccountId(id_), address, DomainId(domain_id), _status(status), *rest)


def _status(word: str) -> AccountStatus:
    """Of an account whose row is damaged (`check` finds it) mail is deferred, and nobody else's waits."""
    try:
        return AccountStatus(word)
    except ValueError:
        return AccountStatus.FROZEN


def alias_key(address: str) -> str:
    """"@Example.jp" (catch-all) or an address -> the form to look up. ValueError otherwise."""
    return "@" + domain_of("x" + address) if address.startswith("@") else address_key(address)


def read_alias(database: Database, key: str) -> Alias | None:
    targets = tuple(row[0] for row in database.rows("SELECT target FROM alias WHERE address_key = ? ORDER BY target", key))
    return Alias(key, targets) if targets else None


def _next_modseq(database: Database) -> int:
    return int(database.row("UPDATE counter SET value = value + 1 WHERE name = 'modseq' RETURNING value")[0])


def _touch_domain(database: Database, domain_id: int) -> int:
    modseq = _next_modseq(database)
    database.run("UPDATE domain SET modseq = ? WHERE id = ?", modseq, domain_id)
    return modseq


def _touch_above(database: Database, name: str) -> int:
    """A domain came or went: its parents' zones delegate to it. The modseq of the change."""
    modseq, above = _next_modseq(database), name
    while above := above.partition(".")[2]:
        database.run("UPDATE domain SET modseq = ? WHERE name = ?", modseq, above)
    return modseq


def _domain_id(database: Database, name: str) -> int:
    row = database.row("SELECT id FROM domain WHERE name = ?", name)
    if row is None:
        raise StoreRefused(Refusal.NO_SUCH_DOMAIN, name)
    return int(row[0])


def _key(address: str) -> str:
    try:
        return alias_key(address)
    except ValueError as error:
        raise StoreRefused(Refusal.BAD_NAME, str(error)) from None


# -- domains --


def add_domain(unit: Unit, operation: AddDomain, now_ms: int) -> Executed:
    database, name = unit.database, operation.name.lower()
    if not name or "@" in name or not name.isascii() or name.strip(".") != name or not name.isprintable() or " " in name:
        raise StoreRefused(Refusal.BAD_NAME, repr(operation.name))
    if database.row("SELECT 1 FROM domain WHERE name = ?", name):
        raise StoreRefused(Refusal.EXISTS, name)
    modseq = _touch_above(database, name)
    database.run("INSERT INTO domain(name, modseq) VALUES(?, ?)", name, modseq)
    return DomainMade(Domain(DomainId(database.connection.last_insert_rowid()), name, modseq)), ()


def remove_domain(unit: Unit, operation: RemoveDomain, now_ms: int) -> Executed:
    database, name = unit.database, operation.name.lower()
    domain_id = _domain_id(database, name)
    for table in ("principal", "alias"):
        if database.row(f"SELECT 1 FROM {table} WHERE domain_id = ? LIMIT 1", domain_id):
            raise StoreRefused(Refusal.IN_USE, f"{name} has {'accounts' if table == 'principal' else 'aliases'}")
    database.run("DELETE FROM domain WHERE id = ?", domain_id)
    _touch_above(database, name)
    return Done(), ()


def publish(unit: Unit, operation: Publish, now_ms: int) -> Executed:
    database = unit.database
    database.run("INSERT INTO counter VALUES('published', ?1) ON CONFLICT DO UPDATE SET value = ?1 WHERE value <> ?1",
                 operation.digest)
    if database.changes:
        database.run("UPDATE domain SET modseq = ?", _next_modseq(database))
    return Done(), ()


# -- accounts --


def add_account(unit: Unit, operation: AddAccount, now_ms: int) -> Executed:
    """Into the newest shard; the engine has made sure that it has room."""
    database, key = unit.database, _key(operation.address)
    if key.startswith("@"):
        raise StoreRefused(Refusal.BAD_NAME, operation.address)
    domain_id = _domain_id(database, domain_of(key))
    _refuse_taken(database, key)
    shard = database.row("SELECT max(id) FROM shard")[0]
    modseq, word = _touch_domain(database, domain_id), operation.password
    database.run(
        "INSERT INTO principal(kind, domain_id, address, address_key, status, quota_limit_octets, shard, modseq, display_name, "
        f"{RECORD_COLUMNS}) VALUES('account', ?, ?, ?, 'active', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        domain_id, operation.address, key, operation.quota_limit_octets, shard, modseq, operation.display_name,
        *_password_values(word))
    return AccountMade(_account(database, key)), ()


def _refuse_taken(database: Database, key: str) -> None:
    if database.row("SELECT 1 FROM principal WHERE address_key = ? "
                    "UNION ALL SELECT 1 FROM alias WHERE address_key = ?", key, key):
        raise StoreRefused(Refusal.EXISTS, key)


def _password_values(word: PasswordRecord) -> tuple[Any, ...]:
    return word.argon2id, word.scram_salt, word.scram_iterations, word.scram_stored_key, word.scram_server_key


def _account(database: Database, key: str) -> Account:
    row = database.row(f"SELECT {ACCOUNT_COLUMNS} FROM principal WHERE address_key = ?", key)
    if row is None:
        raise StoreRefused(Refusal.NO_SUCH_ADDRESS, key)
    return account_value(row)


def set_password(unit: Unit, operation: SetPassword, now_ms: int) -> Executed:
    database, key = unit.database, _key(operation.address)
    account = _account(database, key)
    database.run("UPDATE principal SET argon2id = ?, scram_salt = ?, scram_iterations = ?, scram_stored_key = ?, "
                 "scram_server_key = ?, modseq = ? WHERE id = ?",
                 *_password_values(operation.password), _next_modseq(database), account.id)
    return AccountMade(_account(database, key)), (Revoked(account.id),)


def set_account_status(unit: Unit, operation: SetAccountStatus, now_ms: int) -> Executed:
    database, key = unit.database, _key(operation.address)
    account = _account(database, key)
    database.run("UPDATE principal SET status = ?, modseq = ? WHERE id = ?",
                 operation.status.value, _next_modseq(database), account.id)
    closing = () if operation.status is AccountStatus.ACTIVE else (Revoked(account.id),)
    return AccountMade(_account(database, key)), closing


def remove_account(unit: Unit, operation: RemoveAccount, now_ms: int) -> Executed:
    database = unit.database
    account = _account(database, _key(operation.address))
    database.run("DELETE FROM principal WHERE id = ?", account.id)
    database.run("DELETE FROM setting WHERE scope = ?", f"account:{account.address}")
    _touch_domain(database, account.domain_id)
    return Done(), (Revoked(account.id),)


def add_hold(unit: Unit, operation: AddHold, now_ms: int) -> Executed:
    account = _account(unit.database, _key(operation.address))
    unit.database.run("INSERT OR IGNORE INTO hold VALUES(?, ?, ?, ?)", account.id, operation.reason, account.address, now_ms)
    return Done(), ()


def remove_hold(unit: Unit, operation: RemoveHold, now_ms: int) -> Executed:
    """An address may have had several accounts, one after the other: the living one comes first."""
    key, wanted = _key(operation.address), operation.reason
    holds = [hold for hold in read_holds(unit.database, key) if wanted is None or hold.reason == wanted]
    living = unit.database.row("SELECT id FROM principal WHERE address_key = ?", key)
    gone = [hold for hold in holds if living and hold.account_id == living[0]] or holds
    if not gone:
        raise StoreRefused(Refusal.NO_SUCH_HOLD, key)
    unit.database.many("DELETE FROM hold WHERE account_id = ? AND reason = ?", [(hold.account_id, hold.reason) for hold in gone])
    return Counted(len(gone)), ()


def read_holds(database: Database, key: str = "") -> list[Hold]:
    """Those of an address (model.address.address_key), "" for all; of removed accounts as well."""
    rows = database.rows("SELECT account_id, address, reason, created_ms FROM hold ORDER BY account_id, created_ms, reason")
    holds = [Hold(AccountId(row[0]), *row[1:]) for row in rows]
    return [hold for hold in holds if not key or address_key(hold.address) == key]


# -- aliases, settings, secrets --


def add_alias(unit: Unit, operation: AddAlias, now_ms: int) -> Executed:
    database, key = unit.database, _key(operation.address)
    domain_id = _domain_id(database, key.rpartition("@")[2])
    if database.row("SELECT 1 FROM principal WHERE address_key = ?", key):
        raise StoreRefused(Refusal.EXISTS, f"{key} is an account")
    if not operation.targets:
        raise StoreRefused(Refusal.NO_SUCH_ADDRESS, f"{key} needs a target")
    for target in operation.targets:
        try:
            split_address(target)
        except ValueError as error:
            raise StoreRefused(Refusal.BAD_NAME, str(error)) from None
        database.run("INSERT OR IGNORE INTO alias VALUES(?, ?, ?)", key, target, domain_id)
    _touch_domain(database, domain_id)
    return AliasMade(Alias(key, _targets(database, key))), ()


def _targets(database: Database, key: str) -> tuple[str, ...]:
    found = read_alias(database, key)
    return found.targets if found else ()


def remove_alias(unit: Unit, operation: RemoveAlias, now_ms: int) -> Executed:
    database, key = unit.database, _key(operation.address)
    row = database.row("SELECT domain_id FROM alias WHERE address_key = ?", key)
    gone = [target for target in _targets(database, key) if not operation.targets or target in operation.targets]
    if row is None or not gone:
        raise StoreRefused(Refusal.NO_SUCH_ADDRESS, key)
    database.many("DELETE FROM alias WHERE address_key = ? AND target = ?", [(key, target) for target in gone])
    _touch_domain(database, row[0])
    return AliasMade(Alias(key, _targets(database, key))), ()


def set_setting(unit: Unit, operation: SetSetting, now_ms: int) -> Executed:
    unit.database.run("INSERT OR REPLACE INTO setting VALUES(?, ?, ?)", operation.scope, operation.key, operation.value)
    return SettingMade(Setting(operation.key, operation.scope, operation.value)), ()


def unset_setting(unit: Unit, operation: UnsetSetting, now_ms: int) -> Executed:
    unit.database.run("DELETE FROM setting WHERE scope = ? AND key = ?", operation.scope, operation.key)
    if not unit.database.changes:
        raise StoreRefused(Refusal.NO_SUCH_SETTING, f"{operation.key} {operation.scope}".strip())
    return Done(), ()


def make_secret(unit: Unit, operation: MakeSecret, now_ms: int) -> Executed:
    unit.database.run("INSERT OR IGNORE INTO secret VALUES(?, ?)", operation.name, os.urandom(SECRET_OCTETS))
    return Done(), ()
