"""A server that may have 300 MB, seven hundred connections, and messages made to be hard (reliability.md, check 15)."""

from __future__ import annotations

import os
import smtplib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.proto.message.messages import bombs
from tests.support.clients import WIRE_S, Wire, imap, letter, messages, smtp_wire, trusting
from tests.support.server import PASSWORD, PROGRAM, LiveServer, Place

pytestmark = [pytest.mark.system, pytest.mark.root, pytest.mark.long, pytest.mark.timeout(600)]
MIB = 1 << 20
LIMIT_OCTETS = 300 * MIB
IMAP, SMTP, BOMB_OCTETS = 500, 200, 2 * MIB
GROUPS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")      # version 1, version 2
FILES = (("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
         ("memory.max", "memory.peak", "memory.events"))


@contextmanager
def limited(server: LiveServer) -> Iterator[tuple[Path, Path]]:
    """The server runs in a control group of its own. Yields where its highest use and the number of kills stand."""
    for place, (limit, peak, kills) in zip(GROUPS, FILES, strict=True):
        group = place / f"fumibako-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(LIMIT_OCTETS))
        except OSError:
            if group.exists():
                group.rmdir()
            continue
        server.program = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *PROGRAM)
        try:
            yield group / peak, group / kills
        finally:
            if server.process is not None:
                server.kill()
            group.rmdir()
        return
    pytest.skip("no control group for memory can be made here")


def _killed(kills: Path) -> int:
    return next(int(line.split()[1]) for line in kills.read_text().split("\n") if line.startswith("oom_kill "))


def _waiting_reader(server: LiveServer, number: int) -> Wire:
    wire = Wire(server.place.endpoint("imaps"), tls=trusting(server), source=f"127.0.4.{1 + number % 50}")
    wire.line()
    for line in (f'LOGIN alice@example.jp "{PASSWORD}"', "SELECT INBOX"):
        assert wire.command(line)[-1].startswith("a OK"), line
    wire.send(b"b IDLE\r\n")
    assert wire.line().startswith("+")
    return wire


def _waiting_sender(server: LiveServer, number: int) -> Wire:
    wire = smtp_wire(server, source=f"127.0.4.{1 + number % 50}")
    for line in ("EHLO c.example", "MAIL FROM:<bob@neighbour.example>", "RCPT TO:<bob@example.jp>"):
        assert wire.ask(line).startswith("250"), line
    return wire


@pytest.mark.usefixtures("many_files")
def test_seven_hundred_peers_and_every_bomb(fresh: LiveServer, place: Place) -> None:
    fresh.init(server__workers="2")
    fresh.populate("example.jp", "alice", "bob")
    fresh.say("policy", "set", "limits.connections_per_address", "1000")
    with limited(fresh) as (peak, kills), ExitStack() as stack:
        fresh.start()
        children = fresh.children()
        for number in range(IMAP):
            stack.enter_context(_waiting_reader(fresh, number))
        for number in range(SMTP):
            stack.enter_context(_waiting_sender(fresh, number))
        taken, refused = _send_bombs(fresh)
        with smtplib.SMTP(*place.endpoint("smtp"), timeout=WIRE_S) as client:
            client.send_message(letter("the last one"), "bob@neighbour.example", ["alice@example.jp"])
        with imap(fresh) as client:
            found = messages(client)
        assert fresh.children() == children and _killed(kills) == 0
        used = int(peak.read_text())
        stack.close()
        fresh.stop()
    print(f"15 {LIMIT_OCTETS // MIB} MB: {IMAP} IMAP, {SMTP} SMTP, {taken} bombs taken and {refused} refused, "
          f"0 kills, peak {used / MIB:.0f} MB with page cache")
    assert len(found) == taken + 1 and taken + refused >= 25
    assert b"the last one" in found[-1]


def _send_bombs(server: LiveServer) -> tuple[int, int]:
    """Each by a connection of its own: how many were taken, how many refused with a code."""
    taken = refused = 0
    for _, octets in bombs(BOMB_OCTETS):
        with smtplib.SMTP(*server.place.endpoint("smtp"), timeout=60) as client:
            try:
                client.sendmail("bob@neighbour.example", ["alice@example.jp"], octets, ["BODY=8BITMIME"])
                taken += 1
            except (smtplib.SMTPDataError, smtplib.SMTPSenderRefused) as error:
                assert 400 <= error.smtp_code < 600
                refused += 1
    return taken, refused
