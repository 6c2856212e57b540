"""Caps, a full disk, an orderly stop under load, and a certificate changed while the server runs."""

from __future__ import annotations

import contextlib
import re
import signal
import smtplib
import ssl
import time
from pathlib import Path

import pytest

from fumibako.net.tls import make_self_signed
from tests.support.clients import Wire, arrived, hand_in, imap, imap_wire, letter, messages, smtp_wire, submit, tool, trusting
from tests.support.server import LiveServer, Place, eventually, live_server, needs

pytestmark = pytest.mark.system
ALICE = "alice@example.jp"
KILOBYTE = 1 << 10


# -- caps --


def test_connections_from_one_address_are_capped_and_the_setting_is_live(house: LiveServer) -> None:
    def told(number: int) -> list[str]:
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(Wire(house.place.endpoint("smtp"))) for _ in range(number)]
            return [wire.reply()[:3] for wire in wires]

    house.say("policy", "set", "limits.exempt", "192.0.2.0/24")
    house.say("policy", "set", "limits.connections_per_address", "3")
    eventually(lambda: told(6) == ["220"] * 3 + ["421"] * 3, "the fourth connection gets 421")
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(Wire(house.place.endpoint("imap")))
        assert stack.enter_context(Wire(house.place.endpoint("imap"))).line().startswith("* BYE")
    house.say("policy", "unset", "limits.connections_per_address")
    house.say("policy", "unset", "limits.exempt")
    eventually(lambda: told(6) == ["220"] * 6, "the caps are lifted")


def test_bug_two_servers_shared_a_port_without_knowing(tmp_path: Path, place: Place) -> None:
    """SO_REUSEPORT, which the workers need, let a second server take half of the connections."""
    with live_server(tmp_path / "one", place):
        second = LiveServer(tmp_path / "two", place)
        second.init()
        done = second.run_cli("serve")
        assert done.returncode == 1
        assert "another program listens there already" in done.stderr
        second.configure(**{f"listen__{name}": "" for name in place.ports if name != "dns"})
        done = second.run_cli("serve")
        assert (done.returncode, "[listen] dns" in done.stderr) == (1, True), done.stderr


# -- stopping --


def test_a_stop_under_two_hundred_sessions_says_goodbye_to_each(tmp_path: Path, place: Place) -> None:
    with live_server(tmp_path / "data", place, server__workers="2") as server, contextlib.ExitStack() as stack:
        smtp = [stack.enter_context(smtp_wire(server)) for _ in range(100)]
        plain = [stack.enter_context(Wire(server.place.endpoint("imap"))) for _ in range(80)]
        for wire in plain:
            wire.line()
        idle = [stack.enter_context(imap_wire(server)) for _ in range(20)]
        for wire in idle:
            wire.command("SELECT INBOX")
            wire.send(b"i IDLE\r\n")
            assert wire.line().startswith("+ ")
        for number, wire in enumerate(smtp[:30]):
            wire.ask("EHLO x.example")
            wire.ask("MAIL FROM:<x@neighbour.example>")
            wire.ask(f"RCPT TO:<{ALICE}>")
            assert wire.ask("DATA").startswith("354")
            wire.send(f"Subject: in flight {number}\r\n\r\nhello\r\n".encode())
        for wire in smtp[:15]:
            wire.send(b".\r\n")
        answered = [wire.reply() for wire in smtp[:10]]
        took_s = server.stop()
        assert took_s < 10
        answered += [wire.reply() for wire in smtp[10:30]]
        assert all(reply.startswith(("250 2.0.0 ", "421 ")) for reply in answered), answered
        assert all(b"421 4.3.2" in wire.rest() for wire in smtp[30:])
        assert all(b"* BYE" in wire.rest() for wire in (*plain, *idle))
        server.start()
        acknowledged = sum(reply.startswith("250 ") for reply in answered)
        with imap(server) as client:
            found = messages(client, search='SUBJECT "in flight"')
        assert acknowledged <= len(found) <= 15
        assert len(set(found)) == len(found)


# -- a full disk --


def _mount(kind: str, disk: Path) -> None:
    """24 MB on `disk`."""
    disk.mkdir()
    if kind == "tmpfs":
        tool("mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", disk)
        return
    needs("mkfs.ext4")
    image = disk.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(24 * KILOBYTE * KILOBYTE)
    tool("mkfs.ext4", "-q", "-m", "0", image)
    tool("mount", "-o", "loop", image, disk)
    disk.chmod(0o700)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_refuses_for_now_and_recovers(tmp_path: Path, place: Place, network: str, kind: str) -> None:
    disk = tmp_path / "disk"
    _mount(kind, disk)
    try:
        with live_server(disk / "data", place) as server:
            server.forgiven = re.compile("No space left|disk is full|full", re.IGNORECASE)
            for subject in ("before", "to be deleted"):
                hand_in(server.place.endpoint("smtp"), letter(subject), "x@neighbour.example", ALICE)
            processes = server.children()
            filler = disk / "filler"
            with filler.open("wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * (64 * KILOBYTE))
                    file.flush()
            refused = _refusal(server)
            assert refused.startswith("452 4.3.1 "), refused
            assert _refusal(server, lines=40_000).startswith("452 4.3.1 ")      # 3 MB: through a temporary file
            with pytest.raises(smtplib.SMTPException, match=r"4\.3\.1"):
                submit(server, letter("no room", sender=ALICE), "bob@example.jp")
            with imap(server) as client:
                assert len(messages(client)) == 2       # reading works
                answer = client._simple_command("APPEND", "Drafts", "{10+}\r\n0123456789")
                assert answer[0] == "NO", answer
                client.select("INBOX")
                assert client.store("2", "+FLAGS", "\\Deleted")[0] == "OK"     # so does deleting
                assert client.expunge() == ("OK", [b"2"])
            filler.unlink()
            eventually(lambda: _refusal(server).startswith("250 "), "mail is taken again", 5)
            assert server.children() == processes
            with imap(server) as client:
                client.select("INBOX")
                client.store("1:*", "+FLAGS", "\\Deleted")
                assert client.expunge()[0] == "OK"
    finally:
        tool("umount", disk, expect=None)


def _refusal(server: LiveServer, lines: int = 2_500) -> str:
    """The first negative reply to a mail of so many lines of 78 octets, or the last one."""
    with smtp_wire(server) as wire:
        wire.ask("EHLO x.example")
        for command in ("MAIL FROM:<x@neighbour.example>", f"RCPT TO:<{ALICE}>", "DATA"):
            if (reply := wire.ask(command))[0] not in "23":
                return reply
        wire.send(b"Subject: big\r\n\r\n" + (b"x" * 76 + b"\r\n") * lines + b".\r\n")
        return wire.reply()


# -- reload --


def test_sighup_brings_the_new_certificate_and_a_broken_one_changes_nothing(tmp_path: Path, place: Place) -> None:
    with live_server(tmp_path / "data", place, server__workers="2") as server:
        server.forgiven = re.compile("the certificate is not reloaded")
        first = _certificate(server)
        old = imap_wire(server)
        chain, key = make_self_signed("mail.example.jp", (), int(time.time() * 1000))
        (server.directory / "tls" / "key.pem").write_bytes(key)
        server.certificate.write_bytes(chain)
        _reload(server)
        eventually(lambda: all(_certificate(server) not in ("", first) for _ in range(6)), "the new certificate on the wire")
        second = _certificate(server)
        assert old.command("NOOP")[-1].startswith("a OK")       # who is connected stays so
        old.close()
        with smtp_wire(server) as wire:
            wire.ask("EHLO x.example")
            wire.ask("STARTTLS")
            wire.start_tls(trusting(server))
        server.certificate.write_text("nonsense")
        _reload(server)
        eventually(lambda: "the certificate is not reloaded" in server.errors_text(), "the log names the broken file")
        assert str(server.certificate) in server.errors_text()
        assert _certificate(server) == second


def _reload(server: LiveServer) -> None:
    server.signal(signal.SIGHUP)


def _certificate(server: LiveServer) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Wire(server.place.endpoint("imaps"), tls=context) as wire:
        return wire.socket.getpeercert(binary_form=True).hex()      # type: ignore[attr-defined,no-any-return]


# -- slow peers --


def test_a_silent_peer_holds_up_nobody(house: LiveServer) -> None:
    with contextlib.ExitStack() as stack:
        for listener in ("smtp", "imap", "pop3", "imaps", "submissions") * 10:
            stack.enter_context(Wire(house.place.endpoint(listener)))       # never says anything, not even a ClientHello
        begun = time.monotonic()
        hand_in(house.place.endpoint("smtp"), letter("past the silent"), "x@neighbour.example", ALICE)
        arrived(house, "past the silent")
        assert time.monotonic() - begun < 5
