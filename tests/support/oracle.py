"""What an IMAP session may believe, kept beside a real one: sequence numbers, flags and modseqs, and every rule it sees broken.

Specification: RFC 9051 §2.3.1.2 (sequence numbers), §7.4.1 (EXISTS), §7.5.1 (EXPUNGE); RFC 7162 §3.1 (modseq).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fumibako.proto.imap.client import Data, Untagged

# RFC 9051 §7.5.1: no EXPUNGE while no command is in progress, nor while answering these.
_NO_EXPUNGE = frozenset({"FETCH", "STORE", "SEARCH"})
Flags = frozenset[str]


class BrokenRule(AssertionError):
    """The server said what no server may say."""


@dataclass(slots=True)
class Truth:
    """What several sessions saw of one mailbox. modseqs: uid -> the highest seen; flags: (uid, modseq) -> flags at it."""

    modseqs: dict[int, int] = field(default_factory=dict)
    flags: dict[tuple[int, int], Flags] = field(default_factory=dict)

    def see(self, uid: int, modseq: int, flags: Flags) -> None:
        if self.flags.setdefault((uid, modseq), flags) != flags:
            raise BrokenRule(f"uid {uid} at modseq {modseq}: {sorted(self.flags[uid, modseq])} and {sorted(flags)}")
        self.modseqs[uid] = max(modseq, self.modseqs.get(uid, 0))


@dataclass(slots=True)
class Believer:
    """One session's belief. uids: by sequence number - 1; 0 where only the existence is known. expunged: what it was told.

    Another session may hear of an expunge a moment earlier: only what this one was told must not come back to it.
    """

    truth: Truth
    uids: list[int] = field(default_factory=list)
    flags: dict[int, Flags] = field(default_factory=dict)
    modseqs: dict[int, int] = field(default_factory=dict)
    expunged: set[int] = field(default_factory=set)

    def hear(self, command: str, responses: Sequence[Untagged]) -> list[int]:
        """Take in the untagged responses to a command, in order; uids or numbers that a SEARCH among them told."""
        found: list[int] = []
        for one in responses:
            match one.kind:
                case "EXISTS":
                    self._exists(one.number or 0)
                case "EXPUNGE":
                    self._expunge(command, one.number or 0)
                case "FETCH":
                    self._fetch(one.number or 0, one.data)
                case "SEARCH":
                    found += [number for number in one.data if isinstance(number, int)]
        return found

    def _exists(self, count: int) -> None:
        if count < len(self.uids):
            raise BrokenRule(f"EXISTS {count} after {len(self.uids)} without EXPUNGE")
        self.uids += [0] * (count - len(self.uids))

    def _expunge(self, command: str, number: int) -> None:
        if command in _NO_EXPUNGE:
            raise BrokenRule(f"EXPUNGE in answer to {command}")
        if not 1 <= number <= len(self.uids):
            raise BrokenRule(f"EXPUNGE {number} of {len(self.uids)} messages")
        uid = self.uids.pop(number - 1)
        self.flags.pop(uid, None)
        self.expunged.add(uid)

    def _fetch(self, number: int, data: Sequence[Data]) -> None:
        if not 1 <= number <= len(self.uids):
            raise BrokenRule(f"FETCH {number} of {len(self.uids)} messages")
        items = data[0]
        assert isinstance(items, list)
        row = {str(name).upper(): value for name, value in zip(items[::2], items[1::2], strict=True)}
        if isinstance(uid := row.get("UID"), int):
            self._name(number, uid)
        uid, flags, modseq = self.uids[number - 1], row.get("FLAGS"), row.get("MODSEQ")
        if uid and isinstance(flags, list):
            self.flags[uid] = frozenset(map(str, flags)) - {"\\Recent"}
        if uid and isinstance(modseq, list) and isinstance(modseq[0], int):
            self._modseq(uid, modseq[0], isinstance(flags, list))

    def _name(self, number: int, uid: int) -> None:
        known = self.uids[number - 1]
        if known not in (0, uid):
            raise BrokenRule(f"message {number} was uid {known} and is uid {uid}")
        if uid in self.expunged and not known:
            raise BrokenRule(f"uid {uid} came back")
        self.uids[number - 1] = uid
        named = [one for one in self.uids if one]
        if named != sorted(set(named)):
            raise BrokenRule(f"uids out of order: {self.uids}")

    def _modseq(self, uid: int, modseq: int, with_flags: bool) -> None:
        if modseq < self.modseqs.get(uid, 0):
            raise BrokenRule(f"modseq of uid {uid} went from {self.modseqs[uid]} to {modseq}")
        self.modseqs[uid] = modseq
        if with_flags:
            self.truth.see(uid, modseq, self.flags[uid])
