"""Named places where a crash test lets this process die as by kill -9; in production one comparison with "".

Contract: FUMIBAKO_FAILPOINT=name:count kills the process that reaches `name` for the count-th time: SIGKILL to itself, so
    that no handler, no buffer and no `finally` runs. name@Operation counts only visits on behalf of such an operation.
    FAILPOINTS are the server's, in the order a delivery meets them, BY_OPERATION those that know the operation;
    COMMAND_FAILPOINTS are met by `fumibako backup` and `restore` alone.
Failure: ValueError at import for a name that doesn't exist.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

FAILPOINTS = (
    "spool-synced",         # worker: a large body is on disk, storage does not know of it
    "before-request",       # worker or jobs: an operation is about to be handed to storage
    "batch-begun",          # a transaction is open, nothing is in it
    "spool-adopted",        # a spooled body has its second name, nothing refers to it
    "operation-done",       # rows and records are noted, nothing is written
    "mid-lease",            # recipients are leased, the transaction is open
    "mid-settle",           # outcomes are recorded, the DSNs they cause are not
    "segment-written",      # records stand in the segment, not synced
    "segment-synced",       # records are durable
    "before-commit",        # so is the directory that names their file
    "after-commit",         # rows are durable, new files have no name yet, spool files still have theirs
    "before-answer",        # the batch is durable, nobody was told
    "half-answered",        # one worker has its answers, the others don't
    "after-response",       # worker or jobs: the answer is here, nobody has acted on it
    "mid-outbox",           # the queue has the message, the outbox still has it too
    "blobs-moved",          # compaction: records and rows are noted, nothing is written; then as a batch from "segment-written"
    "segment-condemned",    # an hour after its last blob left: the file is still there
    "segment-unlinked",     # it is gone, but may come back with a power cut
    "unlink-synced",        # it is gone for good, its row is not
    "mid-migration",        # the tables of a step are made, its transaction is open
    "database-opened",      # a database is there, its tables may not be
    "shard-directory",      # the directories of a new shard are made, its database is not
    "shard-opened",         # so is its database, no row knows it
    "mid-recovery",         # a segment is cut, not yet marked as cut
    "recovered",            # everything is open, nothing was served
)

COMMAND_FAILPOINTS = (
    "backup-database",      # a backup has one more database
    "backup-segment",       # a backup has one more segment
    "backup-complete",      # a backup is durable and has no name yet
    "restore-marked",       # the data directory says that a restore is under way, nothing of it is touched
    "restore-emptied",      # what lay there is gone
    "restore-copied",       # the files are there, their counters are still the backup's
    "restore-counted",      # one more database has its new counters
    "restore-complete",     # everything is there, the mark as well
)


BY_OPERATION = ("before-request", "before-commit", "after-commit", "before-answer", "after-response")

_name, _operation, _visits_left = "", "", 0


def arm(text: str) -> None:
    """text: "name:count" or "name@Operation:count", or "" for none."""
    global _name, _operation, _visits_left
    place, _, count = text.partition(":")
    name, at, operation = place.partition("@")
    if name and name not in FAILPOINTS + COMMAND_FAILPOINTS:
        raise ValueError(f"FUMIBAKO_FAILPOINT: {name!r} is none of {', '.join(FAILPOINTS)}")
    if at and name not in BY_OPERATION:
        raise ValueError(f"FUMIBAKO_FAILPOINT: {name!r} knows no operations, only {', '.join(BY_OPERATION)} do")
    _name, _operation, _visits_left = name, operation, int(count or 1)


def reach(name: str, operations: Iterable[type] = ()) -> None:
    """Say that the process is at the place `name`; operations: on behalf of which kinds."""
    if name == _name:
        _visit(operations)


def _visit(operations: Iterable[type]) -> None:
    global _visits_left  # noqa: PLW0603 (a process has one life)
    if _operation and not any(kind.__name__ == _operation for kind in operations):
        return
    _visits_left -= 1
    if _visits_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get("FUMIBAKO_FAILPOINT", ""))
