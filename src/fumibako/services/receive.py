"""Mail from other servers: taken for our own addresses only, stored as it came but for two forgeable fields.

Specification: RFC 5321 §3.6.1 (relaying), §4.4 (Return-Path at final delivery); RFC 8601 §5 (removing existing
    Authentication-Results fields).
Contract: an inbound message is stored octet by octet as it was sent, minus Return-Path fields and Authentication-Results
    fields that claim to be ours.
Failure: see services.intake.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable

from fumibako.model.envelope import Envelope, Peer
from fumibako.proto.message.header import HeaderField, fields, unfold
from fumibako.services.following import Following
from fumibako.services.intake import House, Transaction
from fumibako.services.policy import Policy

_MAY_BE_FORGED = re.compile(rb"(?i)return-path|authentication-results")     # most headers need no closer look
# authres-header-field = "Authentication-Results:" [CFWS] authserv-id ...: RFC 8601 §2.2
_AUTHSERV_ID = re.compile(rb'[\s]*(?:\([^()]*\)[\s]*)*"?([^\s;"()]+)')


class Receiver:
    """For port 25 and LMTP."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._policy = Following("the settings", house.store.directory_version, self._read_policy, Policy())

    def policy(self) -> Policy | Awaitable[Policy]:
        """The live settings, for one connection."""
        return self._policy.current()

    async def _read_policy(self) -> Policy:
        return Policy(await self._house.store.settings(""))

    def open(self, policy: Policy, peer: Peer, envelope: Envelope, *,
             declared_octets: int = 0, one_reply_each: bool = False) -> Transaction:
        """A transaction; ask its begin() before anything else."""
        return _Inbound(self._house, policy, peer, envelope, declared_octets=declared_octets, one_reply_each=one_reply_each)


class _Inbound(Transaction):
    def edit_header(self, header: bytes) -> bytes:
        return without_forgeries(header, self.house.hostname)


def without_forgeries(header: bytes, authserv_id: str) -> bytes:
    """The header section without Return-Path, and without Authentication-Results in the name of authserv_id."""
    if not _MAY_BE_FORGED.search(header):
        return header
    own = authserv_id.lower().encode("ascii")
    found = list(fields(header))
    kept = [field for field in found if not _is_forgery(field, own)]
    if len(kept) == len(found):
        return header
    end = found[-1].end
    return b"".join(header[field.start : field.end] for field in kept) + header[end:]


def _is_forgery(field: HeaderField, own: bytes) -> bool:
    name = field.name.lower()
    if name == b"return-path":
        return True
    if name != b"authentication-results":
        return False
    claimed = _AUTHSERV_ID.match(unfold(field.value_raw))
    return claimed is not None and claimed[1].lower() == own
