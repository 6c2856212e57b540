"""What all workers share and nobody needs after a restart: rates, counts, maildrop locks, \\Recent, watches, pins.

Specification: RFC 1939 §3 (maildrop lock); RFC 3501 §2.3.2 (\\Recent).
Contract: a holder is a connection of a worker; whatever it holds is released when it goes. No clock of its own.
Failure: StoreRefused; a key beyond the bounds forgets the oldest ones instead of growing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from fumibako.model.ids import AccountId, MailboxId, Uid
from fumibako.model.ops import (
    Charge,
    Charged,
    ClaimRecent,
    Done,
    Enter,
    Freeze,
    Leave,
    LockMaildrop,
    MemoryOperation,
    Pin,
    Ping,
    Recent,
    Refusal,
    Result,
    Thaw,
    Thawed,
    UnlockMaildrop,
    Unpin,
    Watch,
    WatchQueue,
)
from fumibako.store.base import StoreRefused

MAX_BUCKETS = 100_000
MAX_RECENT = 1_000_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_ms: int


class Memory:
    """uid_next: of a mailbox, for \\Recent; StoreRefused when it is gone."""

    def __init__(self, uid_next: Callable[[AccountId, MailboxId], int]) -> None:
        self._uid_next = uid_next
        self._buckets: dict[str, _Bucket] = {}
        self._inside: Counter[str] = Counter()
        self._held: defaultdict[int, Counter[str]] = defaultdict(Counter)       # holder -> key -> count
        self._locks: dict[AccountId, int] = {}                                  # account -> holder
        self._recent: dict[tuple[AccountId, MailboxId], int] = {}               # first uid that nobody has claimed
        self._watchers: defaultdict[AccountId, set[int]] = defaultdict(set)
        self.queue_watchers: set[int] = set()
        self._pins: Counter[int] = Counter()                                    # holder -> count
        self.freezer: int | None = None                                         # the holder for whom the work stands still

    def execute(self, operation: MemoryOperation, holder: int) -> Result:
        match operation:
            case Charge():
                return self._charge(operation)
            case Enter(key=key, limit=limit):
                return self._enter(key, limit, holder)
            case Leave(key=key):
                return self._leave(key, holder)
            case LockMaildrop(account_id=account_id):
                return self._lock(account_id, holder)
            case UnlockMaildrop(account_id=account_id):
                return self._unlock(account_id, holder)
            case ClaimRecent():
                return self._claim(operation)
            case Watch() | WatchQueue():
                return self._look_out(operation, holder)
            case Ping():
                return Done()
            case Pin() | Unpin() | Freeze() | Thaw():
                return self._back_up(operation, holder)

    def watchers(self, account_id: AccountId) -> frozenset[int]:
        return frozenset(self._watchers.get(account_id, ()))

    def release(self, holder: int) -> None:
        """The holder is gone."""
        for key, count in self._held.pop(holder, Counter[str]()).items():
            self._take_off(key, count)
        for account_id in [account_id for account_id, owner in self._locks.items() if owner == holder]:
            del self._locks[account_id]
        for account_id in [account_id for account_id, holders in self._watchers.items() if holder in holders]:
            self._watch(account_id, False, holder)
        self.queue_watchers.discard(holder)
        self._pins.pop(holder, None)
        self.thaw(holder)

    @property
    def pinned(self) -> bool:
        """A backup reads the segments."""
        return bool(self._pins)

    def thaw(self, holder: int | None) -> bool:
        """Whether that holder's freeze still stood; now it doesn't."""
        stood = holder is not None and self.freezer == holder
        if stood:
            self.freezer = None
        return stood

    def _back_up(self, operation: Pin | Unpin | Freeze | Thaw, holder: int) -> Done | Thawed:
        match operation:
            case Pin():
                self._pins[holder] += 1
            case Unpin():
                self._pins[holder] -= 1
                self._pins += Counter()     # what is not positive goes
            case Freeze():
                if self.freezer is not None:
                    raise StoreRefused(Refusal.IN_USE, "another backup begins just now")
                self.freezer = holder
            case Thaw():
                return Thawed(self.thaw(holder))
        return Done()

    def _charge(self, operation: Charge) -> Charged:
        """Refused charges cost nothing, so a peer that waits as long as it is told gets through."""
        bucket = self._buckets.pop(operation.key, None) or _Bucket(operation.burst, operation.now_ms)
        elapsed_ms = max(0, operation.now_ms - bucket.at_ms)        # a clock set back refills nothing
        tokens = min(float(operation.burst), bucket.tokens + elapsed_ms * operation.per_minute / 60_000)
        allowed = tokens >= operation.cost
        self._buckets[operation.key] = _Bucket(tokens - operation.cost if allowed else tokens, operation.now_ms)
        if len(self._buckets) > MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]            # not charged for the longest time
        if allowed:
            return Charged(True, 0)
        missing = operation.cost - tokens
        wait_ms = int(missing * 60_000 / operation.per_minute) + 1 if operation.per_minute > 0 else 60_000
        return Charged(False, wait_ms)

    def _enter(self, key: str, limit: int, holder: int) -> Done:
        if self._inside[key] >= limit:
            if not self._inside[key]:
                del self._inside[key]
            raise StoreRefused(Refusal.LIMIT, f"{key}: {limit}")
        self._inside[key] += 1
        self._held[holder][key] += 1
        return Done()

    def _leave(self, key: str, holder: int) -> Done:
        held = self._held[holder]
        if held[key]:
            held[key] -= 1
            self._take_off(key, 1)
        if not held[key]:
            del held[key]
        return Done()

    def _take_off(self, key: str, count: int) -> None:
        self._inside[key] -= count
        if self._inside[key] <= 0:
            del self._inside[key]

    def _lock(self, account_id: AccountId, holder: int) -> Done:
        if account_id in self._locks:
            raise StoreRefused(Refusal.IN_USE, f"maildrop of account {account_id}")
        self._locks[account_id] = holder
        return Done()

    def _unlock(self, account_id: AccountId, holder: int) -> Done:
        if self._locks.get(account_id) == holder:
            del self._locks[account_id]
        return Done()

    def _claim(self, operation: ClaimRecent) -> Recent:
        """RFC 3501 §2.3.2: where it isn't known who was told first, a message SHOULD be considered recent."""
        key = (operation.account_id, operation.mailbox_id)
        uid_next = self._uid_next(*key)
        first = self._recent.get(key, 1)
        if not operation.peek:
            self._recent.pop(key, None)
            self._recent[key] = uid_next
            if len(self._recent) > MAX_RECENT:
                del self._recent[next(iter(self._recent))]
        return Recent(Uid(first))

    def _watch(self, account_id: AccountId, on: bool, holder: int) -> Done:
        if on:
            self._watchers[account_id].add(holder)
        elif account_id in self._watchers:
            self._watchers[account_id].discard(holder)
            if not self._watchers[account_id]:
                del self._watchers[account_id]
        return Done()

    def _look_out(self, operation: Watch | WatchQueue, holder: int) -> Done:
        if isinstance(operation, Watch):
            return self._watch(operation.account_id, operation.on, holder)
        (self.queue_watchers.add if operation.on else self.queue_watchers.discard)(holder)
        return Done()
