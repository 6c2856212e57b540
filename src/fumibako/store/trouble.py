"""What a disk or the kernel refuses: as a refusal for the client, and as one line for the administrator.

Contract: a full disk, an exhausted disk quota and a lack of descriptors pass, and leave everything as it was. `tell` names
    file and cause once and then once a minute for as long as it lasts: a log may lie on the same disk.
Failure: none.
"""

from __future__ import annotations

import errno
import logging
import os
import time

from fumibako.model.ops import Refusal

_log = logging.getLogger(__name__)

AGAIN_S = 60.0

_REFUSALS = {
    errno.ENOSPC: Refusal.DISK_FULL, errno.EDQUOT: Refusal.DISK_FULL,
    errno.EMFILE: Refusal.NO_FILES, errno.ENFILE: Refusal.NO_FILES,
}
_WORDS = {
    Refusal.DISK_FULL: "the disk is full or its quota is used up; nothing new is taken until there is room again",
    Refusal.NO_FILES: "no more files may be open; raise LimitNOFILE (ulimit -n) or lower limits.connections",
    Refusal.LOCKED: "another program holds a lock on it; nothing is written until it lets go",
    Refusal.DISK_ERROR: "the disk does not do its work; look at the system's log",
}
_told_s: dict[tuple[str, Refusal], float] = {}


def passing_refusal(number: int) -> Refusal | None:
    """The refusal for an errno that passes by itself or with the administrator's help; None: it is none of those."""
    return _REFUSALS.get(number)


def refusal_of(error: OSError) -> Refusal:
    """Why a file of ours could not be written."""
    return _REFUSALS.get(error.errno or 0, Refusal.DISK_ERROR)


def tell(place: str, refusal: Refusal, cause: object) -> None:
    """One line in the log. place: the file, directory or database; cause: as the kernel or SQLite said it."""
    now_s, key = time.monotonic(), (os.path.dirname(place) or place, refusal)
    if now_s - _told_s.get(key, -AGAIN_S) >= AGAIN_S:
        _told_s[key] = now_s
        _log.warning("%s: %s (%s)", place, _WORDS.get(refusal, str(refusal)), cause)


def forget() -> None:
    """What was told counts no more, so that the next trouble is told at once."""
    _told_s.clear()
