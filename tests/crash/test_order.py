"""Octets, fdatasync, rows, sync, and only then the word of success: for every message on every way in.

spec/reliability.md §5.1, check 3.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Iterator

import pytest

from fumibako.proto.imap.client import Literal
from tests.crash.clients import Endpoint, dotted, imap_peer, log_in, smtp_peer
from tests.crash.machine import READERS, SENDER, Machine
from tests.crash.sink import running_sink
from tests.support.ledger import Letter, make_letter
from tests.support.server import Place, needs
from tests.support.strace import Call, NotInOrder, check_order, parse_trace, rows_synced, strace

# Root: the server's processes are not dumpable, so nobody else sees what files their descriptors are.
pytestmark = [pytest.mark.crash, pytest.mark.root, pytest.mark.timeout(120)]

EACH = 12
LARGE = 300_000
ELSEWHERE = "b.example"


async def hand_in(machine: Machine, way: str, letter: Letter, recipient: str = READERS[0]) -> str:
    """The final reply."""
    places: dict[str, Endpoint] = {"lmtp": machine.lmtp, "submission": machine.place.endpoint("submission")}
    async with smtp_peer(places.get(way, machine.place.endpoint("smtp")), "LHLO" if way == "lmtp" else "EHLO") as peer:
        if way == "submission":
            await log_in(peer, SENDER)
        await peer.demand(f"MAIL FROM:<{SENDER if way == 'submission' else 'ledger@sender.example'}>", "250")
        await peer.demand(f"RCPT TO:<{recipient}>", "250")
        if way == "bdat":
            await peer.send(b"BDAT 10\r\n" + letter.octets[:10])
            await peer.reply()
            await peer.send(b"BDAT %d LAST\r\n%b" % (len(letter.octets) - 10, letter.octets[10:]))
        else:
            await peer.demand("DATA", "354")
            await peer.send(dotted(letter.octets))
        return await peer.reply()


async def hand_in_all(machine: Machine) -> dict[str, str]:
    """mark of each letter -> what success said: four at a time, so that commits are shared."""
    told: dict[str, str] = {}
    turns, chance = asyncio.Semaphore(4), random.Random(3)

    async def one(way: str, number: int, size: int) -> None:
        letter = make_letter(f"{way}.{number}.", size, chance, SENDER)
        async with turns:
            reply = await hand_in(machine, way, letter)
        assert reply.startswith("250"), reply
        told[letter.id] = reply[reply.index("accepted, id "):]

    async with asyncio.TaskGroup() as group:
        for way in ("data", "bdat", "lmtp", "submission"):
            for number in range(EACH):
                group.create_task(one(way, number, LARGE if number == 0 else 1_500))
    async with imap_peer(machine.place.endpoint("imap"), READERS[1]) as peer:
        for number in range(EACH):
            letter = make_letter(f"append.{number}.", LARGE if number == 0 else 1_500, chance)
            tagged, _ = await peer.command("APPEND", "INBOX", Literal(letter.octets))
            told[letter.id] = f"[{tagged.code}]"
        await peer.select("INBOX")
        tagged, _ = await peer.command("UID COPY", b"1:3", "Trash")
        told["copy"] = f"[{tagged.code}]"
    await fail_outbound(machine)
    return told


async def fail_outbound(machine: Machine) -> None:
    """A mail whose recipient another server refuses: its sender gets a DSN."""
    letter = make_letter("bounced.1.", 1_500, random.Random(4), SENDER)
    async with running_sink(*sink_place(machine)), imap_peer(machine.place.endpoint("imap"), SENDER) as sender:
        await hand_in(machine, "submission", letter, f"fail-1@{ELSEWHERE}")
        for _ in range(300):
            if (await sender.select("INBOX"))["EXISTS"]:
                return
            await asyncio.sleep(0.1)
    raise AssertionError("no DSN came")


def sink_place(machine: Machine) -> tuple[str, int]:
    return machine.place.address, 2_626


@pytest.fixture(scope="module")
def traced(network: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Call], dict[str, str]]]:
    """One server under strace, one message or more on every way in; what strace saw, and what was told."""
    needs("strace")
    directory = tmp_path_factory.mktemp("order")
    machine = Machine(directory / "data", Place(f"{network}.8"))
    machine.make(workers=2, smarthost=f"{machine.place.address}:2626")
    output = directory / "trace"
    machine.start(tracer=strace(output))
    try:
        told = asyncio.run(hand_in_all(machine))
        tracer = machine.process
        assert tracer is not None
        (supervisor,) = machine.children()
        os.kill(supervisor, signal.SIGTERM)
        tracer.wait(30)
        yield parse_trace(output.read_text("utf-8", "replace").split("\n")), told
    finally:
        machine.kill_all()


@pytest.mark.parametrize("way", ["data", "bdat", "lmtp", "submission", "append"])
def test_every_message_is_durable_before_success(traced: tuple[list[Call], dict[str, str]], way: str) -> None:
    calls, told = traced
    mine = {mark: success for mark, success in told.items() if mark.startswith(way)}
    assert len(mine) == EACH
    for mark, success in mine.items():
        check_order(calls, f"X-Ledger: {mark}", success)


def test_a_copy_is_durable_before_success(traced: tuple[list[Call], dict[str, str]]) -> None:
    calls, told = traced
    asked = next(call for call in calls if call.name.startswith("recv") and "UID COPY" in call.arguments)
    check_order(calls, "", told["copy"], after=asked.end)


def test_a_dsn_is_durable_before_its_cause_is_settled(traced: tuple[list[Call], dict[str, str]]) -> None:
    calls, _ = traced
    (written,) = (call for call in calls if call.name == "pwrite64" and "/queue/" in call.place
                  and "multipart/report" in call.arguments)
    told = next(call for call in calls if call.process == written.process and call.name == "sendto" and call.begin > written.end)
    synced = next(call for call in calls if call.name == "fdatasync" and call.place == written.place and call.begin > written.end)
    assert synced.result == 0 and synced.end < told.begin
    rows_synced(calls, synced.end, told)


@pytest.mark.parametrize("left_out", ["fdatasync of the segment", "fdatasync of the log", "both after success"])
def test_the_check_sees_what_is_missing(traced: tuple[list[Call], dict[str, str]], left_out: str) -> None:
    calls, told = traced
    mark = "data.1."
    told_at = check_order(calls, f"X-Ledger: {mark}", told[mark]).begin
    kinds: dict[str, Callable[[Call], bool]] = {
        "fdatasync of the segment": lambda call: not call.place.endswith(".log") and "-wal" not in call.place,
        "fdatasync of the log": lambda call: "-wal" in call.place, "both after success": lambda call: True,
    }
    wanted = kinds[left_out]
    crippled = [call for call in calls if not (call.name in ("fsync", "fdatasync") and call.end < told_at and wanted(call))]
    with pytest.raises(NotInOrder):
        check_order(crippled, f"X-Ledger: {mark}", told[mark])
