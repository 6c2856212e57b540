"""The command line as other tools drive it: every built command with the server up and down, JSON, exit codes, languages."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import fumibako
from tests.support.clients import Imap, Wire, hand_in, imap, imap_wire, letter, messages, smtp_wire, submit, trusting
from tests.support.nobody import everybody_can_read, handed_to_nobody, readable_program
from tests.support.server import PASSWORD, PROGRAM, LiveServer, Place, _environment, eventually, live_server

pytestmark = pytest.mark.system
EXIT_NO, EXIT_USAGE = 1, 2


def test_every_noun_and_verb(server: LiveServer) -> None:
    say = server.say

    def answer(*arguments: str) -> Any:
        return json.loads(say(*arguments, "--json"))

    up = server.process is not None
    assert answer("status") == {"running": up, "domains": 1, "accounts": 2, "queued": 0}

    assert answer("domain", "add", "例え.jp") == {"name": "xn--r8jz45g.jp", "accounts": 0, "aliases": 0}
    assert [one["name"] for one in answer("domain", "list")] == ["example.jp", "xn--r8jz45g.jp"]
    assert answer("domain", "show", "example.jp") == {"name": "example.jp", "accounts": 2, "aliases": 0}
    say("domain", "remove", "xn--r8jz45g.jp")
    assert [one["name"] for one in answer("domain", "list")] == ["example.jp"]

    assert [one["address"] for one in answer("account", "list")] == ["alice@example.jp", "bob@example.jp"]
    shown = answer("account", "show", "alice@example.jp")
    assert (shown["status"], shown["used_octets"], shown["messages"], shown["opened"]) == ("active", 0, 0, False)
    assert [one["name"] for one in shown["mailboxes"]] == ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"]
    assert "first login" in say("account", "show", "alice@example.jp")
    say("account", "disable", "bob@example.jp")
    assert answer("account", "show", "bob@example.jp")["status"] == "disabled"
    say("account", "enable", "bob@example.jp")
    server.cli("account", "passwd", "bob@example.jp", "--password-stdin", said="another one\n")
    say("account", "remove", "bob@example.jp")
    assert [one["address"] for one in answer("account", "list")] == ["alice@example.jp"]

    made = answer("alias", "add", "info@example.jp", "alice@example.jp", "somebody@elsewhere.example")
    assert made == {"address": "info@example.jp", "targets": ["alice@example.jp", "somebody@elsewhere.example"]}
    say("alias", "remove", "info@example.jp", "somebody@elsewhere.example")
    assert answer("alias", "list") == [{"address": "info@example.jp", "targets": ["alice@example.jp"]}]
    say("alias", "remove", "info@example.jp")
    assert answer("alias", "list") == []

    say("policy", "set", "limits.message_size", "1M")
    assert answer("policy", "show", "limits.message_size")["value"] == "1M"
    say("policy", "set", "account.quota", "5G", "--domain", "example.jp")
    assert answer("policy", "show", "account.quota", "--account", "alice@example.jp")["value"] == "5G"
    assert {"limits.message_size", "account.quota"} <= {one["key"] for one in answer("policy", "list")}
    say("policy", "unset", "limits.message_size")
    assert answer("policy", "show", "limits.message_size")["value"] == "50M"

    assert answer("queue", "list") == []
    assert answer("queue", "retry", "--all") == {"changed": 0}
    assert "example.jp. " in say("dns", "zone", "example.jp")
    assert {"MX", "SOA"} <= {one["type"] for one in answer("dns", "records", "example.jp")}
    if not up:
        assert answer("check") == []


def test_the_answer_no_is_exit_1_with_the_cause(server: LiveServer) -> None:
    for arguments, words in (
        (("domain", "show", "absent.example"), "does not host"),
        (("domain", "add", "example.jp"), "exists already"),
        (("domain", "remove", "example.jp"), "in use"),
        (("domain", "add", "no spaces"), "not a domain name"),
        (("account", "show", "absent@example.jp"), "no such account"),
        (("account", "remove", "absent@example.jp"), "no such"),
        (("alias", "remove", "absent@example.jp"), "no such address"),
        (("policy", "set", "limits.message_size", "much"), "allowed is"),
        (("policy", "set", "limits.absent", "1"), "no such setting"),
        (("policy", "unset", "limits.recipients"), "not set"),
        (("queue", "show", "9"), "no such message"),
        (("queue", "delete", "9"), "not all"),
        (("dns", "zone", "absent.example"), "does not host"),
        (("trace", "nothing like this"), "nothing about"),
    ):
        code, _, errors = server.here(*arguments)
        assert (code, words in errors) == (EXIT_NO, True), (arguments, errors)


def test_usage_is_exit_2() -> None:
    for arguments in (
        ("absent",), ("domain",), ("domain", "list"), ("account", "add", "a@example.jp", "--data", "/nonexistent", "--no"),
        ("queue", "retry", "--data", "/nonexistent"), ("status", "--lang", "fr"),
    ):
        done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=30,
                              env=_environment())
        assert done.returncode == EXIT_USAGE, (arguments, done.stderr)


def test_japanese(fresh: LiveServer) -> None:
    fresh.init()
    assert "ありません" in fresh.run_cli("account", "show", "a@example.jp", "--lang", "ja").stderr
    assert "ドメイン" in fresh.cli("status", "--lang=ja")
    assert "ドメイン" in fresh.cli("status", env={"LANG": "ja_JP.UTF-8", "LC_ALL": "ja_JP.UTF-8"})


def test_init_again_changes_nothing(fresh: LiveServer) -> None:
    assert fresh.json("init", "--hostname", "mail.example.jp")["made"]
    fresh.populate("example.jp", "alice")
    before = {path: path.read_bytes() for path in fresh.directory.rglob("*") if path.suffix in (".toml", ".pem")}
    assert fresh.json("init", "--hostname", "other.example.jp") == {
        "directory": str(fresh.directory), "hostname": "mail.example.jp", "made": []}
    assert before == {path: path.read_bytes() for path in before}
    assert len(fresh.json("account", "list")) == 1
    modes = {path.name: path.stat().st_mode & 0o777 for path in fresh.directory.rglob("*")}
    assert all(mode in (0o600, 0o700) for mode in modes.values()), modes


@pytest.mark.parametrize(("line", "words"), [
    ('[server]\nhostname = "mail.example.jp"\nworkers = "many"\n', ('workers = "many"', '"auto"')),
    ('[server]\nhostnam = "mail.example.jp"\n', ("hostnam is unknown", 'known: "hostname"')),
    ("[relays]\n", ("[relays] is unknown", 'known: "relay"')),
    ('[listen]\nsmtp = ["25"]\n', ('smtp = ', '"host:port"')),
    ("[listen]\nsmtp = 25\n", ("smtp = 25", '"host:port"')),
    ('[listen]\nmanagesieve = [":4190"]\n', ("managesieve", "not built yet")),
    ('[listen]\nhttps = [":443"]\n', ("https", "not built yet")),
    ("[server\n", ("not valid TOML",)),
])
def test_a_broken_configuration_is_refused_by_file_key_and_value(fresh: LiveServer, line: str, words: tuple[str, ...]) -> None:
    fresh.init()
    (fresh.directory / "fumibako.toml").write_text(line)
    done = fresh.run_cli("serve")
    assert done.returncode == EXIT_USAGE, done.stderr       # systemd does not try it again and again
    assert "Traceback" not in done.stderr
    for word in ("fumibako.toml", *words):
        assert word in done.stderr, done.stderr


def test_a_taken_port_and_a_missing_certificate_are_named(fresh: LiveServer) -> None:
    fresh.init()
    with socket.create_server(fresh.place.endpoint("smtp")):
        done = fresh.run_cli("serve")
    assert (done.returncode, ":".join(map(str, fresh.place.endpoint("smtp"))) in done.stderr) == (EXIT_NO, True), done.stderr
    fresh.certificate.unlink()
    done = fresh.run_cli("serve")
    assert (done.returncode, "cert.pem" in done.stderr) == (EXIT_NO, True), done.stderr


def test_no_data_directory_names_the_next_step(fresh: LiveServer) -> None:
    for command in ("status", "serve", "check"):
        done = fresh.run_cli(command)
        assert (done.returncode, "fumibako init" in done.stderr) == (EXIT_NO, True), done.stderr


def test_two_servers_on_one_directory_are_refused(tmp_path: Path, place: Place) -> None:
    with live_server(tmp_path / "data", place) as server:
        done = server.run_cli("serve")
        assert done.returncode == EXIT_NO, (done.returncode, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        assert server.json("status")["running"] is True


def test_listeners_are_announced_then_ready(house: LiveServer) -> None:
    assert house.announced[-1] == "ready"
    assert f"smtp {house.place.address}:{house.place.ports['smtp']}" in house.announced
    assert len([line for line in house.announced if re.fullmatch(r"\w+ [0-9.]+:[0-9]+", line)]) == len(house.place.ports)


def test_passwords_are_never_in_the_arguments(house: LiveServer) -> None:
    assert house.run_cli("account", "add", "new@example.jp", "--password", PASSWORD).returncode == EXIT_USAGE
    assert house.run_cli("account", "add", "new@example.jp", said=f"{PASSWORD}\n").returncode == EXIT_USAGE
    for path in (house.errors_path, *(path for path in house.directory.rglob("*") if path.is_file())):
        assert PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("verb", ["disable", "passwd", "remove"])
def test_open_sessions_end_within_a_second(tmp_path: Path, place: Place, verb: str) -> None:
    with live_server(tmp_path / "data", place, accounts=("alice", "bob"), server__workers="2") as server:
        idle, quiet, other = imap_wire(server), imap_wire(server), imap_wire(server, "bob@example.jp")
        for wire in idle, quiet, other:
            assert wire.command("SELECT INBOX")[-1].startswith("a OK")
        idle.send(b"i IDLE\r\n")
        assert idle.line().startswith("+ ")
        pop3 = Wire(server.place.endpoint("pop3s"), tls=trusting(server))
        pop3.line()
        for command in ("USER alice@example.jp", f"PASS {PASSWORD}"):
            pop3.send(f"{command}\r\n".encode())
            assert pop3.line().startswith("+OK")
        server.cli("account", verb, "alice@example.jp", *(("--password-stdin",) if verb == "passwd" else ()), said="changed\n")
        begun = time.monotonic()
        for wire in idle, quiet, pop3:
            wire.socket.settimeout(3)
            wire.rest()
        assert time.monotonic() - begun < 1.0
        assert other.command("NOOP")[-1].startswith("a OK")
        with Imap(server) as client, pytest.raises(client.error):
            client.login("alice@example.jp", PASSWORD)
        for wire in idle, quiet, pop3, other:
            wire.close()


def test_an_address_is_free_after_remove_and_its_mail_is_gone(house: LiveServer) -> None:
    def add() -> None:
        house.cli("account", "add", "dave@example.jp", "--password-stdin", said=f"{PASSWORD}\n")

    add()
    hand_in(house.place.endpoint("smtp"), letter("for the first Dave"), "x@neighbour.example", "dave@example.jp")
    with imap(house, "dave@example.jp") as client:
        assert len(messages(client)) == 1
    house.cli("account", "remove", "dave@example.jp")
    with smtp_wire(house) as wire:
        wire.ask("EHLO client.example")
        wire.ask("MAIL FROM:<x@neighbour.example>")
        assert wire.ask("RCPT TO:<dave@example.jp>").startswith("550 5.1.1 ")
    add()
    with imap(house, "dave@example.jp") as client:
        assert messages(client) == []
    house.cli("account", "remove", "dave@example.jp")


def test_expunged_mail_comes_back(house: LiveServer) -> None:
    house.cli("account", "add", "erin@example.jp", "--password-stdin", said=f"{PASSWORD}\n")
    hand_in(house.place.endpoint("smtp"), letter("見積書"), "x@neighbour.example", "erin@example.jp")
    with imap(house, "erin@example.jp") as client:
        assert len(messages(client)) == 1
        client.select("INBOX")
        client.store("1", "+FLAGS", "\\Deleted")
        client.expunge()
    kept, = house.json("account", "recover", "erin@example.jp", "--list")
    assert (kept["subject"], kept["from"]) == ("見積書", "bob@neighbour.example")
    assert house.json("account", "recover", "erin@example.jp", "--list", "--since", "2999-01-01") == []
    house.cli("account", "hold", "erin@example.jp", "--reason", "case 7")
    shown = house.json("account", "show", "erin@example.jp")
    assert (shown["recoverable_messages"], [one["reason"] for one in shown["holds"]]) == (1, ["case 7"])
    assert "case 7" in house.cli("account", "holds")
    assert house.json("account", "release", "erin@example.jp") == {"address": "erin@example.jp", "released": 1}
    assert house.json("account", "recover", "erin@example.jp", "--lang", "ja") == {
        "address": "erin@example.jp", "mailbox": "復元", "recovered": 1}
    with imap(house, "erin@example.jp") as client:
        assert len(messages(client, '"&X6lRQw-"')) == 1
    code, _, errors = house.here("account", "recover", "erin@example.jp")
    assert (code, errors) == (EXIT_NO, "erin@example.jp: nothing to recover\n")
    house.cli("account", "remove", "erin@example.jp")


def test_settings_hold_for_the_next_mail(house: LiveServer) -> None:
    house.cli("policy", "set", "limits.message_size", "20K")
    with smtp_wire(house) as wire:
        assert "SIZE 20480" in wire.ask("EHLO client.example")
        assert wire.ask("MAIL FROM:<x@neighbour.example> SIZE=30000").startswith("552 5.3.4 ")
    house.cli("policy", "unset", "limits.message_size")
    with smtp_wire(house) as wire:
        assert "SIZE 52428800" in wire.ask("EHLO client.example")


def test_the_trace_tells_what_happened(house: LiveServer) -> None:
    hand_in(house.place.endpoint("smtp"), letter("traced"), "tracer@neighbour.example", "alice@example.jp", "bob@example.jp")
    found = house.json("trace", "tracer@neighbour.example")
    assert {one["kind"] for one in found} >= {"accepted"}
    assert len({one["trace_id"] for one in found}) == 1
    with imap(house) as client:
        received = messages(client, search='SUBJECT "traced"')[-1]
    assert str(found[0]["trace_id"]).encode() in received
    assert "tracer@neighbour.example" in house.cli("trace", str(found[0]["trace_id"]))


def test_a_command_beside_a_busy_server_is_quick(house: LiveServer) -> None:
    begun = time.monotonic()
    assert house.json("status")["running"] is True
    assert time.monotonic() - begun < 5


@pytest.mark.root
def test_root_becomes_the_owner_of_the_directory(fresh: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when root's own command line has written there while the server was down."""
    owner = handed_to_nobody(fresh)
    with readable_program(fresh, monkeypatch):
        _serves_as(owner, fresh)


def _serves_as(owner: int, fresh: LiveServer) -> None:
    fresh.cli("domain", "add", "example.jp")
    fresh.cli("account", "add", "alice@example.jp", "--password-stdin", said=f"{PASSWORD}\n")
    foreign = [str(path) for path in fresh.directory.rglob("*") if path.stat().st_uid != owner]
    assert foreign == []
    fresh.start()
    assert fresh.process is not None
    for process in (fresh.process.pid, *fresh.children()):
        status = Path(f"/proc/{process}/status").read_text()
        assert re.search(rf"^Uid:\s+{owner}\s+{owner}\s", status, re.MULTILINE), status
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    submit(fresh, letter("as nobody", sender="alice@example.jp"), "alice@example.jp")
    with imap(fresh) as client:
        assert len(messages(client)) == 1
    fresh.stop()


@pytest.mark.root
def test_a_program_that_the_user_cannot_read_is_refused_by_name(fresh: LiveServer) -> None:
    handed_to_nobody(fresh)
    if everybody_can_read(os.__file__, fumibako.__file__):
        pytest.skip("every user can read this Python")
    done = fresh.run_cli("serve")
    assert (done.returncode, "nobody cannot read the program" in done.stderr) == (EXIT_NO, True), done.stderr


def test_a_dead_child_is_started_again(tmp_path: Path, place: Place) -> None:
    with live_server(tmp_path / "data", place) as server:
        server.forgiven = re.compile(r"ended after|storage")
        before = server.children()
        for child in before:
            os.kill(child, signal.SIGKILL)
        eventually(lambda: len(set(server.children()) - set(before)) == len(before), "every process starts again")
        eventually(lambda: _greets(server), "the server greets again")
        submit(server, letter("after the crash", sender="alice@example.jp"), "bob@example.jp")
        with imap(server, "bob@example.jp") as client:
            assert len(messages(client)) == 1


def _greets(server: LiveServer) -> bool:
    try:
        with Wire(server.place.endpoint("smtp")) as wire:
            wire.socket.settimeout(1)
            return wire.reply().startswith("220 ")
    except OSError:
        return False


def test_json_errors_are_json_too(house: LiveServer) -> None:
    done = house.run_cli("domain", "show", "absent.example", "--json")
    assert (done.returncode, list(json.loads(done.stdout))) == (EXIT_NO, ["error"])
