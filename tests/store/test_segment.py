"""Records in segment files."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.model.ops import Body
from fumibako.store.disk import DiskIO
from fumibako.store.segment import (
    HEADER_OCTETS,
    DamagedRecord,
    RecordHeader,
    SegmentReader,
    SegmentWriter,
    SyncFailed,
    format_header,
    parse_header,
    segment_numbers,
)
from tests.contract.building import body, trace
from tests.store.disks import FailingDisk


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture
def writer(tmp_path: Path, disk: FailingDisk) -> SegmentWriter:
    for name in ("seg", "spool"):
        (tmp_path / name).mkdir()
    return SegmentWriter(disk, tmp_path / "seg", tmp_path / "spool", 1)


def read(tmp_path: Path, blob: int, size: int) -> bytes:
    return SegmentReader(DiskIO(), tmp_path / "seg").read(blob >> 32, blob & 0xFFFFFFFF, 0, size)


@given(size=st.integers(0, 2**40), sha=st.binary(min_size=32, max_size=32), crc=st.integers(0, 2**32 - 1),
       trace_id=st.binary(min_size=16, max_size=16), owners=st.lists(st.integers(0, 2**62), max_size=10))
def test_header_round_trip(size: int, sha: bytes, crc: int, trace_id: bytes, owners: list[int]) -> None:
    octets = format_header(Body(size, sha, crc), trace_id, owners)
    assert len(octets) == HEADER_OCTETS
    assert parse_header(octets) == RecordHeader(size, trace_id, crc, sha, tuple(owners[:7]))


@given(octets=st.binary(max_size=200))
def test_what_is_no_header(octets: bytes) -> None:
    with pytest.raises(DamagedRecord):
        parse_header(octets)


@given(at=st.integers(0, HEADER_OCTETS - 1), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(at: int, bit: int) -> None:
    octets = bytearray(format_header(body(), trace(1), [1]))
    octets[at] ^= 1 << bit
    with pytest.raises(DamagedRecord):
        parse_header(bytes(octets))


def test_records_are_there_after_flush(tmp_path: Path, writer: SegmentWriter) -> None:
    blobs = [writer.append(body(b"%d" % number * 100), trace(number), ()) for number in range(5)]
    assert (tmp_path / "seg" / "0000000001.new").stat().st_size == 0
    writer.flush()
    assert [read(tmp_path, blob, 100) for blob in blobs] == [b"%d" % number * 100 for number in range(5)]
    assert writer.unregistered == [(1, False)]
    writer.keep()
    assert writer.unregistered == []


def test_rewind_forgets_the_last_records(tmp_path: Path, writer: SegmentWriter) -> None:
    writer.append(body(b"kept"), trace(1), ())
    mark = writer.mark()
    lost = writer.append(body(b"lost"), trace(2), ())
    writer.rewind(mark)
    again = writer.append(body(b"next"), trace(3), ())
    writer.flush()
    assert again == lost and read(tmp_path, again, 4) == b"next"


def test_drop_frees_the_places_of_a_failed_batch(tmp_path: Path, writer: SegmentWriter, disk: FailingDisk) -> None:
    first = writer.append(body(b"first"), trace(1), ())
    writer.flush()
    writer.keep()
    lost = writer.append(body(b"never"), trace(2), ())
    disk.fail, disk.code = "pwrite", errno.ENOSPC
    with pytest.raises(OSError, match="injected"):
        writer.flush()
    writer.drop()
    disk.fail = ""
    again = writer.append(body(b"later"), trace(3), ())
    writer.flush()
    assert again == lost and read(tmp_path, first, 5) == b"first" and read(tmp_path, again, 5) == b"later"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
def test_bug_a_segment_was_closed_twice_where_the_next_could_not_be_opened(
        tmp_path: Path, writer: SegmentWriter, disk: FailingDisk, code: int) -> None:
    """The writer went on with the number of the closed descriptor, which another file had by then."""
    first = writer.append(body(b"first"), trace(1), ())
    writer.flush()
    writer.keep()
    writer.limit_octets = 200
    disk.fail, disk.code = "open_new", code
    mark = writer.mark()
    with pytest.raises(OSError, match="injected"):
        writer.append(body(b"x" * 100), trace(2), ())
    writer.rewind(mark)
    writer.drop()
    disk.fail = ""
    bystander = (tmp_path / "bystander").open("wb")     # gets the lowest free number
    for number in range(3, 6):
        blob = writer.append(body(b"%d" % number * 100), trace(number), ())
        writer.flush()
        writer.keep()
        assert read(tmp_path, blob, 100) == b"%d" % number * 100
    bystander.close()
    assert (tmp_path / "bystander").stat().st_size == 0 and read(tmp_path, first, 5) == b"first"


def test_bug_no_room_for_a_name_ended_the_store_behind_a_commit(
        tmp_path: Path, writer: SegmentWriter, disk: FailingDisk) -> None:
    blob = writer.append(body(b"first"), trace(1), ())
    writer.flush()
    disk.fail, disk.code = "rename", errno.ENOSPC
    writer.keep()
    assert writer.unregistered == [] and read(tmp_path, blob, 5) == b"first"
    disk.fail = ""
    writer.append(body(b"next"), trace(2), ())
    writer.flush()
    writer.keep()
    assert [path.name for path in (tmp_path / "seg").iterdir()] == ["0000000001.seg"]


@pytest.mark.parametrize("name", ["fdatasync", "fsync_directory"])
def test_a_failed_sync_says_so(writer: SegmentWriter, disk: FailingDisk, name: str) -> None:
    writer.append(body(), trace(1), ())
    disk.fail = name
    with pytest.raises(SyncFailed):
        writer.flush()


def test_a_segment_begins_small_and_grows(tmp_path: Path, writer: SegmentWriter) -> None:
    sizes = []
    for number in range(60):
        writer.append(body(b"x" * 10_000), trace(number), ())
        writer.flush()
        writer.keep()
        sizes.append((tmp_path / "seg" / "0000000001.seg").stat().st_size)
    assert sizes[0] <= 80_000 and sizes == sorted(sizes) and len(set(sizes)) <= 7


def test_adopting_a_spooled_body(tmp_path: Path, writer: SegmentWriter) -> None:
    octets = b"large" * 100
    (tmp_path / "spool" / "name").write_bytes(bytes(HEADER_OCTETS) + octets)
    whole = body(octets)
    large = Body(len(octets), whole.sha256, whole.crc32, spool="name")
    mark = writer.mark()
    writer.append(large, trace(1), (5,))
    writer.rewind(mark)
    assert segment_numbers(DiskIO(), tmp_path / "seg") == [] and writer.unregistered == []
    blob = writer.append(large, trace(1), (5,))
    writer.flush()
    assert (tmp_path / "spool" / "name").exists()
    writer.keep()
    assert not (tmp_path / "spool" / "name").exists()
    assert blob == 2 << 32 and read(tmp_path, blob, 500) == octets
    assert SegmentReader(DiskIO(), tmp_path / "seg").header(2, 0).owners == (5,)


def test_a_spooled_body_of_another_size_is_refused(tmp_path: Path, writer: SegmentWriter) -> None:
    (tmp_path / "spool" / "name").write_bytes(bytes(HEADER_OCTETS + 3))
    with pytest.raises(DamagedRecord, match="size"):
        writer.append(Body(4, bytes(32), 0, spool="name"), trace(1), ())
    with pytest.raises(FileNotFoundError):
        writer.append(Body(4, bytes(32), 0, spool="../../etc/passwd"), trace(1), ())


def test_reading_beyond_the_end(tmp_path: Path, writer: SegmentWriter) -> None:
    blob = writer.append(body(b"abc"), trace(1), ())
    writer.flush()
    with pytest.raises(DamagedRecord, match="ends before"):
        read(tmp_path, blob, 10**7)
    with pytest.raises(FileNotFoundError):
        read(tmp_path, 99 << 32, 1)


def test_descriptors_of_readers_are_bounded(tmp_path: Path, writer: SegmentWriter) -> None:
    writer.limit_octets = 1
    blobs = [writer.append(body(b"%03d" % number), trace(number), ()) for number in range(100)]
    writer.flush()
    writer.keep()
    reader = SegmentReader(DiskIO(), tmp_path / "seg")
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert [reader.read(blob >> 32, 0, 0, 3) for blob in blobs] == [b"%03d" % number for number in range(100)]
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 65
    reader.close()
