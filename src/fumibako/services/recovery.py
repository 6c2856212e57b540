"""Expunged mail: what an account could have back, told so that a person knows it again, and the way back.

Contract: nothing is recovered where not all of it fits the quota; beyond that it is done in pieces of BATCH_UIDS messages.
Failure: StoreRefused; StoreUnavailable: some pieces may be done, and doing it again does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from fumibako.model.account import Account
from fumibako.model.ids import EmailId
from fumibako.model.mailbox import Recoverable
from fumibako.model.ops import Recover, Recovered, Refusal
from fumibako.services.message_access import MessageAccess
from fumibako.store.base import BATCH_UIDS, Store, StoreRefused, expect


@dataclass(frozen=True, slots=True)
class ExpungedMessage:
    """subject and sender: decoded, "" where the message has none or can't be read; times are ms UTC."""

    email_id: EmailId
    subject: str
    sender: str
    size_octets: int
    internal_date: int
    expunged_ms: int
    purge_after_ms: int


async def expunged_messages(store: Store, account: Account, since_ms: int) -> list[ExpungedMessage]:
    """Those expunged at `since_ms` or later, in that order."""
    kept = await _since(store, account, since_ms)
    access, found = MessageAccess(store, account.id), []
    for start in range(0, len(kept), BATCH_UIDS):
        batch = kept[start : start + BATCH_UIDS]
        indexes = await access.indexes([one.entry for one in batch])
        for one in batch:
            index = indexes.get(one.entry.email_id)
            subject, sender = (index.text("subject"), index.text("from")) if index else ("", "")
            found.append(ExpungedMessage(one.entry.email_id, subject.strip(), sender.strip(), one.entry.size_octets,
                                         one.entry.internal_date, one.expunged_ms, one.purge_after_ms))
    return found


async def recover_messages(store: Store, account: Account, mailbox: str, since_ms: int) -> int:
    """Put them into the mailbox, which is made where it is missing; how many there were."""
    kept, limit = await _since(store, account, since_ms), account.quota_limit_octets
    if limit and kept:
        used = (await store.quota(account.id)).used_octets + sum(one.entry.size_octets for one in kept)
        if used > limit:
            raise StoreRefused(Refusal.OVER_QUOTA, f"{used} of {limit} octets")
    count = 0
    for start in range(0, len(kept), BATCH_UIDS):
        emails = tuple(one.entry.email_id for one in kept[start : start + BATCH_UIDS])
        count += len(expect(await store.commit(Recover(account.id, emails, mailbox, limit)), Recovered).uids)
    return count


async def _since(store: Store, account: Account, since_ms: int) -> list[Recoverable]:
    return [one for one in await store.recoverable(account.id) if one.expunged_ms >= since_ms]
