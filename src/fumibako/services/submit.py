"""Mail from people with a login: sent in their own name only, and completed to what a message must be.

Specification: RFC 6409 §6.1 (submission rights), §8 (what may be added and changed); RFC 5322 §3.6 (Date, From, Message-ID).
Contract: MAIL FROM, From, Sender and their Resent- kin are addresses of the login; exactly one From. Date and Message-ID
    are added where they are missing, Bcc and Return-Path are taken out. Line ends are made CRLF.
Failure: see services.intake.
"""

from __future__ import annotations

from fumibako.model.account import Account
from fumibako.model.address import join_address
from fumibako.model.envelope import Envelope, Peer
from fumibako.model.verdict import Verdict
from fumibako.proto.message.address import Address, parse_addresses
from fumibako.proto.message.header import field_values, fields, format_date
from fumibako.proto.smtp.transparency import NewlineNormaliser
from fumibako.services.intake import Framing, House, Transaction
from fumibako.services.pipeline import refuse
from fumibako.services.policy import Policy

_REMOVED = frozenset({b"bcc", b"resent-bcc", b"return-path"})
_IDENTITIES = (b"From", b"Sender", b"Resent-From", b"Resent-Sender")


class Submitter:
    """For ports 587 and 465."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def policy(self) -> Policy:
        """The live settings, for one connection."""
        return Policy(await self._house.store.settings(""))

    def open(self, policy: Policy, peer: Peer, envelope: Envelope, account: Account, *, declared_octets: int = 0) -> Transaction:
        """A transaction of a login; peer.account_id is the account's."""
        return _Outbound(self._house, policy, peer, envelope, account, declared_octets=declared_octets)


class _Outbound(Transaction):
    def __init__(self, house: House, policy: Policy, peer: Peer, envelope: Envelope, account: Account, *,
                 declared_octets: int) -> None:
        super().__init__(house, policy, peer, envelope, declared_octets=declared_octets)
        self._account = account
        self._newlines = NewlineNormaliser()

    async def begin(self) -> Verdict:
        verdict = await super().begin()
        path = self.envelope.reverse_path
        # The null path is what disposition notifications are sent with (RFC 8098 §2.1).
        if verdict.refused or not path or await self.house.directory.owns(self._account, path):
            return verdict
        return self._told(refuse("sender-not-owned", address=path), "sender")

    def write(self, octets: bytes) -> None:
        super().write(self._newlines.feed(octets))

    async def finish(self, framing: Framing) -> list[Verdict]:
        super().write(self._newlines.close())
        # Bare line ends and NUL are mended by now; a program that writes them is no attack when it has logged in.
        return await super().finish(Framing(framing.size_octets, too_big=framing.too_big))

    def edit_header(self, header: bytes) -> bytes:
        return completed(header, self.trace_id.hex(), self.house.hostname, self._date())

    def _date(self) -> str:
        now_ms = self.house.clock.now_ms()
        return format_date(now_ms, self.house.clock.utc_offset_minutes(now_ms))

    async def check_header(self, header: bytes) -> Verdict:
        if len(field_values(header, b"From")) != 1:
            return refuse("one-from-field")
        for name in _IDENTITIES:
            for value in field_values(header, name):
                addresses = [sender_address(entry) for entry in parse_addresses(value)]
                if not addresses or "" in addresses:
                    return refuse("one-from-field")
                for address in addresses:
                    if not await self.house.directory.owns(self._account, address):
                        return refuse("sender-not-owned", address=address)
        return Verdict()


def sender_address(entry: Address) -> str:
    """The address of a mailbox in a From-like field; "" for a group and for what can't be read."""
    if not entry.mailbox or not entry.host:
        return ""
    try:
        return join_address(entry.mailbox.decode("utf-8"), entry.host.decode("utf-8"))
    except UnicodeDecodeError:
        return ""


def completed(header: bytes, identity: str, hostname: str, date: str) -> bytes:
    """The header section without Bcc and Return-Path, with Date and Message-ID (RFC 6409 §8)."""
    found = list(fields(header))
    names = {field.name.lower() for field in found}
    added = b"" if b"message-id" in names else f"Message-ID: <{identity}@{hostname}>\r\n".encode("ascii")
    added += b"" if b"date" in names else f"Date: {date}\r\n".encode("ascii")
    kept = [header[field.start : field.end] for field in found if field.name.lower() not in _REMOVED]
    return added + b"".join(kept) + (header[found[-1].end :] if found else header)
