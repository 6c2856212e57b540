"""GETQUOTA, GETQUOTAROOT and SETQUOTA: one root an account, counted in octets of messages.

Specification: RFC 9208 §4.1, §5.1 (STORAGE in units of 1024 octets).
Contract: without a limit the root has no resources; limits are the administrator's to set.
Failure: StoreRefused passes through to the session; `Declined` for a root that isn't there.
"""

from __future__ import annotations

from fumibako.faces.imap.conversation import Answer, Conversation, Declined
from fumibako.proto.imap import commands as c
from fumibako.proto.imap.format import format_quota, format_quota_root

ROOT = ""
UNIT_OCTETS = 1024


async def quota(talk: Conversation, command: c.GetQuota) -> Answer:
    if command.root != ROOT:
        raise Declined("No such quota root", b"NONEXISTENT")
    await _tell_root(talk)
    return Answer("GETQUOTA completed")


async def quota_root(talk: Conversation, command: c.GetQuotaRoot) -> Answer:
    await talk.visit.find(command.mailbox)
    talk.core.untagged(format_quota_root(command.mailbox, [ROOT], utf8=talk.core.utf8))
    await _tell_root(talk)
    return Answer("GETQUOTAROOT completed")


async def set_quota(_: Conversation, command: c.SetQuota) -> Answer:
    raise Declined("The administrator sets quotas", b"NOPERM")


async def _tell_root(talk: Conversation) -> None:
    now = await talk.visit.quota()
    used, limit = -(-now.used_octets // UNIT_OCTETS), now.limit_octets // UNIT_OCTETS
    talk.core.untagged(format_quota(ROOT, [("STORAGE", used, limit)] if limit else []))
