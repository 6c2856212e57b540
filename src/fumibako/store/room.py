"""When the disk counts as full: before it is, so that reading, deleting and delivering out go on.

Contract: a body is taken while the free octets are at least the reserve and one and a half times its size (the body, and
    what databases and logs add); a rule of its own, because it is asked at MAIL and again in front of the commit.
Failure: OSError of the disk.
"""

from __future__ import annotations

from pathlib import Path

from fumibako.store.disk import DiskIO

RESERVE_OCTETS = 64 * 1024 * 1024
RESERVE_PART = 8        # of a small disk no more than this part of it


def reserve_octets(disk: DiskIO, directory: Path) -> int:
    """What is kept free on the disk of `directory`."""
    return min(RESERVE_OCTETS, disk.capacity_octets(directory) // RESERVE_PART)


def has_room(free_octets: int, reserve: int, size_octets: int) -> bool:
    """Whether a body of that size may be taken."""
    return free_octets >= max(reserve, size_octets + size_octets // 2)
