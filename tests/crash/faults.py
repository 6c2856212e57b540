"""The sweep: every way of writing, every kind of call, every error of it, for every N until a clean pass.

spec/reliability.md §5.1, check 4. Of each trial: the answer is the right one, word for word; the administrator gets a line that
names the place; nothing was promised that isn't there; where the error passes, work goes on in the same server, else the
engine stops and the next one starts clean; `fumibako check` finds nothing, every letter is there once, and no file is left over.
"""

from __future__ import annotations

import asyncio
import errno
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fumibako.store import trouble
from fumibako.store.disk import DiskIO
from fumibako.store.segment import segment_numbers
from fumibako.store.sqlite.database import open_reader
from fumibako.store.sqlite.engine import Engine
from fumibako.store.sqlite.housekeeping import SPOOL_MS, tidy_spool
from tests.crash import story
from tests.crash.disks import FaultyDisk, Trigger
from tests.crash.fault_ways import Way
from tests.crash.fault_world import NAMES_A_PLACE, NOW_MS, Log

NAMES = {name: getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EIO", "EMFILE")}
# What a call can say. EINTR is the kernel's word to calls that wait: tests/crash/fault_live.py.
KINDS_OF = {
    "ENOSPC": ("write", "rename", "unlink", "sync"), "EDQUOT": ("write", "rename", "sync"),
    "EIO": ("open", "write", "rename", "unlink", "truncate", "sync"), "EMFILE": ("open",),
}
PASSING = {"ENOSPC", "EDQUOT", "EMFILE"}
ENDLESS = 3_000

_LOOKS = {
    "shard-001/mail.db": (
        "SELECT e.account_id, m.name, e.uid, e.flags, x.size_octets, x.entries FROM entry e "
        "JOIN email x ON x.account_id = e.account_id AND x.id = e.email_id "
        "JOIN mailbox m ON m.account_id = e.account_id AND m.id = e.mailbox_id ORDER BY 1, 2, 3",
        "SELECT account_id, count(*), sum(entries) FROM email GROUP BY 1 ORDER BY 1",
        "SELECT id, used_octets, messages FROM account ORDER BY 1",
        "SELECT account_id, name FROM mailbox ORDER BY 1, 2", "SELECT count(*) FROM outbox"),
    "queue.db": ("SELECT m.size_octets, r.forward_path, r.state FROM q_message m JOIN q_recipient r ON r.message_id = m.id "
                 "ORDER BY 1, 2",),
    "control.db": ("SELECT address, status FROM principal ORDER BY 1", "SELECT address_key, target FROM alias ORDER BY 1, 2",
                   "SELECT key, scope, value FROM setting ORDER BY 1, 2"),
}

Picture = list[list[object]]


@dataclass(slots=True)
class Tally:
    """What a sweep of one way, error, kind and manner found. wrong: what never may be, word for word."""

    way: str
    error: str
    kind: str
    sticky: bool
    trials: int = 0
    refused: int = 0
    went_on: int = 0            # the fault was mended inside: success, and it is true
    stopped: int = 0
    answers: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Template:
    """The place a way begins in, and what its store looks like before and after."""

    place: Path
    before: Picture
    after: Picture


def make_template(way: Way, place: Path) -> Template:
    (place / "made").mkdir(parents=True)
    asyncio.run(way.template(place / "made"))
    before = picture(way, place / "made")
    shutil.copytree(place / "made", place / "done")
    trigger = Trigger("write", 1 << 60, errno.EIO)
    answer = _Trial(way, place / "done", trigger).deed(1, armed=False)
    assert is_success(answer), (way.name, answer)
    _reopened(way, place / "done")
    after = picture(way, place / "done")
    assert not way.check(place / "done"), way.name
    shutil.rmtree(place / "done")
    return Template(place / "made", before, after)


def picture(way: Way, place: Path) -> Picture:
    """Everything that a person could notice of a store."""
    found: Picture = []
    for name, queries in _LOOKS.items():
        database = open_reader(place / "data" / name)
        found += [[tuple(row) for row in database.rows(query if way.sizes else _without_sizes(query))] for query in queries]
        database.close()
    return found


def _without_sizes(query: str) -> str:
    return re.sub(r"\b(x\.size_octets|m\.size_octets|used_octets)\b", "0", query)


def is_success(answer: str) -> bool:
    return answer.startswith(("250 ", "t OK", "+OK")) or answer == "OK"


# What may be said: first where the error passes, then where it doesn't. "" : the connection ends without an answer.
_PASSES, _STOPS = 0, 1
_ANSWERS = {
    "smtp": (r"452 4\.3\.1 insufficient system storage", r"(451|421) 4\.(3|7)\.0 [Tt]emporary failure, try again later"),
    "imap": (r"t NO \[UNAVAILABLE\] .*", r"t NO \[(UNAVAILABLE|CORRUPTION)\] .*|\* BYE \[UNAVAILABLE\] .*"),
    "pop3": (r"-ERR \[SYS/TEMP\] .*", r"(-ERR \[SYS/(TEMP|PERM)\] .*)?"),
    "queue": (r"NO (disk full|too many open files): .*|WAITS", r"(NO|AWAY) .*|WAITS"),
    "admin": (r"NO .*", r"NO .*"), "tidy": (r"OK", r"OK|AWAY .*"), "files": (r"NO .*", r"NO .*"),
}
# Reads have no word for a lack of descriptors of their own: the conversation is given up for now.
_WITHOUT_FILES = {"smtp": r"(451|421) 4\.(3|7)\.0 [Tt]emporary failure, try again later",
                  "imap": r"\* BYE \[UNAVAILABLE\] .*", "pop3": r"(-ERR \[SYS/(TEMP|PERM)\] .*)?",
                  "queue": r"AWAY .*"}


def allowed(way: Way, error: str, kind: str) -> str:
    passes, stops = _ANSWERS[way.family]
    if error not in PASSING or kind == "sync":      # an unconfirmed sync is none that passes, whatever its errno
        return f"{passes}|{stops}" if kind == "sync" else stops
    if error == "EMFILE":
        return f"{passes}|{_WITHOUT_FILES.get(way.family, passes)}"
    return passes


class _Trial:
    """One fault in one copy of a way's place."""

    def __init__(self, way: Way, place: Path, trigger: Trigger) -> None:
        self.way, self.place, self.trigger = way, place, trigger
        self.at, self.failed = trigger.at, False

    def deed(self, seed: int, *, armed: bool = True, again: bool = False) -> str:
        """One life of a server; again: where it lives on, the deed is done once more when the disk is mended."""
        return asyncio.run(self._life(seed, armed, again))

    async def _life(self, seed: int, armed: bool, again: bool) -> str:
        self.trigger.mend()
        world = self.way.open(self.place, FaultyDisk(self.trigger), seed)

        def arm() -> None:
            if armed:
                self.trigger.seen, self.trigger.at = 0, self.at

        try:
            answer: str = await self.way.deed(world, arm)
            self.trigger.mend()
            self.failed = world.failed
            if again and not self.failed and self.trigger.fired and (self.way.resumes or not is_success(answer)):
                then = await self.way.deed(world, lambda: None)
                if not is_success(then):
                    answer = f"NOT AGAIN: {then} after {answer}"
        finally:
            await world.end()
        return answer


def _reopened(way: Way, place: Path) -> list[str]:
    """A start, and what is still there that should not be."""
    if (place / "data" / "RESTORING").exists():
        return []
    tidy_spool(DiskIO(), place / "data" / "spool", int(time.time() * 1000) + SPOOL_MS + 60_000)
    Engine(place / "data", DiskIO(), NOW_MS).close()
    return leftovers(place / "data")


def leftovers(directory: Path) -> list[str]:
    """Files that no row knows, or that should have gone."""
    found = [str(path) for path in (directory / "spool").iterdir()]
    for name, segments in (("queue.db", "queue"), ("shard-001/mail.db", "shard-001/seg")):
        database = open_reader(directory / name)
        rows = {row[0] for row in database.rows("SELECT id FROM segment")}
        database.close()
        found += [f"{segments}/{number}.seg" for number in set(segment_numbers(DiskIO(), directory / segments)) - rows]
        found += [str(path) for path in (directory / segments).iterdir() if path.suffix != ".seg"]
    return found


def sweep(way: Way, template: Template, place: Path, error: str, kind: str, *, sticky: bool,
          numbers: Iterable[int] = range(1, ENDLESS)) -> Tally:
    """numbers: which N are tried; the sweep ends at the first that finds no call to fail."""
    tally = Tally(way.name, error, kind, sticky)
    for at in numbers:
        trial_place = place / f"{at}"
        shutil.copytree(template.place, trial_place)
        trigger = Trigger(kind, at, NAMES[error], sticky=sticky)
        with Log() as log:
            trouble.forget()
            wrong = try_once(_Trial(way, trial_place, trigger), template, error, tally, log)
        shutil.rmtree(trial_place)
        if not trigger.fired:
            tally.wrong += [f"without a fault: {one}" for one in wrong]
            return tally
        tally.trials += 1
        tally.wrong += [f"{at} ({trigger.struck.replace(str(trial_place), '')}): {one}" for one in wrong]
    if at == ENDLESS - 1:
        tally.wrong.append("the sweep does not end")
    return tally


def try_once(trial: _Trial, template: Template, error: str, tally: Tally, log: Log) -> list[str]:
    """What is wrong with it."""
    way, place = trial.way, trial.place
    answer = trial.deed(1, again=True)
    wrong = [f"not as before: {answer}"] if not trial.trigger.fired and not is_success(answer) else []
    if trial.trigger.fired:
        wrong = list(_wrong_words(trial, answer, error, log))
        _count(tally, trial, answer)
        if not trial.failed and way.family in ("smtp", "imap") and trial.trigger.kind != "unlink":
            wrong += [f"left in the spool: {path.name}" for path in (place / "data" / "spool").iterdir()]
    wrong += [f"left: {one}" for one in _reopened(way, place)]
    if trial.failed:
        wrong += _finish(trial, template, answer)
    return wrong + list(_wrong_end(way, place, template))


def _count(tally: Tally, trial: _Trial, answer: str) -> None:
    tally.stopped += trial.failed
    tally.refused += not is_success(answer)
    tally.went_on += is_success(answer)
    tally.answers.add(re.sub(r"[0-9a-f]{32}|/\S+", "…", answer)[:90])


def _wrong_words(trial: _Trial, answer: str, error: str, log: Log) -> Iterator[str]:
    kind = trial.trigger.kind
    if "NOT AGAIN" in answer:
        yield answer
        return
    if is_success(answer) and trial.failed and trial.way.family != "tidy":
        yield f"success, and the engine stopped: {answer}"
    if not is_success(answer) and not re.fullmatch(allowed(trial.way, error, kind), answer):
        yield f"the wrong words: {answer}"
    if trial.failed and error in PASSING and kind != "sync":
        yield f"stopped for what passes: {trial.failed}"
    if trial.failed and kind == "sync" and not trial.trigger.sticky and trial.trigger.fired > 1:
        yield "a second sync"
    for text in log.tracebacks:
        yield f"a traceback: {text[-600:]}"
    said = [*log.lines, answer] if trial.way.family in ("files", "admin", "tidy") else log.lines
    if not is_success(answer) and not any(NAMES_A_PLACE.search(line.replace(str(trial.place), "")) for line in said):
        yield f"no line names the place: {said}"


def _finish(trial: _Trial, template: Template, answer: str) -> Iterator[str]:
    """The next server, on a disk that works: the state is the one before or the one after, and the deed is done once."""
    way, place = trial.way, trial.place
    found = picture(way, place)
    if not way.resumes and found not in (template.before, template.after):
        yield f"neither before nor after: {found}"
    if is_success(answer) and way.family != "tidy" and found != template.after:
        yield "acknowledged and not there"
    if way.resumes or found != template.after:
        then = trial.deed(2, armed=False)
        if not is_success(then):
            yield f"not done by the next server: {then}"
        yield from (f"left: {one}" for one in _reopened(way, place))


def _wrong_end(way: Way, place: Path, template: Template) -> Iterator[str]:
    found = picture(way, place)
    if found != template.after:
        differing = [(a, b) for a, b in zip(found, template.after, strict=True) if a != b]
        yield f"not as it should be: {differing}"
    yield from story.faults(place / "data")
    yield from way.check(place)
