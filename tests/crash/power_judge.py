"""A data directory after a power cut: recovered by the store itself, then compared with what clients were told before it."""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fumibako.model import ops
from fumibako.model.ids import AccountId, MailboxId, TraceId, Uid
from fumibako.model.mailbox import SYSTEM_FLAGS, Mailbox
from fumibako.store.base import StoreUnavailable
from fumibako.store.check import check
from fumibako.store.sqlite.engine import Engine
from fumibako.store.sqlite.reader import Reader
from tests.crash.load import BOXES, Content, _same
from tests.crash.machine import SENDER
from tests.crash.power_diary import Diary
from tests.crash.power_states import State
from tests.support.ledger import MARK, Entry, Fault, Found, MailboxHistory, MailboxState, Verdicts, compare, letter_in

_FINAL = re.compile(rb"^Final-Recipient: rfc822; *(\S+)\r$", re.MULTILINE)
AFTERWARDS = "after-the-cut"


def judge(directory: Path, diary: Diary, state: State) -> tuple[Verdicts, list[str]]:
    """What is wrong with the mail, and what `check` finds or keeps the store from starting."""
    verdicts = Verdicts()
    try:
        engine = Engine(directory, now_ms=int(time.time() * 1000))
    except Exception as error:      # whatever it is: this store does not start
        verdicts.add(Fault.LOST, "everything: the store does not start")
        return verdicts, [f"does not start: {type(error).__name__}: {error}"]
    reader = Reader(directory)
    try:
        findings = [f"{one.kind} in {one.place}: {one.examples}" for one in check(directory).findings if not one.repaired]
        Judge(reader, diary, state, verdicts).all()
        findings += [f"command: {what}" for one in diary.done if one.position <= state.cut and (what := one.holds(reader))]
        findings += _work_goes_on(engine, reader, diary.probe) if diary.probe else []
    finally:
        reader.close()
        engine.give_up()
        engine.close()
    return verdicts, findings + [what for look in diary.afterwards for what in look(directory, state.cut)]


def _work_goes_on(engine: Engine, reader: Reader, probe: str) -> list[str]:
    """One more message, and it is readable."""
    account = reader.account(probe)
    if account is None:
        return [f"account {probe} is gone"]
    octets = b"X-Ledger: probe\r\n\r\nprobe\r\n"
    body = ops.Body(len(octets), hashlib.sha256(octets).digest(), zlib.crc32(octets), octets)
    message = ops.Appended(body, b"", (), 0)
    now_ms = int(time.time() * 1000)
    engine.execute([ops.OpenAccount(account.id)], now_ms)
    box = next((one for one in reader.mailboxes(account.id) if one.name == "INBOX"), None)
    if box is None:
        return [f"{probe} has no INBOX"]
    result = engine.execute([ops.Append(account.id, box.id, TraceId(bytes(16)), (message,))], now_ms)[0][0]
    if isinstance(result, ops.Refused | StoreUnavailable):
        return [f"takes no more mail: {result}"]
    view = reader.view(account.id, box.id)
    return [] if view and list(view.uids)[-1] >= box.uid_next else ["a new message is not there"]


class Judge:
    """One comparison; faults go to `verdicts`."""

    def __init__(self, reader: Reader, diary: Diary, state: State, verdicts: Verdicts) -> None:
        self.reader, self.diary, self.state, self.verdicts = reader, diary, state, verdicts
        self.notices: Counter[str] = Counter()
        self.boxes: dict[tuple[str, str], MailboxState] = {}

    def all(self) -> None:
        self.deliveries()
        for address in self.diary.steps:
            self.changes(address)
        self.told()
        self.outbound()

    # -- reading --

    def mailbox(self, address: str, name: str) -> MailboxState | None:
        """None: there is no such mailbox. Every message is read and compared with what was sent under its mark."""
        if (address, name) not in self.boxes:
            account = self.reader.account(address)
            boxes = self.reader.mailboxes(account.id) if account else []
            box = next((one for one in boxes if one.name == name), None)
            if account is None or box is None:
                return None
            self.boxes[address, name] = self._read(address, account.id, box)
        return self.boxes[address, name]

    def _read(self, address: str, account_id: AccountId, box: Mailbox) -> MailboxState:
        view = self.reader.view(account_id, box.id)
        assert view is not None
        letters = dict(self._letters(address, account_id, box.id, [Uid(uid) for uid in view.uids]))
        words = {int(bit): name for name, bit in SYSTEM_FLAGS.items()}
        words |= {1 << bit: name for bit, name in self.reader.keywords(account_id).items()}
        messages = {uid: (letters[uid], frozenset(name for bit, name in words.items() if flags & bit), modseq)
                    for uid, flags, modseq in zip(view.uids, view.flags, view.modseqs, strict=True)}
        return MailboxState(view.uid_validity, view.uid_next, view.highest_modseq, messages)

    def _letters(self, address: str, account_id: AccountId, box: MailboxId, uids: list[Uid]) -> Iterator[tuple[int, str]]:
        for entry in self.reader.entries(account_id, box, uids):
            try:
                octets = self.reader.read(account_id, entry.email_id, 0, entry.size_octets)
            except OSError as error:
                self.verdicts.add(Fault.CORRUPT, f"{address} uid {entry.uid}: {error}")
                yield entry.uid, "unreadable"
                continue
            if address == SENDER:
                self.notices.update(path.decode() for path in _FINAL.findall(octets))
            yield entry.uid, self._known(address, octets)

    def _known(self, where: str, octets: bytes) -> str:
        """The letter's id; the octets are those that were sent."""
        letter_id, sha256 = letter_in(octets) if MARK in octets.partition(b"\r\n\r\n")[0] else ("", "")
        if where != SENDER and letter_id != AFTERWARDS and self.diary.sums.get(letter_id, sha256) != sha256:
            self.verdicts.add(Fault.CORRUPT, f"{letter_id} at {where}")
        return letter_id

    # -- comparing --

    def deliveries(self) -> None:
        """SMTP and LMTP: there at each recipient, once."""
        ours = [one for one in self.diary.sent if one.entry.kind != "submission"]
        sent = [one for one in ours if one.attempted <= self.state.cut]
        gone = {(letter, one.address): one.answered <= self.state.cut
                for one in self.diary.removed if one.attempted <= self.state.cut for letter in one.letters}
        entries = [Entry(one.entry.id, one.entry.kind, tuple(who for who in one.entry.args if (one.entry.id, who) not in gone),
                         one.entry.sha256, "250" if one.answered <= self.state.cut else "") for one in sent]
        found = []
        for address in sorted({recipient for one in ours for recipient in one.entry.args}):
            box = self.mailbox(address, "INBOX")
            letters = [letter_id for letter_id, _, _ in box.messages.values()] if box else []
            # That the octets are the same is seen when they are read.
            found += [Found(one, address, self.diary.sums.get(one, "")) for one in letters
                      if one != AFTERWARDS and gone.get((one, address), True)]     # False: nobody knows whether it is gone
        self.verdicts.faults += compare(entries, found).faults

    def changes(self, address: str) -> None:
        """IMAP: as after the last answered command, or as the next one leaves it."""
        steps = [step for step in self.diary.steps[address] if step.attempted <= self.state.cut]
        done = [step.after for step in steps if step.answered <= self.state.cut]
        before: Content = done[-1] if done else {box: {} for box in BOXES}
        allowed = [before, *(step.after for step in steps if step.answered > self.state.cut)]
        seen: Content = {}
        for box in BOXES:
            state = self.mailbox(address, box)
            seen[box] = {uid: (letter, flags) for uid, (letter, flags, _) in state.messages.items()} if state else {}
        if not any(_same(content, seen) for content in allowed):
            self._name_the_difference(address, before, seen)
        if done and self.mailbox(address, "Work") is None:
            self.verdicts.add(Fault.STATE, f"{address}: the mailbox that was made is gone")

    def _name_the_difference(self, address: str, before: Content, seen: Content) -> None:
        """Lost and doubled letters by name; anything else is a wrong state."""
        was, now = (Counter(letter for box in one.values() for letter, _ in box.values()) for one in (before, seen))
        for letter in was - now:
            self.verdicts.add(Fault.LOST, f"{letter} of {address}")
        if not was - now:
            self.verdicts.add(Fault.STATE, f"{address}: was {before}, found {seen}")

    def told(self) -> None:
        """UIDs, UIDVALIDITY and modseq as clients know them."""
        histories: dict[tuple[str, str], MailboxHistory] = {}
        visible: dict[tuple[str, str], dict[int, str]] = {}
        for one in self.diary.told:
            if one.position <= self.state.cut:
                key = one.address, one.mailbox
                histories.setdefault(key, MailboxHistory()).observe(" ".join(key), one.state, self.verdicts)
                visible[key] = {uid: letter for uid, (letter, _, _) in one.state.messages.items()}
        for key, history in histories.items():
            found = self.mailbox(*key)
            if found is None:
                self.verdicts.add(Fault.LOST, f"mailbox {key}")
                continue
            history.observe(" ".join(key), found, self.verdicts)
            if key[0] not in self.diary.steps:
                for uid in visible[key].keys() - found.messages.keys():
                    self.verdicts.add(Fault.LOST, f"uid {uid} of {key}, which was seen")

    # -- the queue --

    def outbound(self) -> None:
        """Each recipient waits, was taken elsewhere or is in a DSN; nobody is forgotten, nobody comes back."""
        sent = [one for one in self.diary.sent if one.entry.kind == "submission" and one.attempted <= self.state.cut]
        if not any(one.entry.kind == "submission" for one in self.diary.sent):
            return
        self.mailbox(SENDER, "INBOX")
        waiting, known = self._queue(), {recipient for one in sent for recipient in one.entry.args}
        for recipient in waiting.keys() - known - {SENDER}:
            self.verdicts.add(Fault.PHANTOM, f"{recipient} in the queue")
        for one in sent:
            missing = [recipient for recipient in one.entry.args if not self._placed(recipient, waiting)]
            if missing and one.answered <= self.state.cut:
                self.verdicts.add(Fault.LOST, f"{one.entry.id} for {missing}")
            elif missing and len(missing) < len(one.entry.args):
                self.verdicts.add(Fault.PARTIAL, f"{one.entry.id} for {missing}")
        self._as_seen(waiting)

    def _placed(self, recipient: str, waiting: dict[str, int]) -> bool:
        notices = self.notices[recipient]
        if notices > 1 or (notices and recipient in waiting):
            self.verdicts.add(Fault.DUPLICATE, f"{notices} notices of {recipient}, which waits: {recipient in waiting}")
        return recipient in waiting or bool(notices) or self.diary.taken.get(recipient, 1 << 62) <= self.state.cut

    def _queue(self) -> dict[str, int]:
        """Recipients that wait, and how often each was tried; all bodies are read."""
        waiting: dict[str, int] = {}
        noticed: Counter[str] = Counter()
        for item in self.reader.queue_items():
            try:
                octets = self.reader.read_queued(item.id, 0, item.size_octets)
            except OSError as error:
                self.verdicts.add(Fault.CORRUPT, f"queue item {item.id}: {error}")
                continue
            if item.envelope.reverse_path == "":
                noticed.update(path.decode() for path in _FINAL.findall(octets))
            else:
                self._known("the queue", octets)
                for one in item.recipients:
                    if one.state.value in ("queued", "held"):
                        if one.forward_path in waiting:
                            self.verdicts.add(Fault.DUPLICATE, f"{one.forward_path} in the queue")
                        waiting[one.forward_path] = one.attempts
        # A notice whose hand-over is not settled yet is in both places and goes on as one.
        self.notices |= noticed
        return waiting

    def _as_seen(self, waiting: dict[str, int]) -> None:
        seen = [one for one in self.diary.queue if one.ended <= self.state.cut]
        if not seen:
            return
        last = seen[-1]
        for recipient, attempts in last.attempts.items():
            if waiting.get(recipient, attempts) < attempts:
                self.verdicts.add(Fault.STATE, f"{recipient}: {attempts} attempts, now {waiting[recipient]}")
        gone = {recipient for one in self.diary.sent if one.entry.kind == "submission" and one.answered <= last.begun
                for recipient in one.entry.args} - last.attempts.keys()
        for recipient in gone & waiting.keys():
            self.verdicts.add(Fault.DUPLICATE, f"{recipient} is back in the queue")
