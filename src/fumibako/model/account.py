"""Who lives here: domains, accounts, aliases, and the keys that prove a login.

Contract: rows of control.db as values; `kind` and `status` are words, not numbers, so that they read in logs.
"""

from __future__ import annotations

import enum

import msgspec

from fumibako.model.ids import AccountId, DomainId


class AccountStatus(enum.StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"
    FROZEN = "frozen"       # being moved: 451 and NO [UNAVAILABLE], nothing is lost


class Domain(msgspec.Struct, frozen=True):
    """A hosted domain. name: A-label, lower case. modseq rises with every change (it feeds the SOA serial)."""

    id: DomainId
    name: str
    modseq: int
    accounts: int = 0
    aliases: int = 0


class Account(msgspec.Struct, frozen=True):
    """A principal that owns mail. address: as created; modseq rises with passwd, disable, quota changes."""

    id: AccountId
    address: str
    domain_id: DomainId
    status: AccountStatus
    quota_limit_octets: int     # 0: no limit
    shard: int
    modseq: int
    display_name: str = ""


class Alias(msgspec.Struct, frozen=True):
    """address -> targets; address "@example.jp" is the catch-all of its domain."""

    address: str
    targets: tuple[str, ...]


class Hold(msgspec.Struct, frozen=True):
    """Nothing of the account is purged. address: of the account when the hold was made; created_ms: UTC."""

    account_id: AccountId
    address: str
    reason: str
    created_ms: int


class PasswordRecord(msgspec.Struct, frozen=True):
    """Everything made from one password, together (DESIGN §10): argon2id is a PHC string; SCRAM keys per RFC 5802 §3."""

    argon2id: str
    scram_salt: bytes
    scram_iterations: int
    scram_stored_key: bytes
    scram_server_key: bytes


class Setting(msgspec.Struct, frozen=True):
    """One live policy value. scope: "" (server), "domain:example.jp", "group:x", "account:a@b"."""

    key: str
    scope: str
    value: str
