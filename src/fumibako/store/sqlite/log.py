"""Is the write-ahead log of a database whole? SQLite itself stops at the first frame that isn't, and says nothing.

Specification: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
Contract: only reads. A frame that is not whole is damage when frames of the same round stand behind it: a log is written in
    order. At its end it is what a write that failed or was cut off leaves, and nobody was told of that commit. Frames of an
    earlier round carry other salts.
Failure: OSError.
"""

from __future__ import annotations

import struct
from pathlib import Path

from fumibako.store.disk import DiskIO

_HEADER = struct.Struct(">8I")      # magic, format, page size, checkpoint, salt 1 and 2, checksum 1 and 2
_FRAME = struct.Struct(">6I")       # page, pages after a commit or 0, salt 1 and 2, checksum 1 and 2
_BIG_ENDIAN, _MAGIC = 1, 0x377F0682
_MASK = 0xFFFFFFFF

_Sum = tuple[int, int]


def log_fault(path: Path, disk: DiskIO) -> str:
    """What is wrong with the log of the database at `path`, "" where nothing is."""
    log = path.with_name(path.name + "-wal")
    fault = _fault(_octets(log, disk))
    # With the server up a frame may have been half written; a second look sees it whole.
    return _fault(_octets(log, disk)) if fault else ""


def _octets(log: Path, disk: DiskIO) -> bytes:
    try:
        descriptor = disk.open_read(log)
    except FileNotFoundError:
        return b""
    try:
        return disk.pread(descriptor, disk.size_octets(log), 0)
    finally:
        disk.close(descriptor)


def _fault(octets: bytes) -> str:
    if len(octets) <= _HEADER.size + _FRAME.size:
        return ""
    magic, _, page_octets, _, *salts, first, second = _HEADER.unpack_from(octets)
    order = ">" if magic & _BIG_ENDIAN else "<"
    checksum = _checksum(octets[:24], (0, 0), order)
    if magic & ~_BIG_ENDIAN != _MAGIC or checksum != (first, second):
        return "the header of the log is damaged"
    step = _FRAME.size + page_octets
    for number, at in enumerate(range(_HEADER.size, len(octets) - step + 1, step), 1):
        _, _, *own_salts, first, second = _FRAME.unpack_from(octets, at)
        checksum = _checksum(octets[at + 24:at + step], _checksum(octets[at:at + 8], checksum, order), order)
        if own_salts != salts or checksum != (first, second):
            behind = any(list(_FRAME.unpack_from(octets, later)[2:4]) == salts
                         for later in range(at + step, len(octets) - step + 1, step))
            return f"frame {number} of the log is damaged, and others stand behind it" if behind else ""
    return ""


def _checksum(octets: bytes, before: _Sum, order: str) -> _Sum:
    first, second = before
    words = struct.unpack(f"{order}{len(octets) // 4}I", octets)
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _MASK
        second = (second + two + first) & _MASK
    return first, second
