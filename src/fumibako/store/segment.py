"""Bodies on disk: append-only segment files of records, written in order, made durable once a batch, read by pread.

Contract: a record is a header of 128 octets and the body as it is. Small bodies share segments of 64 MB; a large one
    is a file of its own. `append` only notes the record; `flush` makes all noted records durable and must return
    before the transaction that refers to them commits; then `keep`, or `drop` when it failed. A segment number is
    never used twice, so (number, offset) at birth is the blob's id for ever. A file gets its name at the commit of its
    first record; what a crash leaves without one was never answered to anybody, so `settle_names` may remove it.
Failure: OSError of the disk from append and flush; DamagedRecord (an OSError) for a header that is not one.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NewType

from fumibako.model.ops import Body, Refusal
from fumibako.store.disk import DiskIO
from fumibako.store.failpoint import reach
from fumibako.store.trouble import passing_refusal, refusal_of, tell

BlobId = NewType("BlobId", int)     # segment number << 32 | offset of the record where it was born

HEADER_OCTETS = 128
SEGMENT_OCTETS = 64 * 1024 * 1024
_ZERO_AHEAD_OCTETS = 4 * 1024 * 1024
_SUFFIX, _UNBORN = ".seg", ".new"
_MAGIC = b"FBKO"
_VERSION, _CODEC_PLAIN = 1, 0
_OWNERS = 7
# magic, version, codec, number of owners, octets of the body, trace_id, CRC32, SHA-256, owners; then CRC32 of all that
_HEADER = struct.Struct(f">4sBBHQ16sI32s{_OWNERS}q")
_HANDLES = 64


class DamagedRecord(OSError):
    """What stands at the place of a record is not that record."""


class SyncFailed(Exception):
    """The disk did not confirm. What it holds is unknown, and a second fsync would say yes without having written."""


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """What a record says about itself; owners: the first seven accounts it was written for."""

    size_octets: int
    trace_id: bytes
    crc32: int
    sha256: bytes
    owners: tuple[int, ...]


def format_header(body: Body, trace_id: bytes, owners: Sequence[int]) -> bytes:
    kept = tuple(owners[:_OWNERS])
    fields = _HEADER.pack(_MAGIC, _VERSION, _CODEC_PLAIN, len(kept), body.size_octets, trace_id, body.crc32, body.sha256,
                          *kept, *(0,) * (_OWNERS - len(kept)))
    return fields + zlib.crc32(fields).to_bytes(4, "big")


def parse_header(octets: bytes) -> RecordHeader:
    if len(octets) != HEADER_OCTETS or zlib.crc32(octets[:-4]) != int.from_bytes(octets[-4:], "big"):
        raise DamagedRecord("a record header is damaged")
    magic, version, codec, count, size, trace_id, crc32, sha256, *owners = _HEADER.unpack(octets[:-4])
    if magic != _MAGIC or version != _VERSION or codec != _CODEC_PLAIN:
        raise DamagedRecord(f"unknown record {magic!r} version {version} codec {codec}")
    return RecordHeader(size, trace_id, crc32, sha256, tuple(owners[:count]))


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:010d}{_SUFFIX}"


def _unborn_path(directory: Path, number: int) -> Path:
    return directory / f"{number:010d}{_UNBORN}"


def segment_numbers(disk: DiskIO, directory: Path, *, unborn: bool = False) -> list[int]:
    """Numbers of the segment files of a directory, in order; unborn: of those that have no name yet."""
    return _numbers(disk, directory, _UNBORN if unborn else _SUFFIX)


def _numbers(disk: DiskIO, directory: Path, suffix: str) -> list[int]:
    stems = (name.removesuffix(suffix) for name in disk.names(directory) if name.endswith(suffix))
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())


def settle_names(disk: DiskIO, directory: Path, registered: Collection[int]) -> None:
    """At start: a file whose rows were committed gets its name after all; one without rows goes."""
    for number in _numbers(disk, directory, _UNBORN):
        if number in registered:
            disk.rename(_unborn_path(directory, number), segment_path(directory, number))
        else:
            disk.unlink(_unborn_path(directory, number))


def sync_directory(disk: DiskIO, directory: Path) -> None:
    """SyncFailed; OSError where no descriptor is to be had for it: nothing was synced then, and it may be tried again."""
    try:
        disk.fsync_directory(directory)
    except OSError as error:
        if passing_refusal(error.errno or 0) is Refusal.NO_FILES:
            raise
        raise SyncFailed(str(error)) from error


def blob_id(number: int, offset: int) -> BlobId:
    return BlobId(number << 32 | offset)


@dataclass(slots=True)
class _Open:
    """The segment being filled. tail: end of the noted records; safe: end of the committed ones; zeroed: end of the file."""

    number: int
    descriptor: int
    tail: int = 0
    safe: int = 0
    zeroed: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    writes: int
    adopted: int
    number: int
    tail: int


class SegmentWriter:
    """The one writer of a directory of segments.

    directory: of the segments; spool: where large bodies wait; number: the first that was never used.
    """

    def __init__(self, disk: DiskIO, directory: Path, spool: Path, number: int) -> None:
        self._disk, self._directory, self._spool, self._next = disk, directory, spool, number
        self._open: _Open | None = None
        self._writes: list[tuple[int, int, bytes]] = []      # descriptor, offset, octets
        self._adopted: list[tuple[int, str]] = []            # number, name in the spool
        self._filled: list[int] = []                         # descriptors of segments left behind in this batch
        self.limit_octets = min(SEGMENT_OCTETS, max(1 << 20, disk.free_octets(directory) // 16))
        self.unregistered: list[tuple[int, bool]] = []       # (number, own file) whose row is still to be written
        self.sealed: list[int] = []                          # numbers that take no more records
        self._unnamed: list[int] = []       # committed, and still to be renamed
        self._files_made = False

    def append(self, body: Body, trace_id: bytes, owners: Sequence[int]) -> BlobId:
        """Note a record; the id tells its place. FileNotFoundError: the spooled body isn't there."""
        header = format_header(body, trace_id, owners)
        if body.spool:
            return self._adopt(body, header)
        octets = header + body.octets
        place = self._room_for(len(octets))
        offset = place.tail
        self._writes.append((place.descriptor, offset, octets))
        place.tail += len(octets)
        return blob_id(place.number, offset)

    def _room_for(self, size_octets: int) -> _Open:
        place = self._open
        if place and (not place.tail or place.tail + size_octets <= self.limit_octets):
            return place
        descriptor = self._disk.open_new(_unborn_path(self._directory, self._next))     # where it fails, the old one stays
        if place:
            self.sealed.append(place.number)
            self._filled.append(place.descriptor)
        place = self._open = _Open(self._take_number(own=False), descriptor)
        return place

    def _take_number(self, own: bool) -> int:
        number, self._next = self._next, self._next + 1
        self.unregistered.append((number, own))
        self._files_made = True
        return number

    def _adopt(self, body: Body, header: bytes) -> BlobId:
        """A spooled body becomes a segment by a second name; it keeps its first until the commit."""
        source = self._spool / Path(body.spool).name
        if self._disk.size_octets(source) != HEADER_OCTETS + body.size_octets:
            raise DamagedRecord(f"spooled body {body.spool} has another size")
        self._disk.link(source, _unborn_path(self._directory, self._next))
        number = self._take_number(own=True)
        self._adopted.append((number, source.name))
        reach("spool-adopted")
        descriptor = self._disk.open_write(source)
        try:
            # A body handed over from the queue has its header already: the file is one inode under two names.
            if not any(self._disk.pread(descriptor, HEADER_OCTETS, 0)):
                self._disk.pwrite(descriptor, header, 0)
            self._sync(descriptor)
        finally:
            self._disk.close(descriptor)
        return blob_id(number, 0)

    def mark(self) -> Mark:
        place = self._open
        return Mark(len(self._writes), len(self._adopted), place.number if place else 0, place.tail if place else 0)

    def rewind(self, mark: Mark) -> None:
        """Forget what was noted since `mark`: the operation was refused."""
        del self._writes[mark.writes:]
        if self._open:
            self._open.tail = mark.tail if self._open.number == mark.number else 0
        self._unlink_adopted(mark.adopted)

    def _unlink_adopted(self, start: int) -> None:
        for number, _ in self._adopted[start:]:
            self._unlink(_unborn_path(self._directory, number))
            self.unregistered.remove((number, True))
        del self._adopted[start:]

    def flush(self) -> None:
        """Everything noted is durable when this returns. An error of fdatasync is final: see Engine."""
        touched = set()
        for descriptor, offset, octets in _joined(self._writes):
            self._disk.pwrite(descriptor, octets, offset)
            touched.add(descriptor)
        self._zero_ahead()
        reach("segment-written")
        for descriptor in touched:
            self._sync(descriptor)
        reach("segment-synced")
        if self._files_made:
            sync_directory(self._disk, self._directory)

    def _sync(self, descriptor: int) -> None:
        try:
            self._disk.fdatasync(descriptor)
        except OSError as error:
            raise SyncFailed(str(error)) from error

    def _zero_ahead(self) -> None:
        # Writing into a file that has its blocks costs fdatasync half: no metadata goes along (spec: 0.09 against 0.21 ms).
        place = self._open
        if place and place.tail > place.zeroed:
            step = min(_ZERO_AHEAD_OCTETS, max(64 * 1024, place.tail))
            end = max(place.tail, min(place.tail + step, self.limit_octets))
            self._disk.pwrite(place.descriptor, bytes(end - place.tail), place.tail)
            place.zeroed = end

    def keep(self) -> None:
        """The transaction is durable: records stay, files get their names, spool files go."""
        if self._open:
            self._open.safe = self._open.tail
        self._unnamed += [number for number, _ in self.unregistered]
        self._give_names()
        for _, name in self._adopted:
            self._unlink(self._spool / name)    # its writer may have abandoned it: the segment's name holds the file
        self.unregistered.clear()
        self.sealed.clear()
        self._forget()

    def _give_names(self) -> None:
        """What finds no room in its directory now gets its name at a later commit, or at the next start; it is read without."""
        while self._unnamed:
            number = self._unnamed[0]
            try:
                self._disk.rename(_unborn_path(self._directory, number), segment_path(self._directory, number))
            except OSError as error:
                if passing_refusal(error.errno or 0) is None:
                    raise
                tell(str(segment_path(self._directory, number)), refusal_of(error), error.strerror)
                return
            del self._unnamed[0]

    def _unlink(self, path: Path) -> None:
        """A second name, which goes sooner or later: in the spool in an hour, in the directory at the next start."""
        try:
            self._disk.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if passing_refusal(error.errno or 0) is None:
                raise
            tell(str(path), refusal_of(error), error.strerror)

    def drop(self) -> None:
        """The transaction failed: the places are free again, spool files stay."""
        self._unlink_adopted(0)
        if self._open:
            self._open.tail = self._open.safe
        self._forget()

    def _forget(self) -> None:
        self._writes.clear()
        self._adopted.clear()
        for descriptor in self._filled:
            self._disk.close(descriptor)
        self._filled.clear()
        self._files_made = bool(self.unregistered)

    def close(self) -> None:
        self._forget()
        if self._open:
            self._disk.close(self._open.descriptor)
            self._open = None


def _joined(writes: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Neighbouring writes as one."""
    joined: list[tuple[int, int, list[bytes], int]] = []
    for descriptor, offset, octets in writes:
        if joined and joined[-1][0] == descriptor and joined[-1][3] == offset:
            last = joined.pop()
            last[2].append(octets)
            joined.append((descriptor, last[1], last[2], offset + len(octets)))
        else:
            joined.append((descriptor, offset, [octets], offset + len(octets)))
    return [(descriptor, offset, b"".join(parts)) for descriptor, offset, parts, _ in joined]


class _Handle:
    """A descriptor that closes itself when its last reader has let go."""

    __slots__ = ("_disk", "descriptor")

    def __init__(self, disk: DiskIO, descriptor: int) -> None:
        self._disk, self.descriptor = disk, descriptor

    def __del__(self) -> None:
        self._disk.close(self.descriptor)


class SegmentReader:
    """Reads records of a directory of segments; usable from several threads."""

    def __init__(self, disk: DiskIO, directory: Path) -> None:
        self._disk, self._directory = disk, directory
        self._handles: dict[int, _Handle] = {}
        self._lock = threading.Lock()

    def read(self, number: int, offset: int, start: int, end: int) -> bytes:
        """Octets start..end of the body of the record at offset. FileNotFoundError: the segment is gone."""
        octets = self._disk.pread(self._handle(number).descriptor, end - start, offset + HEADER_OCTETS + start)
        if len(octets) != end - start:
            raise DamagedRecord(f"segment {number} ends before octet {offset + HEADER_OCTETS + end}")
        return octets

    def header(self, number: int, offset: int) -> RecordHeader:
        return parse_header(self._disk.pread(self._handle(number).descriptor, HEADER_OCTETS, offset))

    def _handle(self, number: int) -> _Handle:
        with self._lock:
            handle = self._handles.pop(number, None)
            if handle is None:
                handle = _Handle(self._disk, self._descriptor(number))
                if len(self._handles) >= _HANDLES:
                    del self._handles[next(iter(self._handles))]
            self._handles[number] = handle      # the one used last stands last
            return handle

    def _descriptor(self, number: int) -> int:
        """A row can be read a moment before its file gets its name, so that one is looked up twice."""
        for path in (segment_path(self._directory, number), _unborn_path(self._directory, number)):
            try:
                return self._disk.open_read(path)
            except FileNotFoundError:
                pass
        return self._disk.open_read(segment_path(self._directory, number))

    def close(self) -> None:
        with self._lock:
            self._handles.clear()
