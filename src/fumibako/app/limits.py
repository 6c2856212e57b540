"""How many files a process may open and when that is enough for connections; and memory that goes back to the system.

Specification: getrlimit(2), mallopt(3).
Contract: connections are taken until four fifths of the files are open; the rest is for storage, names, and deliveries.
Failure: none.
"""

from __future__ import annotations

import ctypes
import resource
import sys

_SHARE = 0.8     # of the limit
_M_MMAP_THRESHOLD, _LARGE_OCTETS = -3, 1 << 20


def allow_most_files() -> None:
    """The soft limit is what select(2) can stand, the hard one what the system allows (systemd's setting since v240)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass        # some systems say "unlimited" and mean less


def files_allowed() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


def is_beyond(descriptor: int) -> bool:
    """Whether a new file's number lies beyond four fifths of the limit: numbers are given from the lowest free one."""
    return descriptor >= files_allowed() * _SHARE


def give_back_large_memory() -> None:
    """What is large is mapped by itself and goes back to the system when it is freed.

    glibc raises its own limit for that to the size of whatever was freed; from then on the views of large mailboxes leave
    holes behind. Other C libraries have no such call and no such habit.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_OCTETS)
