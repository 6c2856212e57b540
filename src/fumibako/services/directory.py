"""Who an address is: an account here, an alias for others, somebody elsewhere, or nobody.

Specification: RFC 5321 §4.5.1 (postmaster), §2.4 (the local part belongs to its domain), §4.1.3 (address literals),
    §7.7 and §3.6.1 (relaying); RFC 2142 §4 (abuse, postmaster).
Contract: the directory is read at every question, never cached (DESIGN §4). A local part is only ever compared as a whole:
    source routes, `user%remote` and `remote!user` are names like any other, so none of them relays.
Failure: `StoreUnavailable` from the store; everything else is a value.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field

from fumibako.model.account import Account, AccountStatus, Alias
from fumibako.model.address import address_key, join_address, split_address
from fumibako.store.base import Directory as Records

ALIAS_DEPTH = 10
ALIAS_TARGETS = 1_000
ROLES = ("postmaster", "abuse")


class Absence(enum.StrEnum):
    """Why nobody gets mail for an address of ours."""

    NO_SUCH_MAILBOX = "no such mailbox"
    DISABLED = "disabled"
    FROZEN = "frozen"
    ALIAS_LOOP = "alias loop"
    BAD_ADDRESS = "bad address"


@dataclass(frozen=True, slots=True)
class Local:
    """An account; address is its key, which with a trace_id makes delivery exactly-once."""

    account: Account
    address: str


@dataclass(frozen=True, slots=True)
class Remote:
    """An address of a domain we do not host."""

    address: str


@dataclass(frozen=True, slots=True)
class Hosted:
    """An address of ours and who gets its mail: at least one target; a Remote among them is a forward."""

    targets: tuple[Local | Remote, ...]


@dataclass(frozen=True, slots=True)
class Nobody:
    """An address of ours that takes no mail."""

    why: Absence


Resolution = Hosted | Remote | Nobody


class Directory:
    """hostname: this server's name; own_addresses: its IP addresses, for `postmaster@[192.0.2.1]`."""

    def __init__(self, records: Records, hostname: str, own_addresses: frozenset[str] = frozenset()) -> None:
        self._records = records
        self.rename(hostname, own_addresses)

    def rename(self, hostname: str, own_addresses: frozenset[str]) -> None:
        """The server is called otherwise from now on."""
        self._hostname, self._own_addresses = hostname.lower(), own_addresses

    async def resolve(self, forward_path: str) -> Resolution:
        """forward_path: of RCPT, an alias target, or a reverse_path a DSN goes to; without angle brackets."""
        if forward_path.lower() in ROLES:
            return await self._role(forward_path.lower(), await self._own_domain())
        try:
            local_part, domain = split_address(forward_path)
        except ValueError:
            return Nobody(Absence.BAD_ADDRESS)
        if domain.startswith("["):
            return await self._literal(forward_path, local_part, domain)
        if (account := await self._records.account(address_key(forward_path))) is not None:
            return _only(account)
        alias = await self._alias(forward_path)
        if alias is not None:
            return await self._expand(alias)
        if await self._records.domain(domain) is None:
            return Remote(forward_path)
        return await self._role(local_part.lower(), domain)

    async def owns(self, account: Account, address: str) -> bool:
        """Whether the account may send as that address: its own, or one whose mail it gets."""
        try:
            if address_key(address) == address_key(account.address):
                return True
        except ValueError:
            return False
        resolution = await self.resolve(address)
        return isinstance(resolution, Hosted) and any(
            isinstance(target, Local) and target.account.id == account.id for target in resolution.targets
        )

    async def account(self, authcid: str) -> Account | None:
        """The account of a login name: its address, or its local part alone where only one domain is hosted."""
        name = authcid
        if "@" not in authcid:
            domains = await self._records.domains()
            if len(domains) != 1 or not authcid:
                return None
            name = join_address(authcid, domains[0].name)
        try:
            return await self._records.account(address_key(name))
        except ValueError:
            return None

    async def _alias(self, address: str) -> Alias | None:
        """The alias of an address, or the catch-all of its domain."""
        if (alias := await self._records.alias(address_key(address))) is not None:
            return alias
        local_part, domain = split_address(address)
        # RFC 5321 §4.5.1: postmaster reaches a person even where a catch-all takes everything.
        return await self._records.alias(f"@{domain}") if local_part.lower() not in ROLES else None

    async def _expand(self, alias: Alias) -> Resolution:
        expansion = _Expansion({address_key(alias.address) if not alias.address.startswith("@") else alias.address})
        expansion.add(alias, 1)
        while expansion.pending:
            address, depth = expansion.pending.popleft()
            if (account := await self._records.account(address_key(address))) is not None:
                expansion.settle(_only(account))
            elif (inner := await self._alias(address)) is not None:
                if depth >= ALIAS_DEPTH or len(expansion.seen) > ALIAS_TARGETS:
                    return Nobody(Absence.ALIAS_LOOP)
                expansion.add(inner, depth + 1)
            elif await self._records.domain(split_address(address)[1]) is None:
                expansion.settle(Remote(address))
            else:
                expansion.settle(Nobody(Absence.NO_SUCH_MAILBOX))
        return expansion.result()

    async def _literal(self, address: str, local_part: str, domain: str) -> Resolution:
        if domain[1:-1].removeprefix("ipv6:") not in self._own_addresses:
            return Remote(address)
        if local_part.lower() in ROLES:
            return await self._role(local_part.lower(), await self._own_domain())
        return Nobody(Absence.NO_SUCH_MAILBOX)

    async def _role(self, local_part: str, domain: str) -> Resolution:
        """postmaster and abuse always reach somebody: their account or alias, else the domain's oldest active account."""
        if local_part not in ROLES or not domain:
            return Nobody(Absence.NO_SUCH_MAILBOX)
        address = f"{local_part}@{domain}"
        if (account := await self._records.account(address)) is not None and account.status is AccountStatus.ACTIVE:
            return _only(account)
        if (alias := await self._records.alias(address)) is not None:
            return await self._expand(alias)
        people = await self._records.accounts(domain) or await self._records.accounts()
        active = [account for account in people if account.status is AccountStatus.ACTIVE]
        return _only(min(active, key=lambda account: account.id)) if active else Nobody(Absence.NO_SUCH_MAILBOX)

    async def _own_domain(self) -> str:
        """The hosted domain this host's name lies in, else the first hosted one; "" where there is none."""
        names = [domain.name for domain in await self._records.domains()]
        inside = [name for name in names if self._hostname == name or self._hostname.endswith(f".{name}")]
        return max(inside, key=len) if inside else names[0] if names else ""


@dataclass(slots=True)
class _Expansion:
    """The walk through nested aliases, breadth first, each address once."""

    seen: set[str]
    pending: deque[tuple[str, int]] = field(default_factory=deque)
    targets: dict[str, Local | Remote] = field(default_factory=dict)
    absences: list[Absence] = field(default_factory=list)

    def add(self, alias: Alias, depth: int) -> None:
        for target in alias.targets:
            try:
                key = address_key(target)
            except ValueError:
                self.absences.append(Absence.BAD_ADDRESS)
                continue
            if key not in self.seen:
                self.seen.add(key)
                self.pending.append((target, depth))

    def settle(self, resolution: Resolution) -> None:
        match resolution:
            case Remote(address):
                self.targets[address_key(address)] = resolution
            case Hosted(targets):
                self.targets |= {address_key(target.address): target for target in targets}
            case Nobody(why):
                self.absences.append(why)

    def result(self) -> Resolution:
        """A frozen target defers all, lest the others get the mail again at the retry; other absent targets are passed over."""
        if Absence.FROZEN in self.absences:
            return Nobody(Absence.FROZEN)
        if self.targets:
            return Hosted(tuple(self.targets.values()))
        return Nobody(self.absences[0] if self.absences else Absence.ALIAS_LOOP)


def _only(account: Account) -> Hosted | Nobody:
    match account.status:
        case AccountStatus.ACTIVE:
            return Hosted((Local(account, address_key(account.address)),))
        case AccountStatus.DISABLED:
            return Nobody(Absence.DISABLED)
        case AccountStatus.FROZEN:
            return Nobody(Absence.FROZEN)
