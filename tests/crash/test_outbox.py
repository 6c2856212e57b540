"""Outboxes of several shards on disks that fill up: each shard for itself, and nothing twice, however late a row goes."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from fumibako.model import ops
from fumibako.model.ids import AccountId
from fumibako.model.queue import Outcome, OutcomeKind
from fumibako.store.sqlite.database import open_reader
from fumibako.store.sqlite.engine import Engine
from tests.crash import post, story
from tests.crash.disks import FaultyDisk, Trigger

pytestmark = pytest.mark.crash

ANN, CAT = AccountId(1), AccountId(3)       # in the first shard and in the second
RELAYED = Outcome(OutcomeKind.RELAYED, "2.0.0", "")


def forward(number: int, account: AccountId) -> ops.Deliver:
    large = story.forward(number, story.inline(number))
    recipients = (ops.LocalRecipient(account, f"{account}@a.example", b""),)
    return ops.Deliver(large.trace_id, large.body, b"", recipients, story.NOW_MS, outgoing=large.outgoing)


def execute(engine: Engine, *operations: ops.Operation) -> list[ops.Result]:
    results = [result for result, _ in engine.execute(list(operations), story.NOW_MS)]    # type: ignore[arg-type]
    assert not any(isinstance(one, Exception) for one in results), results
    return results      # type: ignore[return-value]


def send_all(engine: Engine) -> int:
    """Everything in the queue goes out; how many messages that were."""
    leased, = execute(engine, ops.Lease(story.NOW_MS, 1_000, 100))
    assert isinstance(leased, ops.Leased)
    for item in leased.items:
        outcomes = tuple(ops.RecipientOutcome(one.id, one.attempts, RELAYED) for one in item.recipients)
        execute(engine, ops.Settle(item.id, outcomes))
    return len(leased.items)


def left(directory: Path) -> list[int]:
    """Outbox rows of the first two shards."""
    found = []
    for shard in ("shard-001", "shard-002"):
        database = open_reader(directory / shard / "mail.db")
        found.append(database.row("SELECT count(*) FROM outbox")[0])
        database.close()
    return found


@pytest.mark.parametrize("full", ["shard-001/mail.db", "shard-002/mail.db", "queue"])
def test_a_full_disk_delays_its_own_and_doubles_nothing(tmp_path: Path, full: str) -> None:
    post.make(tmp_path / "template")
    for at in range(1, 50):
        directory, trigger = tmp_path / str(at), Trigger("write", 1 << 60, errno.ENOSPC, sticky=True, below=full)
        shutil.copytree(tmp_path / "template", directory)
        engine = Engine(directory, FaultyDisk(trigger), story.NOW_MS)
        execute(engine, *(forward(number, account) for number, account in ((1, ANN), (2, CAT), (3, ANN), (4, CAT))))
        trigger.at = trigger.seen + at
        drained, = execute(engine, ops.DrainOutbox())
        trigger.mend()
        rows = left(directory)
        if full != "queue":
            struck = int(full[8]) - 1
            assert rows[1 - struck] == 0, "the other shard's are through"
            assert rows[struck] == (2 if trigger.fired else 0)
            assert send_all(engine) == 4        # they are in the queue already, and known there for good
        if trigger.fired:
            assert isinstance(drained, ops.Refused) and drained.refusal is ops.Refusal.DISK_FULL
        assert isinstance(execute(engine, ops.DrainOutbox())[0], ops.Counted)
        assert left(directory) == [0, 0]
        assert send_all(engine) == (4 if full == "queue" else 0)
        engine.close()
        assert not story.faults(directory)
        if not trigger.fired:
            assert at > 1
            return
    raise AssertionError("the sweep does not end")
