"""`fumibako` with one thing changed: `python -m tests.crash.power_serve CHANGE serve --data DIR`.

small-segments: a segment is full after 1 MiB. short-times: so it is, and what is expunged is purged, compacted and unlinked
within a second. small-pieces: a restore into an account takes two messages at a time. no-segment-sync, no-log-sync: a store
that says yes too early, to see it found out.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fumibako.__main__ import main
from fumibako.services import recall
from fumibako.store import process, segment
from fumibako.store.disk import DiskIO
from fumibako.store.sqlite import compaction, engine, mail
from fumibako.store.sqlite.database import Database, open_writer


def _no_log_sync(path: Path, vfs: str = "") -> Database:
    database = open_writer(path, vfs)
    database.run("PRAGMA synchronous = NORMAL")
    return database


def change(what: str) -> None:
    if what == "small-segments":
        segment.SEGMENT_OCTETS = 1 << 20
    elif what == "short-times":
        segment.SEGMENT_OCTETS, mail.RECOVERABLE_MS, compaction.REPLACED_MS = 1 << 20, 0, 300
        process.IDLE_S, process.PAUSE_S, process.BUSY_MS = 0.05, 0.005, (50, 20)
    elif what == "small-pieces":
        recall.PIECE_MESSAGES = 2
    elif what == "no-segment-sync":
        DiskIO.fdatasync = lambda self, descriptor: None    # type: ignore[method-assign]
    elif what == "no-log-sync":
        engine.open_writer = _no_log_sync       # type: ignore[attr-defined]
    else:
        raise ValueError(what)


if __name__ == "__main__":
    change(sys.argv.pop(1))
    sys.exit(main())
