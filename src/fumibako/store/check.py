"""Does a data directory hold together? Every counter, reference and stored octet, compared with what it is derived from.

Contract: without `repair` nothing of the directory is changed and the server may be up; with it the directory must be
    free (DIR/LOCK), derived values are made again from the entries and records, and nothing that may be somebody's mail
    is deleted: a segment file that no row knows is moved to DIR/orphaned.
Failure: DirectoryInUse; NewerSchema; a database that can't be read is a Finding.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import apsw

from fumibako.store.disk import DiskIO
from fumibako.store.schema import NewerSchema, SchemaError, shape, shape_of, verify
from fumibako.store.segment import SegmentReader, segment_numbers, segment_path
from fumibako.store.sqlite.database import Database, open_reader, open_writer
from fumibako.store.sqlite.engine import DirectoryDamaged, Engine
from fumibako.store.sqlite.layout import CONTROL, QUEUE, SHARD, SPOOL, shard_directory
from fumibako.store.sqlite.mail import RECOVERABLE_MS
from fumibako.store.sqlite.queue import MESSAGE_COLUMNS, RECIPIENT_COLUMNS, parse_envelope, queue_item
from fumibako.store.sqlite.reader import parse_change
from fumibako.store.sqlite.rules import CONTROL_RULES, QUEUE_RULES, SHARD_RULES, SIZES, Rule

ORPHANED = "orphaned"
_PIECE_OCTETS = 1 << 20
# UnicodeDecodeError: a TEXT that isn't any; OverflowError, TypeError: a number that is too large for a place, or NULL.
_UNREADABLE = (apsw.Error, OSError, UnicodeDecodeError, OverflowError, TypeError)
_EXAMPLES = 20          # of one kind; the count is whole


@dataclass(frozen=True, slots=True)
class Finding:
    """kind: a stable word; place: the file; count: how many rows or files; examples: some of them; repaired: now right."""

    kind: str
    place: str
    count: int
    examples: tuple[str, ...]
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """messages and octets: how much was looked at; findings empty: all is well. unfinished: files of the spool, which are no
    damage: bodies that arrive, or whose writer died before anything was acknowledged; the server removes those in an hour."""

    messages: int
    octets: int
    findings: tuple[Finding, ...]
    unfinished: int = 0

    @property
    def sound(self) -> bool:
        return all(finding.repaired for finding in self.findings)


class Remaking(Protocol):
    """Makes what is cached of a body anew while its octets go by (see proto.message.cache)."""

    def feed(self, chunk: bytes) -> None: ...

    def fits(self, data: bytes) -> bool:
        """Whether the cache is what the octets say."""


def check(directory: Path, *, repair: bool = False, now_ms: int = 0, disk: DiskIO | None = None,
          remaking: Callable[[], Remaking] | None = None) -> Report:
    """Look at everything; with `repair` mend what is derived. now_ms: what mended messages without entries are kept from;
    remaking: to compare caches with bodies, None: they are not looked at."""
    disk = disk or DiskIO()
    if repair:
        try:
            # Taking the lock, migrating and cutting orphan tails is what any start does.
            engine = Engine(directory, disk, now_ms)
        except NewerSchema:
            raise
        except (DirectoryDamaged, SchemaError):
            return _Check(directory, disk, False, now_ms, remaking).run()     # nothing can be mended where nothing can be opened
        try:
            return _Check(directory, disk, True, now_ms, remaking).run()
        finally:
            engine.close()
    return _Check(directory, disk, False, now_ms, remaking).run()


class _Check:
    def __init__(self, directory: Path, disk: DiskIO, repair: bool, now_ms: int,
                 remaking: Callable[[], Remaking] | None) -> None:
        self._remaking = remaking
        self._directory, self._disk, self._repair, self._now_ms = directory, disk, repair, now_ms
        self._findings: list[Finding] = []
        self._messages = self._octets = 0
        self._shards: set[str] = set()
        self._wrong_sizes: list[int] = []       # blobs of the database under way whose record says another size
        self._misfits: list[int] = []           # and of which the cache says another thing than the octets

    def run(self) -> Report:
        self._database(CONTROL, CONTROL_RULES, self._look_for_shards)
        self._database(f"{QUEUE}.db", QUEUE_RULES, self._look_at_queue)
        for name in sorted(self._shards or self._shard_directories()):
            self._database(f"{name}/mail.db", SHARD_RULES, partial(self._look_at_shard, name))
        unfinished = len(self._disk.names(self._directory / SPOOL))
        return Report(self._messages, self._octets, tuple(self._findings), unfinished)

    def _look_for_shards(self, control: Database) -> None:
        self._shards = {shard_directory(row[0]) for row in control.rows("SELECT id FROM shard")}

    def _look_at_queue(self, queue: Database) -> None:
        self._segments(queue, Path(QUEUE))
        wrong = []
        messages = f"SELECT {MESSAGE_COLUMNS} FROM q_message"       # noqa: S608 - our own names
        recipients = f"SELECT {RECIPIENT_COLUMNS} FROM q_recipient WHERE message_id = ?"    # noqa: S608
        for message in queue.connection.execute(messages):
            try:
                queue_item(message, queue.rows(recipients, message[0]))
            except ValueError:
                wrong.append(str(message[0]))
        self._note("damaged messages of the queue", f"{QUEUE}.db", wrong)

    def _look_at_shard(self, name: str, shard: Database) -> None:
        self._segments(shard, Path(name) / "seg")
        self._changes(shard, name)
        self._outbox(shard, name)
        self._messages += shard.row("SELECT count(*) FROM email")[0]

    def _changes(self, shard: Database, name: str) -> None:
        wrong = []
        for account_id, modseq, at_ms, data in shard.connection.execute("SELECT account_id, modseq, at_ms, data FROM change"):
            try:
                change = parse_change(data)
            except ValueError:
                wrong.append(f"{account_id} {modseq}")
            else:
                if (change.account_id, change.modseq, change.at_ms) != (account_id, modseq, at_ms):
                    wrong.append(f"{account_id} {modseq}")
        self._note("damaged changes", f"{name}/mail.db", wrong)

    def _outbox(self, shard: Database, name: str) -> None:
        wrong = []
        for row_id, envelope in shard.connection.execute("SELECT id, envelope FROM outbox"):
            try:
                parse_envelope(envelope)
            except ValueError:
                wrong.append(str(row_id))
        self._note("damaged messages of the outbox", f"{name}/mail.db", wrong)

    def _shard_directories(self) -> set[str]:
        return {name for name in self._disk.names(self._directory) if name.startswith(SHARD)}

    def _note(self, kind: str, place: str, examples: list[str], *, repaired: bool = False) -> None:
        if examples:
            self._findings.append(Finding(kind, place, len(examples), tuple(examples[:_EXAMPLES]), repaired))

    def _database(self, name: str, rules: tuple[Rule, ...], look: Callable[[Database], None]) -> None:
        """Its own pages, `look`, our rules. What can't be read on the way is a finding and stops nothing else."""
        path = self._directory / name
        with self._noting(name):
            if not self._disk.size_octets(path):
                raise OSError("the file is empty")
            database = (open_writer if self._repair else open_reader)(path, self._disk.vfs)
            try:
                self._pages(database, name)
                with self._noting(name):
                    look(database)      # first: sizes of messages are made from those of blobs
                self._rules(database, name, rules)
            finally:
                database.close()

    def _pages(self, database: Database, name: str) -> None:
        with self._noting(name):
            faults = [row[0] for row in database.rows("PRAGMA integrity_check") if row[0] != "ok"]
            self._note("damaged database", name, faults)

    def _rules(self, database: Database, name: str, rules: tuple[Rule, ...]) -> None:
        kind = {CONTROL: "control", f"{QUEUE}.db": "queue"}.get(name, "mail")
        try:
            schema = verify(database, kind)
        except NewerSchema:
            raise       # what such a database must be like only its own program knows
        except SchemaError as error:
            self._note("unreadable database", name, [str(error)])
            return
        altered = shape_of(database) ^ shape(kind, schema)
        self._note("altered schema", name, sorted({one[1] for one in altered}))
        for rule in rules:
            if rule.since <= schema:
                with self._noting(name):
                    self._rule(database, name, rule)

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as error:
            known = [found for found in self._findings if (found.kind, found.place) == ("unreadable database", name)]
            if not known:
                self._note("unreadable database", name, [str(error)])

    def _rule(self, database: Database, name: str, rule: Rule) -> None:
        wrong = [" ".join(map(str, row)) for row in database.rows(rule.query)]
        # A size that is wrong in the blob's row must not get into the messages': theirs is what they are read by.
        mended = bool(wrong and self._repair and rule.mend) and not (rule.kind == SIZES and self._wrong_sizes)
        if mended:
            database.run_named(rule.mend, {"later": self._now_ms + RECOVERABLE_MS})
            mended = not database.rows(rule.query)
        self._note(rule.kind, name, wrong, repaired=mended)

    # -- segments --

    def _segments(self, database: Database, place: Path) -> None:
        directory = self._directory / place
        before = set(segment_numbers(self._disk, directory))
        rows = {row[0] for row in database.rows("SELECT id FROM segment")}
        reader = SegmentReader(self._disk, directory)
        self._wrong_sizes, self._misfits = [], []
        self._note("damaged bodies", str(place), list(self._damaged(database, reader)))
        reader.close()
        if self._repair:
            database.many("DELETE FROM email_cache WHERE blob_id = ?", [(blob,) for blob in self._misfits])
        self._note("damaged caches", f"{place.parent}/mail.db", list(map(str, self._misfits)), repaired=self._repair)
        used = {row[0] for row in database.rows("SELECT DISTINCT segment_id FROM blob")}
        # The server may be up: what came or went meanwhile is in one list only. After a crash a file may wait for its name.
        unborn, after = (set(segment_numbers(self._disk, directory, unborn=is_unborn)) for is_unborn in (True, False))
        self._note("missing segments", str(place), [str(number) for number in sorted(used - before - unborn - after)])
        orphans = sorted((before & after) - rows - used)
        if self._repair:
            for number in orphans:
                self._disk.make_directory(self._directory / ORPHANED)
                name = f"{str(place).replace('/', '-')}-{number:010d}.seg"
                self._disk.rename(segment_path(directory, number), self._directory / ORPHANED / name)
        self._note("orphaned segments", str(place), [str(number) for number in orphans], repaired=self._repair)

    def _damaged(self, database: Database, reader: SegmentReader) -> Iterator[str]:
        has_caches = bool(database.row("SELECT 1 FROM sqlite_schema WHERE name = 'email_cache'"))
        for blob, number, offset, size in database.rows("SELECT id, segment_id, offset, size_octets FROM blob ORDER BY id"):
            try:
                header, crc32 = reader.header(number, offset), 0
                cached = database.rows("SELECT data FROM email_cache WHERE blob_id = ?", blob) if has_caches else []
                remaking = self._remaking() if self._remaking and cached else None
                if header.size_octets != size:
                    self._wrong_sizes.append(blob)
                for start in range(0, size, _PIECE_OCTETS):
                    octets = reader.read(number, offset, start, min(size, start + _PIECE_OCTETS))
                    crc32 = zlib.crc32(octets, crc32)
                    if remaking:
                        remaking.feed(octets)
                self._octets += size
                if header.size_octets != size or header.crc32 != crc32:
                    yield f"{blob}: the octets are not those that were stored"
                elif remaking and not remaking.fits(cached[0][0]):
                    self._misfits.append(blob)
            except (OSError, OverflowError) as error:
                yield f"{blob}: {error}"
