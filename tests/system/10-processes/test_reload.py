"""SIGHUP: what can change does, what cannot is named, a broken file changes nothing, and nobody notices who is connected."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket

import pytest

from tests.support.clients import Wire, imap_wire, letter, smtp_wire, submit
from tests.support.mx import OtherServer
from tests.support.server import LiveServer, Place, eventually

pytestmark = pytest.mark.system


@pytest.fixture(params=["0", "2"])
def server(fresh: LiveServer, request: pytest.FixtureRequest) -> LiveServer:
    fresh.init(server__workers=request.param)
    fresh.populate("example.jp", "alice")
    fresh.start()
    return fresh


def _reload(server: LiveServer) -> list[str]:
    """What the log says about it."""
    before = len(_said(server))
    server.signal(signal.SIGHUP)
    return eventually(lambda: _said(server)[before:] if "reloaded" in "".join(_said(server)[before:]) else [], "a reload")


def _said(server: LiveServer) -> list[str]:
    lines = [json.loads(line) for line in server.errors_text().split("\n")[:-1]]
    return [line["message"] for line in lines if line["logger"] == "fumibako.reload"]


def _banner(server: LiveServer) -> str:
    with Wire(server.place.endpoint("smtp")) as wire:
        return wire.reply()


def _mail_exchanger(server: LiveServer) -> bytes:
    """The answer to `example.jp. MX`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10)
        asking.sendto(b"\x12\x34\1\0\0\1\0\0\0\0\0\0\7example\2jp\0\0\17\0\1", server.place.endpoint("dns"))
        return asking.recv(512)


def test_a_new_name_holds_for_new_sessions(server: LiveServer) -> None:
    old_smtp, old_imap = smtp_wire(server), imap_wire(server)
    server.configure(server__hostname='"post.example.jp"', login__allow_plaintext="true")
    assert _reload(server) == ["reloaded: certificate, [server] hostname, [login] allow_plaintext"]
    eventually(lambda: all(_banner(server).startswith("220 post.example.jp ") for _ in range(8)), "every worker says it")
    with Wire(server.place.endpoint("imap")) as wire:
        assert "LOGINDISABLED" not in wire.line()
    assert "mail.example.jp" in old_smtp.ask("EHLO client.example")        # as its greeting said
    assert old_imap.command("NOOP")[-1].startswith("a OK")
    eventually(lambda: all(b"\4post" in _mail_exchanger(server) for _ in range(4)), "DNS names it")
    old_smtp.close()
    old_imap.close()
    server.stop()


def test_what_only_a_restart_changes_is_named_in_one_line(server: LiveServer, place: Place) -> None:
    server.configure(listen__smtp=f'["{place.address}:2525"]', listen__pop3="", server__workers="3", relay__mx_port="26")
    assert _reload(server) == [
        "only a restart changes [listen] smtp, [server] workers, [listen] pop3; left as it runs",
        "reloaded: certificate, [relay] mx_port",
    ]
    smtp_wire(server).close()
    with pytest.raises(ConnectionRefusedError):
        Wire((place.address, 2525))
    with Wire(place.endpoint("pop3")) as wire:
        assert wire.line().startswith("+OK")
    assert _reload(server) == ["reloaded: certificate"]        # said once
    server.stop()


@pytest.mark.parametrize(("line", "words"), [
    ('hostname = "a b"', ("[server] hostname", '"a b"', "a fully qualified host name")),
    ("hostnam = 1", ("hostnam is unknown", '"hostname"')),
    ('addresses = ["mail.example.jp"]', ("[server] addresses", "a list of IP addresses")),
    ("hostname = ", ("not valid TOML",)),
])
def test_a_broken_file_changes_nothing_and_is_named(server: LiveServer, line: str, words: tuple[str, ...]) -> None:
    server.forgiven = re.compile("not reloaded")
    path = server.directory / "fumibako.toml"
    path.write_text("[relay]\nmx_port = 26\n[server]\n" + line + "\n")
    said = _reload(server)
    assert len(said) == 1
    for word in (str(path), *words):
        assert word in said[0], said
    assert _banner(server).startswith("220 mail.example.jp ")
    path.unlink()
    assert "not found" in _reload(server)[0]
    server.stop()


async def test_mail_takes_the_new_way(fresh: LiveServer, place: Place) -> None:
    """[relay] is the jobs process's."""
    def change_and_send() -> None:
        fresh.init(relay__smarthost=f'"{place.address}:2626"')
        fresh.populate("example.jp", "alice")
        fresh.start()
        fresh.configure(relay__smarthost=f'"{place.address}:2627"')
        assert _reload(fresh) == ["reloaded: certificate, [relay] smarthost"]
        submit(fresh, letter("the new way", sender="alice@example.jp"), "bob@elsewhere.example")
        eventually(lambda: other.messages, "the new smarthost gets the mail")
        fresh.stop()

    async with OtherServer().listening(place.address, 2627) as other:
        await asyncio.to_thread(change_and_send)


def test_a_replacement_starts_with_the_new_values(fresh: LiveServer) -> None:
    fresh.forgiven = re.compile("ended after")
    fresh.init()
    fresh.start()
    fresh.configure(server__hostname='"post.example.jp"')
    _reload(fresh)
    old = fresh.children()[-1]
    os.kill(old, signal.SIGKILL)
    eventually(lambda: old not in fresh.children() and len(fresh.children()) == 3, "a new worker")
    assert _banner(fresh).startswith("220 post.example.jp ")
    fresh.stop()
