"""The demonstration's parts without its servers: what is shown, how, and what counts as a failure."""

from __future__ import annotations

import asyncio
import io
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from fumibako.config import parse_config
from fumibako.faces.cli.demonstration import decoding, plug, settings, show
from fumibako.faces.cli.demonstration.clients import imap_line
from fumibako.faces.cli.demonstration.failed import Failed
from fumibako.faces.cli.demonstration.forwarder import forwarding
from fumibako.faces.cli.demonstration.journey import ALICE, BOB
from fumibako.faces.cli.demonstration.maildir import messages_of
from fumibako.faces.cli.demonstration.picture import draw
from fumibako.faces.cli.demonstration.screen import Screen, recording_console
from fumibako.faces.cli.demonstration.trail import Trail, seconds_between, text_of
from fumibako.faces.cli.demonstration.world import HIGH, REAL, Server, World
from fumibako.net.clock import Clock
from fumibako.net.endpoint import Endpoint
from fumibako.net.resolver import Resolver, ResolverFailure, ResolverOptions
from fumibako.proto.dns.message import Response, format_response, parse_query
from fumibako.proto.dns.records import Rcode
from fumibako.proto.imap.client import parse_response
from fumibako.proto.smtp.reply import Reply
from fumibako.services.texts import text


def words(message: str, **values: object) -> str:
    return text("en", message, **values)


def plain_screen() -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    return Screen(words, Console(file=out, highlight=False)), out


# -- what is shown --


def test_a_plain_row_is_one_line_however_long() -> None:
    screen, out = plain_screen()
    screen.act("act")
    screen.row("what", "word " * 60)
    assert out.getvalue() == f"\n1  act\nok   what: {'word ' * 60}\n"


def test_one_failed_row_is_a_failure() -> None:
    screen, out = plain_screen()
    screen.act("act")
    screen.row("good", "250 ok")
    assert screen.passed
    screen.row("bad", "550 no", passed=False)
    screen.verdict()
    assert not screen.passed
    assert "FAIL bad: 550 no\n" in out.getvalue()
    assert "1 of 2 lines above are not as they should be." in out.getvalue()


def test_a_peer_can_neither_move_the_cursor_nor_write_mark_up() -> None:
    screen, out = plain_screen()
    screen.row("what", "\x1b[2J[bold]x[/bold]\u202ey\r\n")
    assert out.getvalue() == "ok   what: \ufffd[2J[bold]x[/bold]\ufffdy  \n"


def test_a_table_row_is_a_row() -> None:
    screen, _ = plain_screen()
    columns = (("where", 1), ("as sent", 1), ("as others read it", 1), ("as we do", 1))
    screen.table(columns, [(False, ["Subject", "=?x?=", "x", "y"])])
    assert [(row.what, row.passed, row.evidence) for row in screen.rows] == [("Subject: =?x?=", False, "x | y")]


def test_a_terminal_shows_columns() -> None:
    out = io.StringIO()
    screen = Screen(words, Console(file=out, force_terminal=True, width=100, color_system=None))
    screen.row("what", "x" * 100)
    first, second = out.getvalue().rstrip("\n").split("\n")
    assert first.startswith("  ✓ what")
    assert second.strip(" ") == "x" * (100 - first.count("x"))


def test_the_picture_gives_japanese_its_full_width() -> None:
    picture = recording_console()
    Screen(words, None, picture).row("件名", "御見積書①の x")
    svg = draw(picture, "demo")
    places = {found[3]: (float(found[1]), float(found[2]))
              for found in re.finditer(r'<text [^>]*x="([0-9.]+)"[^>]*textLength="([0-9.]+)"[^>]*>([^<]*)</text>', svg)}
    cell = 12.2
    assert places["御見積書"][1] == pytest.approx(8 * cell)
    assert places["①"][1] == pytest.approx(cell_len("①") * cell)
    assert places["①"][0] == pytest.approx(places["御見積書"][0] + 8 * cell)


def test_the_picture_needs_nobody_else() -> None:
    picture = recording_console()
    Screen(words, None, picture).row("what", "proof")
    svg = draw(picture, "demo")
    assert re.findall(r"https?:[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert "<script" not in svg


# -- acts that go wrong --


@pytest.mark.parametrize(
    "error", [Failed("what came"), ConnectionResetError("gone"), TimeoutError(), ExceptionGroup("x", [Failed("a")])])
async def test_an_act_that_breaks_off_is_a_failed_row(error: Exception) -> None:
    async def act(screen: Screen, world: World) -> None:
        raise error

    screen, _ = plain_screen()
    assert await show._play(screen, None, act) is False  # type: ignore[arg-type]
    assert [row.passed for row in screen.rows] == [False]
    assert screen.rows[0].evidence


@pytest.mark.parametrize("bug", [KeyError("x"), ExceptionGroup("x", [Failed("a"), KeyError("x")])])
async def test_a_bug_is_no_row(bug: Exception) -> None:
    async def act(screen: Screen, world: World) -> None:
        raise bug

    screen, _ = plain_screen()
    with pytest.raises((KeyError, ExceptionGroup)):
        await show._play(screen, None, act)  # type: ignore[arg-type]


# -- the table --


@pytest.mark.parametrize("case", decoding.CASES, ids=lambda case: f"{case.place}-{case.meant}")
def test_every_case_is_read_as_it_was_meant(case: decoding.Case) -> None:
    assert decoding.as_fumibako_reads(case.place, decoding.message_of(case)) == case.meant


def test_python_is_asked_and_answers() -> None:
    read = {case.sent: decoding.as_python_reads(case.place, decoding.message_of(case)) for case in decoding.CASES}
    assert read[b"filename*1*=%E7%A9%8D.pdf; filename*0*=utf-8''%E8%A6%8B"] == "見積.pdf"
    assert any(read[case.sent] != case.meant for case in decoding.CASES)


# -- the plug --


def told(ledger: plug.Ledger, *there: int, broken: int = 0) -> list[bool]:
    screen, _ = plain_screen()
    plug._tell(screen, ledger, 250, plug.Counted(Counter(there), [broken] if broken else []))
    return [row.passed for row in screen.rows]


def test_the_count_is_right_when_every_promise_is_kept_once() -> None:
    ledger = plug.Ledger([], acknowledged=set(range(1, 499)), unanswered={499, 500})
    assert told(ledger, *range(1, 500)) == [True, True, True]
    assert told(ledger, *range(2, 500)) == [True, False, True], "one lost"
    assert told(ledger, *range(1, 500), 7) == [True, False, True], "one doubled"
    assert told(ledger, *range(1, 500), 499) == [True, False, True], "an unanswered one doubled"
    assert told(ledger, *range(1, 500), broken=3) == [True, False, True], "one changed"
    ledger.acknowledged.discard(1)
    assert told(ledger, *range(2, 500)) == [False, True, True], "one forgotten"


def test_the_ledger_believes_only_a_positive_reply() -> None:
    ledger = plug.Ledger([])
    assert ledger.note(1, Reply.of("250 2.0.0 ok"))
    assert not ledger.note(2, Reply.of("451 4.3.0 storage went away"))
    assert not ledger.note(3, Reply.of("554 5.6.0 no"))
    assert (ledger.acknowledged, ledger.unanswered, ledger.refusals) == ({1}, {2}, ["554 5.6.0 no"])


# -- where things come from --


def test_a_trail_reads_whole_lines_only(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text('{"kind": "accepted", "n": 1, "time": "2025-01-01T00:00:00.000+00:00"}\n{"kind": "acc')
    trail = Trail(tmp_path, Clock())
    first = asyncio.run(trail.event("accepted", lambda event: True))
    with file.open("a") as more:
        more.write('epted", "n": 2, "hosts": ["a", "b"], "time": "2025-01-01T00:00:01.250+00:00"}\n')
    second = asyncio.run(trail.event("accepted", lambda event: event["n"] == 2))
    assert text_of(second, "n", "hosts", "absent") == "2 a, b"
    assert seconds_between(first, second) == 1.25


def test_a_maildir_keeps_mailboxes_flags_and_octets(tmp_path: Path) -> None:
    for place in ("cur", "new", ".&U9dP4TDIMOwwpA-.A/cur", ".nothing"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "cur" / "1.host:2,FS").write_bytes(b"Subject: x\n\ny\r\nz")
    (tmp_path / "new" / "2.host").write_bytes(b"\n")
    (tmp_path / ".&U9dP4TDIMOwwpA-.A" / "cur" / "3.host:2,R").write_bytes(b"\n")
    found = list(messages_of(tmp_path))
    assert [(one.mailbox, one.flags) for one in found] == [
        ("INBOX", (rb"\Flagged", rb"\Seen")), ("INBOX", ()), ("受信トレイ/A", (rb"\Answered",))]
    assert found[0].octets() == b"Subject: x\r\n\r\ny\r\nz"


class _NameServer(asyncio.DatagramProtocol):
    """Answers everything with NXDOMAIN."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(format_response(parse_query(data), Response(Rcode.NXDOMAIN, authoritative=True), 512), addr)


async def test_the_forwarder_knows_its_domains_and_nothing_else() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(_NameServer, local_addr=("127.0.0.1", 0))
    front, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    free = front.get_extra_info("sockname")[1]
    front.close()
    await asyncio.sleep(0)      # the loop closes the socket at its next turn
    server, place = (Endpoint("127.0.0.1", port) for port in (transport.get_extra_info("sockname")[1], free))
    async with forwarding(place, {"a.example": server}):
        resolver = Resolver(Clock(), [place], ResolverOptions(timeout_s=5, rounds=1))
        assert (await resolver.resolve("mail.a.example", "A")).rcode == Rcode.NXDOMAIN
        with pytest.raises(ResolverFailure, match="REFUSED"):
            await resolver.resolve("aa.example", "MX")
    transport.close()


def world(tmp_path: Path) -> World:
    resolver = Endpoint("127.80.1.53", 53)
    a = Server("a.example", "127.80.1.1", resolver, HIGH, tmp_path / "a", Clock())
    b = Server("b.example", "127.80.1.2", resolver, HIGH, tmp_path / "b", Clock())
    a.accounts[ALICE], b.accounts[BOB] = "p'w", "secret"
    return World(Clock(), tmp_path, resolver, a, b)


def test_the_servers_configuration_is_one(tmp_path: Path) -> None:
    server = world(tmp_path).b
    config = parse_config(server._toml(), tmp_path)
    assert {name: (f"127.80.1.2:{port}",) for name, port in HIGH.items()} == config.listen
    assert (config.server.hostname, config.relay.mx_port) == ("mail.b.example", HIGH["smtp"])
    assert config.resolver_servers == ("127.80.1.53:53",)


def test_ports_for_ordinary_users_are_not_reserved() -> None:
    assert REAL.keys() == HIGH.keys()
    assert len({*HIGH.values()}) == len(HIGH)
    assert min(HIGH.values()) >= 1024


def test_lines_to_paste_are_shell_words(tmp_path: Path) -> None:
    lines = settings.shell_lines(world(tmp_path))
    assert [shlex.split(line)[0] for line in lines] == [
        "curl", "printf", "swaks", "neomutt", "openssl", "openssl", "dig", "fumibako"]
    assert f"{ALICE}:p'w" in shlex.split(lines[1])
    assert any("secret" in line for line in settings.thunderbird_lines(world(tmp_path), words))


@pytest.mark.parametrize("line", [
    rb"* 1 FETCH (UID 7 FLAGS (\Flagged))", b"* 3 EXPUNGE", b"* OK [UIDNEXT 4] Next", b"a1 NO [LIMIT] too much", b"+ idling"])
def test_responses_are_shown_as_they_came(line: bytes) -> None:
    assert imap_line(parse_response(line)) == line.decode()
