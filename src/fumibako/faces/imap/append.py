"""APPEND: messages a client brings, one or several, there all at once.

Specification: RFC 9051 §6.3.12; RFC 3502 (MULTIAPPEND); RFC 4315 §3 (APPENDUID); RFC 7888 §4 (refusing a literal).
Contract: the target is looked up and a message over the quota refused before its octets are asked for.
Failure: `Declined` and StoreRefused are answered by the session, which then calls `abandon`.
"""

from __future__ import annotations

import math

from fumibako.faces.imap.conversation import Answer, Conversation, Declined, refused
from fumibako.model.ops import Refusal
from fumibako.net.stream import RateFloor
from fumibako.proto.imap import commands as c
from fumibako.proto.imap.format import code_append_uid
from fumibako.services.appending import Appending
from fumibako.services.mailboxes import StoreRefused

GRACE_S = 180.0     # before the least rate holds: the client may have to read the message first


class Append:
    """The APPEND a connection is in, if any."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk
        self._appending: Appending | None = None
        self._rate: RateFloor | None = None
        self._received_octets = 0

    @property
    def remaining_s(self) -> float:
        """How long the next octets of a message may take, so that none comes drop by drop; infinite where none is due."""
        if self._rate is None:
            return math.inf
        return max(0.0, self._rate.remaining_s(self._talk.services.clock.monotonic_s(), self._received_octets))

    async def begin(self, command: c.Append) -> None:
        """A message is announced: asks for it."""
        if self._appending is None:
            self._appending = await self._open(command)
        self._appending.begin(command.flags, command.internal_date)
        self._rate = RateFloor(self._talk.services.clock.monotonic_s(), grace_s=GRACE_S)
        self._received_octets = 0
        self._talk.core.continue_()

    async def _open(self, command: c.Append) -> Appending:
        visit = self._talk.visit
        try:
            mailbox = await visit.find(command.mailbox)
        except StoreRefused as error:
            answer = refused(error.refusal, try_create=True)
            raise Declined(answer.text, answer.code) from None
        quota = await visit.quota()
        if quota.limit_octets and quota.used_octets + command.size_octets > quota.limit_octets:
            raise StoreRefused(Refusal.OVER_QUOTA)
        return visit.append(mailbox)

    def write(self, data: c.AppendData) -> None:
        self._received_octets += len(data.octets)
        if self._appending is not None:
            self._appending.write(data.octets)

    async def end(self, end: c.AppendEnd) -> Answer | None:
        """None: another message of the same APPEND follows."""
        if (appending := self._appending) is None:
            raise RuntimeError("a message ends that did not begin")
        self._rate = None
        await appending.end()
        if end.more:
            return None
        self._appending = None
        try:
            placed = (await appending.commit()).placed
        except StoreRefused as error:
            return refused(error.refusal, try_create=True)
        return Answer("APPEND completed", code_append_uid(placed[0].uid_validity, [place.uid for place in placed]))

    def abandon(self) -> None:
        appending, self._appending, self._rate = self._appending, None, None
        if appending is not None:
            appending.abandon()
