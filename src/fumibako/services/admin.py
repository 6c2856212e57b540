"""Every administrator's verb, once: the command line, the HTTP API and the console call these.

Contract: names and addresses are checked and brought to their stored form here; when a verb returns, it holds.
Failure: `AdminError` with a catalogue text for the person; StoreUnavailable passes through.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fumibako.model.account import Account, AccountStatus, Alias, Domain, Hold, PasswordRecord, Setting
from fumibako.model.address import address_key, domain_of, split_address
from fumibako.model.ids import AccountId, MailboxId, ModSeq, QueueId
from fumibako.model.mailbox import DEFAULT_MAILBOXES, INBOX, Mailbox, Quota
from fumibako.model.ops import (
    AccountMade,
    AddAccount,
    AddAlias,
    AddDomain,
    AddHold,
    AliasMade,
    ChangeQueue,
    Counted,
    DomainMade,
    DrainOutbox,
    Operation,
    QueueAction,
    Refusal,
    RemoveAccount,
    RemoveAlias,
    RemoveDomain,
    RemoveHold,
    Result,
    SetAccountStatus,
    SetPassword,
    SetSetting,
    SettingMade,
    UnsetSetting,
)
from fumibako.model.queue import QueueItem
from fumibako.proto.dns.records import InvalidDomain, ascii_domain
from fumibako.services.policy import SETTINGS, SettingError, parse_setting
from fumibako.services.recovery import ExpungedMessage, expunged_messages, recover_messages
from fumibako.services.texts import N_
from fumibako.store.base import Store, StoreRefused, expect

GATHERED = 10_000       # messages at once

log = logging.getLogger("fumibako.admin")

_LOCAL_PART = re.compile(r"[^\s\x00-\x1f\x7f<>]{1,256}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")

# What a refusal of the store means to the person who gave the command.
REFUSALS: dict[Refusal, str] = {
    Refusal.EXISTS: N_("{name} exists already"),
    Refusal.NO_SUCH_DOMAIN: N_("{name}: this server does not host that domain; add it with: fumibako domain add {domain}"),
    Refusal.NO_SUCH_ACCOUNT: N_("{name}: there is no such account"),
    Refusal.NO_SUCH_ADDRESS: N_("{name}: there is no such address"),
    Refusal.NO_SUCH_SETTING: N_("{name} is not set"),
    Refusal.NO_SUCH_HOLD: N_("{name} has no such hold"),
    Refusal.OVER_QUOTA: N_("{name}: that does not fit the quota"),
    Refusal.IN_USE: N_("{name} is in use: it still has accounts or aliases"),
    Refusal.BAD_NAME: N_("{name} is not a valid name"),
    Refusal.FROZEN: N_("{name} is being moved; try again later"),
    Refusal.LIMIT: N_("{name}: a limit is reached"),
    Refusal.DISK_FULL: N_("the disk is full, and nothing was changed; free some space on it and try again"),
    Refusal.NO_FILES: N_("the server may open no more files, and nothing was changed; raise LimitNOFILE (ulimit -n), or try "
                         "again later"),
    Refusal.LOCKED: N_("another program has locked a database of the server, and nothing was changed; end it and try again"),
    Refusal.DISK_ERROR: N_("the disk failed, and nothing was changed; look at the system's log"),
}


class AdminError(Exception):
    """problem: catalogue text with {named} fields."""

    def __init__(self, problem: str, **values: object) -> None:
        super().__init__(problem.format(**values))
        self.problem, self.values = problem, values


@dataclass(frozen=True, slots=True)
class AccountDetail:
    """opened False: nobody has logged in and no mail has come, so that `mailboxes` are those that will be made then."""

    account: Account
    quota: Quota
    mailboxes: list[Mailbox]
    holds: list[Hold]
    recoverable_messages: int       # expunged, outside the quota, kept for a while
    recoverable_octets: int
    opened: bool = True


def domain_name(text: str) -> str:
    """"例え.JP" -> "xn--r8jz45g.jp": the A-label form under which a domain is stored."""
    try:
        name = ascii_domain(text.strip())
    except InvalidDomain:
        name = ""
    if not _DOMAIN.fullmatch(name):
        raise AdminError(N_("{name} is not a domain name"), name=text)
    return name


def mail_address(text: str) -> str:
    """"Alice@Example.JP" -> "Alice@example.jp"; the local part stays as written."""
    local, _, domain = text.strip().rpartition("@")
    if not local or not _LOCAL_PART.fullmatch(local):
        raise AdminError(N_("{name} is not a mail address"), name=text)
    address = f"{local}@{domain_name(domain)}"
    try:
        split_address(address)
    except ValueError:
        raise AdminError(N_("{name} is not a mail address"), name=text) from None
    return address


class Admin:
    """store: of any kind; make_password: services.login's, off the loop."""

    def __init__(self, store: Store, make_password: Callable[[str], Awaitable[PasswordRecord]]) -> None:
        self._store, self._make_password = store, make_password

    async def _commit(self, operation: Operation, name: str) -> Result:
        try:
            return await self._store.commit(operation)
        except StoreRefused as error:
            raise _refused(error, name) from None

    # -- domains --

    async def add_domain(self, text: str) -> Domain:
        name = domain_name(text)
        return expect(await self._commit(AddDomain(name), name), DomainMade).domain

    async def domain(self, text: str) -> Domain:
        name = domain_name(text)
        if (found := await self._store.domain(name)) is None:
            raise AdminError(REFUSALS[Refusal.NO_SUCH_DOMAIN], name=name, domain=name)
        return found

    async def domains(self) -> list[Domain]:
        return await self._store.domains()

    async def remove_domain(self, text: str) -> None:
        name = domain_name(text)
        await self._commit(RemoveDomain(name), name)

    # -- accounts --

    async def add_account(self, text: str, password: str, quota_limit_octets: int = 0, display_name: str = "") -> Account:
        address = mail_address(text)
        await self.domain(domain_of(address))
        record = await self._make_password(_checked_password(password))
        made = await self._commit(AddAccount(address, record, quota_limit_octets, display_name), address)
        return expect(made, AccountMade).account

    async def accounts(self, domain: str = "") -> list[Account]:
        return await self._store.accounts(domain_name(domain) if domain else "")

    async def account(self, text: str) -> AccountDetail:
        found = await self._account(text)
        mailboxes = await self._store.mailboxes(found.id)
        kept = await self._store.recoverable(found.id)
        holds = [hold for hold in await self._store.holds() if hold.account_id == found.id]
        recoverable = len(kept), sum(one.entry.size_octets for one in kept)
        if not mailboxes:
            unused = Quota(0, found.quota_limit_octets, 0)
            return AccountDetail(found, unused, _to_be_made(found.id), holds, *recoverable, opened=False)
        return AccountDetail(found, await self._store.quota(found.id), mailboxes, holds, *recoverable)

    async def change_password(self, text: str, password: str) -> None:
        address = mail_address(text)
        await self._account(address)
        record = await self._make_password(_checked_password(password))
        await self._commit(SetPassword(address_key(address), record), address)

    async def change_status(self, text: str, status: AccountStatus) -> None:
        address = mail_address(text)
        await self._commit(SetAccountStatus(address_key(address), status), address)

    async def remove_account(self, text: str) -> None:
        address = mail_address(text)
        await self._commit(RemoveAccount(address_key(address)), address)

    async def _account(self, text: str) -> Account:
        address = mail_address(text)
        if (found := await self._store.account(address_key(address))) is None:
            raise AdminError(REFUSALS[Refusal.NO_SUCH_ACCOUNT], name=address)
        return found

    # -- what an account must not lose, or wants back --

    async def recoverable(self, text: str, since_ms: int = 0) -> list[ExpungedMessage]:
        """What was expunged at `since_ms` or later and is still kept."""
        return await expunged_messages(self._store, await self._account(text), since_ms)

    async def recover(self, text: str, mailbox: str, since_ms: int = 0) -> int:
        """Put all that into a mailbox, which is made where it is missing; how many messages."""
        account = await self._account(text)
        try:
            return await recover_messages(self._store, account, mailbox, since_ms)
        except StoreRefused as error:
            raise _refused(error, mailbox if error.refusal is Refusal.BAD_NAME else account.address) from None

    async def holds(self) -> list[Hold]:
        """Of removed accounts, too."""
        return await self._store.holds()

    async def hold(self, text: str, reason: str = "") -> None:
        address = mail_address(text)
        await self._commit(AddHold(address_key(address), reason), address)

    async def release(self, text: str, reason: str | None = None) -> int:
        """reason None: every hold. How many there were."""
        address = mail_address(text)
        return expect(await self._commit(RemoveHold(address_key(address), reason), address), Counted).count

    # -- aliases --

    async def add_alias(self, text: str, targets: tuple[str, ...]) -> Alias:
        address = _alias_address(text)
        checked = tuple(mail_address(target) for target in targets)
        return expect(await self._commit(AddAlias(address, checked), address), AliasMade).alias

    async def aliases(self, domain: str = "") -> list[Alias]:
        return await self._store.aliases(domain_name(domain) if domain else "")

    async def remove_alias(self, text: str, targets: tuple[str, ...] = ()) -> None:
        address = _alias_address(text)
        await self._commit(RemoveAlias(address, tuple(mail_address(target) for target in targets)), address)

    # -- policy --

    async def settings(self) -> list[Setting]:
        return await self._store.settings()

    async def set_setting(self, key: str, value: str, scope: str = "") -> Setting:
        if key not in SETTINGS:
            raise AdminError(N_("{name}: there is no such setting; see: fumibako policy list"), name=key)
        try:
            parse_setting(key, value)
        except SettingError as error:
            raise AdminError(N_("{name} = {value}: allowed is {allowed}"), name=key, value=value, allowed=error.allowed) from None
        return expect(await self._commit(SetSetting(key, scope, value), key), SettingMade).setting

    async def unset_setting(self, key: str, scope: str = "") -> None:
        await self._commit(UnsetSetting(key, scope), key)

    # -- queue --

    async def _gather(self) -> None:
        """What deliveries have caused is in the queue before anybody looks at it or changes it."""
        try:
            await self._store.commit(DrainOutbox(GATHERED))
        except StoreRefused as error:       # the disk is full: what is there can still be shown and deleted
            log.warning("some mail waits outside the queue: %s", error)

    async def queue(self, domain: str = "") -> list[QueueItem]:
        await self._gather()
        return await self._store.queue_items(domain_name(domain) if domain else "")

    async def queue_item(self, queue_id: int) -> QueueItem:
        if (found := await self._store.queue_item(QueueId(queue_id))) is None:
            raise AdminError(N_("{name}: there is no such message in the queue"), name=queue_id)
        return found

    async def change_queue(self, action: QueueAction, queue_ids: tuple[int, ...], now_ms: int) -> int:
        """queue_ids empty: every message. Returns how many messages were changed."""
        await self._gather()
        operation = ChangeQueue(action, tuple(QueueId(one) for one in queue_ids), now_ms)
        return expect(await self._commit(operation, str(action)), Counted).count


def _to_be_made(account_id: AccountId) -> list[Mailbox]:
    """In the order of Store.mailboxes."""
    in_order = sorted(DEFAULT_MAILBOXES, key=lambda one: (one[0] != INBOX, one[0]))
    return [Mailbox(account_id, MailboxId(0), name, 0, 1, ModSeq(0), 0, 0, 0, 0, use) for name, use in in_order]


def _refused(error: StoreRefused, name: str) -> AdminError:
    problem = REFUSALS.get(error.refusal, N_("{name}: refused: {detail}"))
    domain = domain_of(name) if "@" in name else name
    return AdminError(problem, name=name, domain=domain, detail=str(error))


def _alias_address(text: str) -> str:
    """An address, or "@example.jp" for every address of the domain that nobody else has."""
    if text.startswith("@"):
        return f"@{domain_name(text[1:])}"
    return address_key(mail_address(text))


def _checked_password(password: str) -> str:
    if not password or len(password) > 1_000 or any(ord(one) < 32 for one in password):
        raise AdminError(N_("a password has 1 to 1,000 characters and no control characters"))
    return password
