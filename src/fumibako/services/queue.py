"""The queue runner: takes what is due, hands it to its target, records what came of it, and writes to the sender.

Specification: RFC 5321 §4.5.4.1 (retries, per-destination restraint), §4.5.3.1.8 (100 recipients at once);
    RFC 3461 §5.2.3-§5.2.6, §6 (who is notified when).
Contract: outcomes and the notices they cause are one commit. Many messages at once, few to one destination; a destination
    that can't be reached rests a minute, and nothing else waits for it. What was in hand at a crash is due again when
    the next runner begins; at an orderly stop it is given back. Retries go by time that passes: when somebody sets the
    clock, what waits is moved along, so that it comes neither all at once nor never, and nothing is given up for it.
Failure: a bug in a target defers the recipients at hand and is logged, a bug elsewhere leaves them in hand until their lease
    runs out; nothing else waits. While the store is away the runner waits, and outcomes are kept until it is back or the
    lease ends: a Settle is keyed, so it may be sent again (docs/decisions/0005).
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from fumibako.model.change import Notice, Rang
from fumibako.model.envelope import Notify
from fumibako.model.ops import (
    PASSING,
    DrainOutbox,
    Lease,
    Leased,
    RecipientOutcome,
    ReclaimLeases,
    Settle,
    ShiftQueue,
    WatchQueue,
)
from fumibako.model.queue import (
    DELAY_WARNING_MS,
    MINUTE_MS,
    Outcome,
    OutcomeKind,
    QueuedRecipient,
    QueueItem,
    next_attempt_ms,
)
from fumibako.net.clock import WallWatch
from fumibako.proto.message.dsn import Action
from fumibako.services.dsn import Notifier, Report
from fumibako.services.intake import House
from fumibako.store.base import StoreRefused, StoreUnavailable, expect

LEASE_MS = 15 * MINUTE_MS
ATTEMPT_S = 14 * 60.0           # an attempt ends before its lease does
MESSAGES_MAX = 500              # in hand at once
LEASED_AT_ONCE = 50
ATTEMPTS_MAX = 50               # conversations with other servers at once
PER_DESTINATION = 5
RECIPIENTS_PER_ATTEMPT = 100
REST_S = 60.0                   # of a destination that could not be reached
POLL_S = 1.0                    # the doorbell is hung anew: a storage process that restarted knows nothing of it
AGAIN_S, AGAIN_MAX_S = 0.1, 5.0 # between two tries to record an outcome; doubled each time
LOCAL = ""                      # the destination of our own accounts

CROWDED = Outcome(OutcomeKind.DEFERRED, "4.4.5", "too much mail waits for this destination")
STOPPED = Outcome(OutcomeKind.DEFERRED, "4.3.2", "the server stopped during the attempt")

T = TypeVar("T")

log = logging.getLogger("fumibako.queue")


class Target(Protocol):
    """Somebody who takes a message for recipients of one destination."""

    async def deliver(self, item: QueueItem, recipients: tuple[QueuedRecipient, ...]) -> dict[int, Outcome]:
        """One attempt: an Outcome for each recipient id."""


class Relaying(Target, Protocol):
    """The target for other domains; it may keep connections open between messages."""

    async def close_idle(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """Recipients of one message that go to one destination together. set_by_ms: WallWatch's, when it was leased: the item's
    times are of then."""

    item: QueueItem
    destination: str
    recipients: tuple[QueuedRecipient, ...]
    set_by_ms: int

    @property
    def until_ms(self) -> int:
        """The end of the lease: then another attempt begins."""
        return min(recipient.due_ms for recipient in self.recipients)


class QueueRunner:
    """One for the whole server."""

    def __init__(self, house: House, notifier: Notifier, *, local: Target, relay: Relaying) -> None:
        self._store, self._clock, self._trace, self._doorbell = house.store, house.clock, house.trace, house.doorbell
        self._notifier, self._local, self._relay = notifier, local, relay
        self._relays_before: list[Relaying] = []
        self._messages = 0
        self._took_over = False         # the leases of the runner before this one
        self._attempts = asyncio.Semaphore(ATTEMPTS_MAX)
        self._lanes: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(PER_DESTINATION))
        self._waiting: defaultdict[str, int] = defaultdict(int)         # attempts in or before a lane
        self._resting: dict[str, tuple[float, Outcome]] = {}            # destination -> until when (monotonic), and why
        self._wall = WallWatch(house.clock)
        self._shifted_ms = 0            # of what the clock was set by, the queue knows so much

    async def run(self) -> None:
        """For ever."""
        deafen = self._store.listen(self._hear)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._doorbell.clear()
                    leased = await self._look()
                    for item in leased.items:
                        self._messages += 1
                        group.create_task(self._work(item))
                    if len(leased.items) < LEASED_AT_ONCE:
                        await self._pause(leased.next_due_ms)
        finally:
            deafen()

    def change(self, notifier: Notifier, relay: Relaying) -> None:
        """Attempts from now on go this way; those under way end as they began."""
        self._relays_before.append(self._relay)
        self._notifier, self._relay = notifier, relay

    async def step(self) -> int:
        """One round: everything due now is attempted once. How many messages that were."""
        leased = await self._lease()
        async with asyncio.TaskGroup() as group:
            for item in leased.items:
                self._messages += 1
                group.create_task(self._work(item))
        await self._close_idle()
        return len(leased.items)

    async def _close_idle(self) -> None:
        """Nothing is in hand: no connection is needed, and no relay but the present one."""
        for relay in (self._relay, *self._relays_before):
            await relay.close_idle()
        self._relays_before.clear()

    # -- what is due --

    def _hear(self, notice: Notice) -> None:
        if isinstance(notice, Rang):
            self._doorbell.set()

    async def _look(self) -> Leased:
        try:
            await self._store.commit(WatchQueue())
            if not self._took_over:
                await self._store.commit(ReclaimLeases(self._wall.now_ms()))
                self._took_over = True
            return await self._lease()
        except (StoreUnavailable, StoreRefused) as error:       # away, or its disk is full
            log.warning("the queue waits for the store: %s", error)
            return Leased((), 0)

    async def _lease(self) -> Leased:
        try:
            await self._store.commit(DrainOutbox())
        except StoreRefused as error:       # what is in the queue already must get out, the more so
            log.warning("an outbox waits for room on the disk: %s", error)
        now_ms = await self._shifted_now_ms()
        self._resting = {domain: rest for domain, rest in self._resting.items() if rest[0] > self._clock.monotonic_s()}
        room = min(LEASED_AT_ONCE, MESSAGES_MAX - self._messages)
        if room <= 0:
            return Leased((), 0)
        busy = [domain for domain, waiting in self._waiting.items() if waiting >= PER_DESTINATION and domain != LOCAL]
        leased = expect(await self._store.commit(Lease(now_ms, LEASE_MS, room, tuple({*busy, *self._resting}))), Leased)
        for item in leased.items:
            for recipient in item.recipients:
                self._resting.pop(recipient.domain, None)       # the administrator wants it tried now
        return leased

    async def _shifted_now_ms(self) -> int:
        """The time now; the queue is of the same time, also where somebody has just set the clock."""
        now_ms = self._wall.now_ms()
        if by_ms := self._wall.set_by_ms - self._shifted_ms:
            log.warning("the clock was set by %+.0f s; what waits in the queue is moved along", by_ms / 1000)
            await self._store.commit(ShiftQueue(by_ms, now_ms, self._wall.unsure_ms))
            self._shifted_ms += by_ms
            self._wall.seen_to()
        return now_ms

    def _item_now_ms(self, attempt: Attempt) -> int:
        """The time now, as the item's own times know it."""
        now_ms = self._wall.now_ms()
        return now_ms - (self._wall.set_by_ms - attempt.set_by_ms)

    async def _pause(self, next_due_ms: int) -> None:
        """Until the doorbell, the next due time, or the poll."""
        wait_s = POLL_S
        if next_due_ms and self._messages < MESSAGES_MAX:
            wait_s = min(POLL_S, max(0.0, (next_due_ms - self._clock.now_ms()) / 1000))
        if not self._messages:
            await self._close_idle()
        try:
            async with asyncio.timeout(wait_s):
                await self._doorbell.wait()
        except TimeoutError:
            pass

    # -- one message --

    async def _work(self, item: QueueItem) -> None:
        set_by_ms = self._shifted_ms
        try:
            async with asyncio.TaskGroup() as group:
                for attempt in await self._attempts_for(item, set_by_ms):
                    group.create_task(self._try(attempt))
        except* StoreUnavailable as error:
            log.warning("message %d waits for the store: %s", item.id, error.exceptions[0])
        except* StoreRefused as error:
            log.error("message %d: the outcome could not be recorded: %s", item.id, error.exceptions[0])
        except* Exception:      # a bug stops this message only; its lease runs out, and after three of those it is set aside
            log.exception("message %d trips over a bug", item.id)
        finally:
            self._messages -= 1
            self._doorbell.set()

    async def _attempts_for(self, item: QueueItem, set_by_ms: int) -> list[Attempt]:
        by_destination: defaultdict[str, list[QueuedRecipient]] = defaultdict(list)
        hosted: dict[str, bool] = {}
        for recipient in item.recipients:
            domain = recipient.domain
            if domain not in hosted:
                hosted[domain] = not domain or await self._store.domain(domain) is not None
            by_destination[LOCAL if hosted[domain] else domain].append(recipient)
        return [
            Attempt(item, destination, tuple(recipients[start : start + RECIPIENTS_PER_ATTEMPT]), set_by_ms)
            for destination, recipients in by_destination.items()
            for start in range(0, len(recipients), RECIPIENTS_PER_ATTEMPT)
        ]

    async def _try(self, attempt: Attempt) -> None:
        outcomes: dict[int, Outcome] = {}
        settle: Settle | None = None
        try:
            outcomes = await self._in_lane(attempt)
            settle = await self._persist(attempt, partial(self._settlement, attempt, outcomes))
            await self._persist(attempt, partial(self._store.commit, settle))
        except asyncio.CancelledError:
            await self._give_back(attempt, outcomes, settle)
            raise
        self._settled(attempt, settle)

    async def _in_lane(self, attempt: Attempt) -> dict[int, Outcome]:
        destination = attempt.destination
        self._waiting[destination] += 1
        try:
            async with self._lanes[destination]:
                return await self._outcomes(attempt)
        finally:
            self._waiting[destination] -= 1
            if not self._waiting[destination]:
                del self._waiting[destination], self._lanes[destination]

    async def _outcomes(self, attempt: Attempt) -> dict[int, Outcome]:
        destination = attempt.destination
        if destination in self._resting and self._resting[destination][0] > self._clock.monotonic_s():
            return self._same(attempt, self._resting[destination][1])
        try:
            if destination == LOCAL:        # never waits for a slow server elsewhere
                return await self._local.deliver(attempt.item, attempt.recipients)
            async with self._attempts, asyncio.timeout(ATTEMPT_S):
                if self._item_now_ms(attempt) > attempt.until_ms - ATTEMPT_S * 1000:
                    return self._same(attempt, CROWDED)
                outcomes = await self._relay.deliver(attempt.item, attempt.recipients)
        except StoreUnavailable:
            raise
        except TimeoutError:
            return self._same(attempt, Outcome(OutcomeKind.DEFERRED, "4.4.2", "the attempt took too long"))
        except OSError as error:        # a file of ours or a descriptor: relays tell of their own in outcomes
            log.warning("message %d is tried again later: %s", attempt.item.id, error)
            return self._same(attempt, Outcome(OutcomeKind.DEFERRED, "4.3.0", "temporary failure of this server"))
        except Exception:
            log.exception("delivery of message %d to %s failed", attempt.item.id, destination or "our accounts")
            return self._same(attempt, Outcome(OutcomeKind.DEFERRED, "4.3.0", "temporary failure of this server"))
        self._note_reachability(destination, outcomes)
        return outcomes

    @staticmethod
    def _same(attempt: Attempt, outcome: Outcome) -> dict[int, Outcome]:
        return {recipient.id: outcome for recipient in attempt.recipients}

    def _note_reachability(self, destination: str, outcomes: dict[int, Outcome]) -> None:
        """RFC 5321 §4.5.4.1: a host that does not answer is left alone for a while, whoever the mail is from."""
        unreachable = [one for one in outcomes.values() if one.kind is OutcomeKind.DEFERRED and one.status.startswith("4.4.")]
        if outcomes and len(unreachable) == len(outcomes):
            self._resting[destination] = (self._clock.monotonic_s() + REST_S, unreachable[0])

    # -- what came of it --

    async def _settlement(self, attempt: Attempt, outcomes: dict[int, Outcome]) -> Settle:
        """What is to be recorded, the notices with it."""
        now_ms = self._item_now_ms(attempt)
        moved_ms = self._wall.set_by_ms - attempt.set_by_ms
        settled: list[RecipientOutcome] = []
        reports: list[Report] = []
        for recipient in attempt.recipients:
            outcome = final_outcome(attempt.item, outcomes[recipient.id], now_ms)
            action = due_report(attempt.item, recipient, outcome, now_ms)
            if action is not None:
                reports.append(Report(recipient, outcome, action))
            due_ms = 0
            if outcome.kind is OutcomeKind.DEFERRED:
                due_ms = next_attempt_ms(recipient.attempts + 1, now_ms, self._clock.random_float())
                due_ms = min(due_ms, max(attempt.item.expires_ms, now_ms))
                due_ms += moved_ms
            settled.append(RecipientOutcome(recipient.id, recipient.attempts, outcome, due_ms, action == "delayed"))
        notices = await self._notifier.notices(attempt.item, reports)
        return Settle(attempt.item.id, tuple(settled), notices)

    async def _persist(self, attempt: Attempt, step: Callable[[], Awaitable[T]]) -> T:
        """Does the step, again and again while the store is away or its disk is full, until the lease ends."""
        wait_s = AGAIN_S
        while True:
            try:
                return await step()
            except (StoreUnavailable, StoreRefused) as error:
                passes = isinstance(error, StoreUnavailable) or error.refusal in PASSING
                is_last = self._item_now_ms(attempt) + wait_s * 1000 >= attempt.until_ms
                if is_last or not passes:
                    raise
                if wait_s == AGAIN_S:
                    log.warning("message %d: its outcome waits for the store: %s", attempt.item.id, error)
            await self._clock.sleep(wait_s)
            wait_s = min(wait_s * 2, AGAIN_MAX_S)

    async def _give_back(self, attempt: Attempt, outcomes: dict[int, Outcome], settle: Settle | None) -> None:
        """The runner stops: what is known is recorded, and what was in hand is due at once for the next."""
        now_ms = self._clock.now_ms()
        unknown = tuple(RecipientOutcome(one.id, one.attempts, one.last or STOPPED, now_ms) for one in attempt.recipients)
        try:
            if settle is None:
                settle = await self._settlement(attempt, outcomes) if outcomes else Settle(attempt.item.id, unknown)
            await self._store.commit(settle)
        except (StoreUnavailable, StoreRefused) as error:
            log.warning("message %d waits until its lease runs out: %s", attempt.item.id, error)
            return
        if outcomes:
            self._settled(attempt, settle)

    def _settled(self, attempt: Attempt, settle: Settle) -> None:
        if settle.notifications:
            self._doorbell.set()
        paths = {recipient.id: recipient.forward_path for recipient in attempt.recipients}
        for one in settle.outcomes:
            outcome = one.outcome
            self._trace.event(
                attempt.item.trace_id, str(outcome.kind), recipient=paths[one.recipient_id], status=outcome.status,
                text=outcome.text, reply=outcome.reply, remote=outcome.remote, next_attempt_ms=one.due_ms,
            )


def final_outcome(item: QueueItem, outcome: Outcome, now_ms: int) -> Outcome:
    """A deferral of a message whose time is up is a failure, told with the last reason."""
    if outcome.kind is not OutcomeKind.DEFERRED or now_ms < item.expires_ms:
        return outcome
    return Outcome(OutcomeKind.FAILED, "5.4.7", f"given up; last: {outcome.status} {outcome.text}", outcome.reply, outcome.remote)


def due_report(item: QueueItem, recipient: QueuedRecipient, outcome: Outcome, now_ms: int) -> Action | None:
    """What the sender is to be told (RFC 3461 §4.1, §5.2): unless asked otherwise, failures and long delays."""
    notify = Notify(recipient.notify)
    if notify & Notify.NEVER:
        return None
    match outcome.kind:
        case OutcomeKind.FAILED:
            return "failed" if not notify or notify & Notify.FAILURE else None
        case OutcomeKind.DEFERRED:
            late = now_ms - item.created_ms >= DELAY_WARNING_MS and not recipient.delay_warned
            return "delayed" if late and (not notify or notify & Notify.DELAY) else None
        case OutcomeKind.RELAYED:
            return "relayed" if notify & Notify.SUCCESS else None
        case OutcomeKind.DELIVERED:
            # RFC 3461 §5.2.1: a next hop that keeps DSN promises reports itself.
            return "delivered" if notify & Notify.SUCCESS and not outcome.remote else None
