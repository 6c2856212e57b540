"""Damage of one place of a data directory, and what became of everything else: the planter and the judge of the trials.

Contract: `make` fills a directory with something of everything, as a kill -9 leaves it: logs that are not merged, segments not
    cut. `trial` copies it, plants one damage chosen by `chance`, and looks: does `check` name the place and change nothing, does
    the store open or refuse in words, does everything that is not damaged read as before, does a repair destroy nothing.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import apsw
import msgspec

from fumibako.model import ops
from fumibako.model.ids import AccountId, MailboxId, Uid
from fumibako.model.queue import DAY_MS
from fumibako.proto.message.cache import Remaking, pack_index
from fumibako.proto.message.index import Indexer
from fumibako.store.check import Finding, check
from fumibako.store.schema import SchemaError
from fumibako.store.segment import HEADER_OCTETS
from fumibako.store.sqlite import engine as engine_module
from fumibako.store.sqlite.compaction import REPLACED_MS
from fumibako.store.sqlite.engine import DirectoryDamaged, Engine
from fumibako.store.sqlite.reader import Reader
from tests.crash import story

PAGE = 4096
NOW_MS = story.NOW_MS
DATABASES = ("control.db", "queue.db", "shard-001/mail.db", "shard-002/mail.db")
PEOPLE = [AccountId(number) for number in (1, 2, 3, 4)]     # two of each shard
Key = tuple[str, object, object, object]                    # the database that knows it, and which one it is
Picture = dict[Key, str]
# What a repair has to make again; anything else it may go on naming.
MENDABLE = {"mailbox counters", "quota", "message sizes", "blob references", "entry counts", "orphaned segments",
            "uid_next", "modseq", "highest_modseq", "next_email_id", "next_mailbox_id", "uid_validity", "caches without blob",
            "damaged caches"}


# -- the directory --


def make(directory: Path) -> None:
    """Two shards, compaction, own-file bodies, recoverable mail, a hold, outbox, queue, a forgotten spool file."""
    whole = directory.with_name("made")
    whole.mkdir(mode=0o700)
    with mock.patch.object(engine_module, "SHARD_ACCOUNTS", 2):
        engine = Engine(whole, now_ms=NOW_MS)
        addresses = [f"{name}@a.example" for name in ("alice", "bob", "carol", "dave")]
        _run(engine, ops.AddDomain("a.example"), *(ops.AddAccount(one, story.RECORD) for one in addresses),
             ops.AddAlias("team@a.example", tuple(addresses[:2])), ops.SetSetting("limits.message_size", "", "20M"))
    _fill(engine, whole, 1)
    engine.close()                  # seals the first segments
    engine = Engine(whole, now_ms=NOW_MS)
    gone = tuple(map(Uid, range(1, 8)))
    _run(engine, *(ops.Expunge(one, MailboxId(1), gone, only_deleted=False) for one in PEOPLE))
    for later_ms in (0, REPLACED_MS):
        while engine.housekeep(NOW_MS + 21 * DAY_MS + later_ms):
            pass
    _fill(engine, whole, 100)
    _run(engine, *(ops.Expunge(one, MailboxId(1), (Uid(12), Uid(13)), only_deleted=False) for one in PEOPLE))
    engine.close()
    engine = Engine(whole, now_ms=NOW_MS)
    _fill(engine, whole, 200)
    forward = msgspec.structs.replace(story.forward(299, story.inline(299)), cache=_index(299, story.inline(299)))
    _run(engine, ops.AddHold("carol@a.example", "audit"), forward)
    (whole / "spool" / "forgotten").write_bytes(b"x" * 5000)
    shutil.copytree(whole, directory, ignore=shutil.ignore_patterns("*-shm"))
    engine.close()


def _run(engine: Engine, *batch: object) -> None:
    for result, _ in engine.execute(list(batch), NOW_MS):      # type: ignore[arg-type]
        assert not isinstance(result, ops.Refused), result


def _fill(engine: Engine, directory: Path, first: int) -> None:
    """Ten messages for each shard, of which one is a file of its own, some of them moved and flagged; four in the queue."""
    for pair in (PEOPLE[:2], PEOPLE[2:]):
        for number in range(first, first + 10):
            own = number % 10 == 9
            message = _spooled(directory, number) if own else story.inline(number)
            delivery = msgspec.structs.replace(story.deliver(number, message, *pair), cache=_index(number, message))
            _run(engine, delivery)
        base = {1: 0, 100: 10, 200: 20}[first]
        _run(engine, ops.SetFlags(pair[0], MailboxId(1), (Uid(base + 9), Uid(base + 10)), ops.FlagMode.ADD, ("\\Seen", "$work")),
             ops.Copy(pair[0], MailboxId(1), (Uid(base + 9),), MailboxId(2)),
             ops.Move(pair[1], MailboxId(1), (Uid(base + 10),), MailboxId(2)))
    for number in range(first + 50, first + 53):
        _run(engine, story.enqueue(number, story.inline(number), "x@b.example", "y@c.example"))
    _run(engine, story.enqueue(first + 59, _spooled(directory, first + 59), "z@b.example"))


def _index(number: int, message: ops.Body) -> bytes:
    indexer = Indexer()
    indexer.feed(message.octets or story.octets(number, story.LARGE))
    return pack_index(indexer.close())


def _spooled(directory: Path, number: int) -> ops.Body:
    text = story.octets(number, story.LARGE)
    (directory / "spool" / f"body-{number}").write_bytes(bytes(HEADER_OCTETS) + text)
    return ops.Body(len(text), hashlib.sha256(text).digest(), zlib.crc32(text), spool=f"body-{number}")


# -- what can be read --


def picture(directory: Path) -> Picture:
    """Every message that can be read, with its SHA-256."""
    found: Picture = {}
    reader = Reader(directory)
    try:
        for person in PEOPLE:
            _try(lambda person=person: _mail(reader, person, found))     # type: ignore[misc]
        _try(lambda: _queued(reader, found))
    finally:
        reader.close()
    return found


def _try(look: Callable[[], None]) -> None:
    """Whatever a damaged database makes of a read costs that read alone."""
    try:
        look()
    except (apsw.Error, OSError, ValueError, OverflowError, TypeError, MemoryError):
        pass


def _mail(reader: Reader, person: AccountId, found: Picture) -> None:
    place = f"shard-{1 if person in PEOPLE[:2] else 2:03d}/mail.db"

    def note(key: Key, email_id: int, size: int) -> None:
        found[key] = hashlib.sha256(reader.read(person, email_id, 0, size)).hexdigest()     # type: ignore[arg-type]

    for box in reader.mailboxes(person):
        view = reader.view(person, box.id)
        for entry in reader.entries(person, box.id, [Uid(uid) for uid in view.uids]) if view else []:
            _try(lambda box=box, entry=entry: note(     # type: ignore[misc]
                (place, person, box.name, entry.uid), entry.email_id, entry.size_octets))
    for one in reader.recoverable(person):
        _try(lambda one=one: note((place, person, "", one.entry.guid), one.entry.email_id, one.entry.size_octets))  # type: ignore[misc]


def _queued(reader: Reader, found: Picture) -> None:
    for item in reader.queue_items():
        def note(item: Any = item) -> None:
            found["queue.db", item.trace_id, "", ""] = hashlib.sha256(
                reader.read_queued(item.id, 0, item.size_octets)).hexdigest()
        _try(note)


def dump(directory: Path) -> dict[tuple[str, str], dict[str, list[object]]]:
    """(database, table) -> column -> every value, in hex with its type; a database that can't be read: its error."""
    found: dict[tuple[str, str], dict[str, list[object]]] = {}
    for name in DATABASES:
        try:
            database = apsw.Connection(f"file:{directory / name}?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")]
            for table in tables:
                columns = [row[1] for row in database.execute(f"PRAGMA table_info('{table}')")]
                asked = ", ".join(f"hex(CAST(\"{column}\" AS BLOB)) || typeof(\"{column}\")" for column in columns)
                rows = [tuple(row) for row in database.execute(f"SELECT {asked} FROM \"{table}\"")]
                found[name, table] = {column: [row[at] for row in rows] for at, column in enumerate(columns)}
            schema = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 2").fetchall()
            found[name, ""] = {"": [database.execute("PRAGMA user_version").fetchall(), schema]}
            database.close()
        except (apsw.Error, UnicodeDecodeError) as error:
            found[name, ""] = {"": [str(error)]}
    return found


def differences(before: dict[tuple[str, str], dict[str, list[object]]], directory: Path) -> list[str]:
    """database table.column of all that is not as it was."""
    after = dump(directory)
    return sorted({f"{name} {table}.{column}" for name, table in before.keys() | after.keys()
                   for column in before.get((name, table), {}).keys() | after.get((name, table), {}).keys()
                   if before.get((name, table), {}).get(column) != after.get((name, table), {}).get(column)})


def hashes(directory: Path) -> dict[str, str]:
    """Every file but what SQLite makes for a reader: its index of the log, and a log without octets."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.suffix != ".db-shm"]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files if path.suffix != ".db-wal" or path.stat().st_size}


# -- the planter --


@dataclass(frozen=True, slots=True)
class Damage:
    """kind: as counted; what: in words; place: what a finding has to name; hurts: may what this key stands for be hurt?"""

    kind: str
    what: str
    place: str
    hurts: Callable[[Key], bool]


_ROWS: dict[str, tuple[tuple[str, str], ...]] = {
    "blob rows": tuple(("shard", sql) for sql in (
        "DELETE FROM blob WHERE id = ?1", "UPDATE blob SET offset = offset + 1 WHERE id = ?1",
        "UPDATE blob SET size_octets = size_octets + 1 WHERE id = ?1",
        "UPDATE blob SET segment_id = segment_id + 1000 WHERE id = ?1")),
    "counters": tuple(("shard", sql) for sql in (
        "UPDATE mailbox SET total = total + 1 WHERE account_id = ?2 AND id = 1", "UPDATE mailbox SET uid_next = 2 WHERE "
        "account_id = ?2 AND id = 1", "UPDATE mailbox SET unseen = 0 WHERE account_id = ?2 AND id = 1",
        "UPDATE mailbox SET highest_modseq = 1 WHERE account_id = ?2 AND id = 1",
        "UPDATE account SET used_octets = used_octets - 1 WHERE id = ?2", "UPDATE account SET modseq = 1 WHERE id = ?2",
        "UPDATE account SET next_email_id = 2 WHERE id = ?2", "UPDATE account SET uid_validity = 1 WHERE id = ?2",
        "UPDATE email SET size_octets = size_octets - 1 WHERE account_id = ?2 AND blob_id = ?1")),
    "references": tuple(("shard", sql) for sql in (
        "UPDATE blob SET refs = refs + 1 WHERE id = ?1", "UPDATE blob SET refs = 0 WHERE id = ?1",
        "UPDATE email SET entries = entries + 1 WHERE blob_id = ?1", "DELETE FROM entry WHERE account_id = ?2 AND email_id = "
        "(SELECT max(email_id) FROM entry WHERE account_id = ?2)", "DELETE FROM email WHERE blob_id = ?1",
        "UPDATE email SET blob_id = 77 WHERE blob_id = ?1", "UPDATE segment SET replaced_ms = 5 WHERE id = ?1 >> 32 AND sealed")),
    "queue rows": tuple(("queue", sql) for sql in (
        "DELETE FROM q_recipient WHERE message_id = ?1", "DELETE FROM q_message WHERE id = ?1",
        "UPDATE q_message SET size_octets = 5 WHERE id = ?1", "UPDATE q_message SET blob_id = 77 WHERE id = ?1",
        "DELETE FROM blob WHERE id = (SELECT blob_id FROM q_message WHERE id = ?1)")),
    "control rows": tuple(("control", sql) for sql in (
        "DELETE FROM domain", "DELETE FROM shard WHERE id = 2", "UPDATE principal SET shard = 77 WHERE id = ?2",
        "UPDATE principal SET domain_id = 77 WHERE id = ?2", "UPDATE hold SET account_id = 77", "DELETE FROM shard",
        "INSERT INTO alias VALUES('alice@a.example', 'x@b.example', 1)", "UPDATE alias SET domain_id = 77")),
}
KINDS = ("segment flip", "segment truncate", "segment delete", "page flip", "page truncate", "database delete", "index flip",
         "log flip", "log truncate", "log delete", "spool", *_ROWS)


class Planter:
    """template: made by `make`; nothing of it is changed."""

    def __init__(self, template: Path) -> None:
        self.template = template
        self.picture, self.dump = picture_of_copy(template)
        self.findings = {(one.kind, one.place) for one in check(template, remaking=Remaking).findings}
        self._records = {name: self._records_of(name) for name in DATABASES[1:]}

    def _records_of(self, name: str) -> list[tuple[int, int, int]]:
        """(segment, offset, end of the record) of every blob."""
        database = apsw.Connection(f"file:{self.template / name}?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        return list(database.execute(f"SELECT segment_id, offset, offset + {HEADER_OCTETS} + size_octets FROM blob"))

    def plant(self, kind: str, directory: Path, chance: random.Random) -> Damage:
        """Into a copy of the template."""
        if kind in _ROWS:
            return self._row(kind, directory, chance)
        where, _, how = kind.rpartition(" ")
        if where == "index":
            return self._index(directory, chance)
        if kind == "spool":
            where, how = "spool", chance.choice(("flip", "truncate", "delete"))
        path, place = self._choose(where, directory, chance)
        if where == "page":
            merge(path)     # else most pages are covered by newer ones in the log
        low, high = _used(path, chance) if kind == "page flip" else (0, 0)
        start, end = spoil(path, how, chance, low, high)
        name = str(path.relative_to(directory))
        return Damage(kind, f"{how} {name} octets {start}..{end}", place, self._hurt_by(where, place, name, start, end))

    def _choose(self, where: str, directory: Path, chance: random.Random) -> tuple[Path, str]:
        """The file, and what a finding would call it."""
        if where == "spool":
            return directory / "spool" / "forgotten", "spool"
        if where == "segment":
            path = chance.choice(sorted(directory.rglob("*.seg")))
            return path, str(path.parent.relative_to(directory))
        names = [name for name in DATABASES if where != "log" or (directory / f"{name}-wal").exists()]
        name = chance.choice(names)
        return directory / (f"{name}-wal" if where == "log" else name), name

    def _hurt_by(self, where: str, place: str, name: str, start: int, end: int) -> Callable[[Key], bool]:
        if where == "spool":
            return lambda key: False
        if where == "segment":
            database = "queue.db" if place == "queue" else f"{place.removesuffix('/seg')}/mail.db"
            touched = any(number == int(Path(name).stem) and offset < end and start < stop
                          for number, offset, stop in self._records[database])
            return lambda key: touched and key[0] == database
        # Who an account is, and where it lives, stands in control.db.
        return lambda key: place in ("control.db", key[0])

    def _index(self, directory: Path, chance: random.Random) -> Damage:
        """A bit of a page that belongs to an index."""
        name = chance.choice(DATABASES)
        merge(directory / name)
        with apsw.Connection(str(directory / name)) as database:
            pages = [row[0] for row in database.execute(
                "SELECT pageno FROM dbstat JOIN sqlite_schema s USING(name) WHERE s.type = 'index' ORDER BY pageno")]
        start, _ = spoil(directory / name, "flip", chance, *_used(directory / name, chance, chance.choice(pages)))
        return Damage("index flip", f"flip {name} octet {start}", name, lambda key: key[0] == name or name == "control.db")

    def _row(self, kind: str, directory: Path, chance: random.Random) -> Damage:
        where, sql = chance.choice(_ROWS[kind])
        name = {"control": "control.db", "queue": "queue.db"}.get(where) or chance.choice(DATABASES[2:])
        person = chance.choice(PEOPLE[:2] if name == "shard-001/mail.db" else PEOPLE[2:])
        with apsw.Connection(str(directory / name)) as database:
            table = "q_message" if where == "queue" else "email"
            ids = [row[0] for row in database.execute(f"SELECT {'id' if where == 'queue' else 'blob_id'} FROM {table}")] \
                if where != "control" else [0]
            bound = (chance.choice(ids), person)[:2 if "?2" in sql else 1 if "?1" in sql else 0]
            database.execute(sql, bound)
        harmless = kind == "counters" and "email SET size" not in sql
        return Damage(kind, f"{name}: {sql} {bound}", name, lambda key: not harmless and name in ("control.db", key[0]))


def _used(path: Path, chance: random.Random, page: int = 0) -> tuple[int, int]:
    """A stretch of a page (0: any) in which something stands: small tables leave most of theirs empty."""
    octets = path.read_bytes()
    page = page or chance.randrange(len(octets) // PAGE) + 1
    start = (page - 1) * PAGE
    header = start + (100 if page == 1 else 0)
    kind, cells, content = octets[header], *struct.unpack_from(">HH", octets, header + 3)
    if kind not in (2, 5, 10, 13):      # no page of a b-tree
        return start, start + PAGE
    head = (start, header + (8 if kind > 5 else 12) + 2 * cells)
    # One in eight hits the head of the page.
    return head if content >= PAGE or chance.randrange(8) == 0 else (start + content, start + PAGE)


def merge(path: Path) -> None:
    """The log into the database."""
    database = apsw.Connection(str(path))
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def spoil(path: Path, how: str, chance: random.Random, low: int = 0, high: int = 0) -> tuple[int, int]:
    """One bit, the rest, or all of a file. Returns the octets that were touched."""
    size = path.stat().st_size
    at = chance.randrange(low, high or size)
    if how == "delete":
        path.unlink()
        return 0, size
    with path.open("r+b") as file:
        if how == "truncate":
            file.truncate(at)
            return at, size
        file.seek(at)
        octet = file.read(1)[0]
        file.seek(at)
        file.write(bytes([octet ^ 1 << chance.randrange(8)]))
    return at, at + 1


def picture_of_copy(template: Path) -> tuple[Picture, dict[tuple[str, str], dict[str, list[object]]]]:
    """Of the template as it is, opened in a copy: a reader makes files."""
    copy = template.with_name("looked-at")
    shutil.copytree(template, copy)
    try:
        return picture(copy), dump(copy)
    finally:
        shutil.rmtree(copy)


# -- the judge --


@dataclass(slots=True)
class Verdict:
    """outcome: found, without effect, earlier (a sound state of a moment ago), missed; faults: what must never be.

    refused: the store's words where it does not open; differs: columns that are not as they were; mended: no finding is left.
    """

    damage: Damage
    outcome: str = ""
    differs: list[str] = field(default_factory=list)
    refused: str = ""
    unreadable: int = 0
    mended: bool = False
    faults: list[str] = field(default_factory=list)


def trial(planter: Planter, directory: Path, kind: str, chance: random.Random) -> Verdict:
    """directory: is made and is gone afterwards."""
    shutil.copytree(planter.template, directory, ignore=shutil.ignore_patterns("*-shm"))
    try:
        damage = planter.plant(kind, directory, chance)
        verdict = Verdict(damage)
        _judge_check(planter, directory, verdict)
        _judge_start(planter, directory, verdict)
        _judge_repair(planter, directory, verdict)
        return verdict
    finally:
        shutil.rmtree(directory)


def _named(planter: Planter, found: tuple[Finding, ...], place: str) -> bool:
    return any(one.place.startswith(place.partition("/")[0].removesuffix(".db"))
               for one in found if (one.kind, one.place) not in planter.findings)


def _remaking(verdict: Verdict) -> Callable[[], Remaking] | None:
    """Only octets that change within a page can leave a cache that says another thing; to make all of them anew takes a while."""
    return Remaking if verdict.damage.kind in ("page flip", "page truncate", "log flip") else None


def _judge_check(planter: Planter, directory: Path, verdict: Verdict) -> None:
    before = hashes(directory)
    report = check(directory, remaking=_remaking(verdict))
    if hashes(directory) != before:
        verdict.faults.append("check changed the directory")
    verdict.differs = differences(planter.dump, directory)
    same = not verdict.differs and picture(directory) == planter.picture
    if _named(planter, report.findings, verdict.damage.place):
        verdict.outcome = "found"
    else:
        verdict.outcome = "without effect" if same else "earlier" if _is_earlier(planter, directory, verdict) else "missed"


def _is_earlier(planter: Planter, directory: Path, verdict: Verdict) -> bool:
    """A log that ends earlier is what a crash a moment ago would have left: sound, and nothing in it is wrong."""
    return verdict.damage.kind.startswith("log ") and set(picture(directory).values()) <= set(planter.picture.values())


def _judge_start(planter: Planter, directory: Path, verdict: Verdict) -> None:
    try:
        engine = Engine(directory, now_ms=NOW_MS)
    except (DirectoryDamaged, SchemaError) as error:
        verdict.refused = str(error)
        seen = picture(directory)
    except Exception as error:
        verdict.faults.append(f"the store ends with {type(error).__name__}: {error}")
        return
    else:
        seen = picture(directory)
        if verdict.damage.place not in ("queue.db", "control.db"):
            result = engine.execute([ops.Lease(NOW_MS + DAY_MS, 60_000, 100)], NOW_MS + DAY_MS)[0][0]
            if verdict.damage.place != "queue" and not (isinstance(result, ops.Leased) and result.items):
                verdict.faults.append(f"the queue stands still: {result}")
        engine.close()
    _compare(planter, seen, verdict)


def _compare(planter: Planter, seen: Picture, verdict: Verdict) -> None:
    lost = [key for key, digest in planter.picture.items() if seen.get(key) != digest]
    verdict.unreadable = len(lost)
    if wrong := [key for key in lost if not verdict.damage.hurts(key)]:
        verdict.faults.append(f"{len(wrong)} unaffected messages do not read as before: {wrong[:3]}")


def _judge_repair(planter: Planter, directory: Path, verdict: Verdict) -> None:
    before = picture(directory)
    try:
        check(directory, repair=True, now_ms=NOW_MS, remaking=_remaking(verdict))
        left = check(directory, remaking=_remaking(verdict)).findings
    except SchemaError:
        return
    except Exception as error:
        verdict.faults.append(f"repair ends with {type(error).__name__}: {error}")
        return
    after = picture(directory)
    if gone := [key for key, digest in before.items() if planter.picture.get(key) == digest != after.get(key)]:
        verdict.faults.append(f"repair took {len(gone)} readable messages: {gone[:3]}")
    kinds = {one.kind for one in left if (one.kind, one.place) not in planter.findings}
    verdict.mended = not kinds
    if not verdict.refused and kinds and kinds <= MENDABLE:
        verdict.faults.append(f"repair leaves {sorted(kinds)}")
