"""What the server says to systemd, and takes from it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.support.clients import Wire, imap_wire, smtp_wire
from tests.support.manager import Ear, datagrams, handing_over, listening, unit_value
from tests.support.nobody import handed_to_nobody, readable_program
from tests.support.server import LiveServer, Place, eventually, needs

pytestmark = pytest.mark.system
PACKAGING = Path(__file__).parents[3] / "packaging" / "systemd"
UNITS = sorted(PACKAGING.glob("fumibako*"))


@pytest.fixture
def server(fresh: LiveServer) -> LiveServer:
    """Made, not started."""
    fresh.init()
    fresh.populate("example.jp", "alice")
    return fresh


# -- sd_notify --


@pytest.mark.parametrize(("workers", "address"), [("0", "@fumibako-test-{pid}"), ("2", "{tmp_path}/notify")])
def test_the_life_of_a_server_as_systemd_hears_it(server: LiveServer, tmp_path: Path, workers: str, address: str) -> None:
    server.configure(server__workers=workers)
    with Ear(address.format(pid=os.getpid(), tmp_path=tmp_path)) as ear:
        server.extra = {"NOTIFY_SOCKET": ear.address}
        tmp_path.chmod(0o711)
        server.start()
        assert "serve" in ear.until("READY", "1")["STATUS"]
        before_us = time.monotonic() * 1_000_000
        server.signal(signal.SIGHUP)
        reloading = ear.until("RELOADING", "1")
        assert before_us <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic() * 1_000_000
        ear.until("READY", "1")
        server.stop()
        assert next(said for said in ear.waiting() if "STOPPING" in said)["STOPPING"] == "1"
        assert not any("WATCHDOG" in said for _, said in ear.heard)        # nobody asked for it


def test_a_broken_file_at_a_reload_still_ends_in_ready(server: LiveServer, tmp_path: Path) -> None:
    server.forgiven = re.compile("not reloaded")
    with Ear(f"@fumibako-broken-{os.getpid()}") as ear:
        server.extra = {"NOTIFY_SOCKET": ear.address}
        server.start()
        ear.until("READY")
        server.configure(server__workers='"many"')
        server.signal(signal.SIGHUP)
        ear.until("RELOADING")
        ear.until("READY")
        server.stop()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_watchdog_is_fed_only_while_storage_answers(server: LiveServer, workers: str) -> None:
    server.configure(server__workers=workers)
    server.forgiven = re.compile("ended after|storage|store")
    with Ear(f"@fumibako-watchdog-{workers}-{os.getpid()}") as ear:
        server.extra = {"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "800000"}       # beats every 0.2 s
        server.start()
        begun = time.monotonic()
        for _ in range(5):
            ear.until("WATCHDOG", "1", within_s=5)
        assert time.monotonic() - begun > 0.6
        if workers == "1":
            storage = server.children()[0]
            os.kill(storage, signal.SIGSTOP)        # it is there and says nothing
            eventually(lambda: time.monotonic() - _last_beat(ear) > 0.8, "no beats", 5)
            os.kill(storage, signal.SIGCONT)
            ear.until("WATCHDOG", "1")
            os.kill(storage, signal.SIGKILL)
            assert "storage" in ear.until("STATUS", "2 of 3")["STATUS"]
            ear.until("STATUS", "3 of 3")
            ear.until("WATCHDOG", "1")
        server.stop()


def _last_beat(ear: Ear) -> float:
    ear.waiting()
    return max(when for when, said in ear.heard if "WATCHDOG" in said)


# -- socket activation --


def _start_with(server: LiveServer, sockets: list[tuple[str, socket.socket]]) -> None:
    server.program, environment = handing_over(sockets)
    server.extra = dict(environment)
    server.pass_fds = tuple(one.fileno() for _, one in sockets)
    try:
        server.start()
    finally:
        for _, one in sockets:
            one.close()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_sockets_of_systemd_take_the_place_of_the_configured(server: LiveServer, place: Place, workers: str) -> None:
    server.configure(server__workers=workers)
    sockets = [("smtp", listening(place.address, 2525)), ("smtp", listening(place.address, 2526)),
               ("imaps", listening(*place.endpoint("imaps"))),
               ("dns", listening(place.address, 5353)), ("dns", datagrams(place.address, 5353))]
    _start_with(server, sockets)
    assert f"smtp {place.address}:2525" in server.announced
    assert f"imaps {place.address}:{place.ports['imaps']}" in server.announced
    for port in (2525, 2526):
        for _ in range(4):
            with Wire((place.address, port)) as wire:
                assert wire.reply().startswith("220 ")
    imap_wire(server).close()
    with smtp_wire(server, "submission") as wire:       # what systemd does not open, we do
        assert "STARTTLS" in wire.ask("EHLO client.example")
    with pytest.raises(ConnectionRefusedError):
        Wire(place.endpoint("smtp"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10)
        asking.sendto(b"\x12\x34\1\0\0\1\0\0\0\0\0\0\7example\2jp\0\0\17\0\1", (place.address, 5353))
        answer = asking.recv(512)
    assert answer[:2] == b"\x12\x34" and answer[3] & 15 == 0 and b"\2jp" in answer
    server.stop()


@pytest.mark.root       # who holds which socket is for root's eyes only
def test_a_socket_for_each_worker_is_used_by_that_worker(server: LiveServer, place: Place) -> None:
    """ReusePort=yes and a line for each worker; a replacement takes over its predecessor's socket."""
    server.configure(server__workers="3")
    server.forgiven = re.compile("ended after")
    _start_with(server, [("smtp", listening(place.address, 2525, reuse_port=True)) for _ in range(3)])
    workers = server.children()[2:]
    inodes = {one: _listens_at(one, place.address, 2525) for one in workers}
    assert all(len(found) == 1 for found in inodes.values()) and len(set.union(*inodes.values())) == 3, inodes
    os.kill(workers[0], signal.SIGKILL)
    replacement = eventually(lambda: next(iter(set(server.children()[2:]) - set(workers)), 0), "a new worker")
    eventually(lambda: _listens_at(replacement, place.address, 2525) == inodes[workers[0]], "it has the socket")
    server.stop()


def _listens_at(process: int, host: str, port: int) -> set[str]:
    """Inodes of the sockets at this place that a process holds."""
    place = f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().split("\n")[1:-1])
    ours = {row[9] for row in rows if row[1] == place and row[3] == "0A"}
    held = set()
    for entry in os.scandir(f"/proc/{process}/fd"):
        with contextlib.suppress(OSError):
            held |= ours & set(re.findall(r"socket:\[(\d+)\]", os.readlink(entry.path)))
    return held


def test_systemds_own_program_hands_over_sockets(server: LiveServer, place: Place) -> None:
    """It opens them and starts the server when the first connection comes; that one is served too."""
    needs("systemd-socket-activate")
    opened = [word for name in ("smtp", "imaps") for word in ("-l", "{}:{}".format(*place.endpoint(name)))]
    passed = [word for name in ("PYTHONPATH", "LANG", "PYTHONUNBUFFERED") for word in ("-E", name)]
    server.program = ("systemd-socket-activate", *opened, *passed, "--fdname=smtp:imaps", *server.program)
    server.extra = {"SYSTEMD_LOG_LEVEL": "err"}      # standard error is ours
    first: list[str] = []

    def come_first() -> None:
        wire = eventually(lambda: _connection(place), "systemd listens")
        first.append(wire.reply())
        wire.close()

    coming = threading.Thread(target=come_first)
    coming.start()
    server.start()
    coming.join()
    assert first[0].startswith("220 mail.example.jp ")
    imap_wire(server).close()
    server.stop()


def _connection(place: Place) -> Wire | None:
    try:
        return Wire(place.endpoint("smtp"))
    except ConnectionRefusedError:
        return None


@pytest.mark.parametrize(("name", "kind", "words"), [
    ("smpt", "stream", ("smpt", "smtp, submission")), ("unknown", "stream", ("unknown", "FileDescriptorName=")),
    ("smtp", "datagram", ("smtp", "ListenStream=")), ("smtp", "connected", ("smtp", "Accept=no")),
])
def test_a_socket_that_is_no_listeners_is_refused_by_name(
    server: LiveServer, place: Place, name: str, kind: str, words: tuple[str, ...]
) -> None:
    opened = {"stream": lambda: listening(place.address, 2525), "datagram": lambda: datagrams(place.address, 2525),
              "connected": lambda: socket.socketpair()[0]}[kind]()
    program, environment = handing_over([(name, opened)])
    with opened:
        done = subprocess.run([*program, "serve", "--data", str(server.directory)], capture_output=True, text=True, timeout=30,
                              pass_fds=(opened.fileno(),), env={**os.environ, "LANG": "C.UTF-8", **environment}, check=False)
    assert done.returncode == 2, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.root
def test_no_root_is_needed_where_systemd_opens_the_ports(
    fresh: LiveServer, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every listener below 1024 handed over; an ordinary user runs the server."""
    nobody = handed_to_nobody(fresh)
    sockets = [(name, listening(*place.endpoint(name))) for name in place.ports]
    sockets.append(("dns", datagrams(*place.endpoint("dns"))))
    with readable_program(fresh, monkeypatch):
        fresh.program, environment = handing_over(sockets, fresh.program[0], nobody)
        fresh.extra = dict(environment)
        fresh.pass_fds = tuple(one.fileno() for _, one in sockets)
        fresh.start()
        smtp_wire(fresh).close()
        assert all(_uids(one) == {nobody} for one in fresh.children())
        fresh.stop()
    for _, one in sockets:
        one.close()


def _uids(process: int) -> set[int]:
    status = Path(f"/proc/{process}/status").read_text()
    return set(map(int, re.findall(r"(?m)^Uid:\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", status)[0]))


# -- the units --


def test_the_units_verify(tmp_path: Path) -> None:
    needs("systemd-analyze")
    for unit in UNITS:
        text = unit.read_text("utf-8").replace("/opt/fumibako/bin/fumibako", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
                          capture_output=True, text=True, timeout=60, check=False)
    about_us = [line for line in done.stderr.split("\n") if "fumibako" in line]
    assert not about_us, about_us


def test_the_service_is_confined() -> None:
    """systemd-analyze's exposure: 0 is a sealed box, 10 is no confinement; below 2 counts as "OK" in its own words."""
    needs("systemd-analyze")
    done = subprocess.run(["systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=20",
                           str(PACKAGING / "fumibako.service")], capture_output=True, text=True, timeout=60, check=False)
    if "unrecognized option" in done.stderr or "nknown" in done.stderr:
        pytest.skip("this systemd-analyze knows no --offline")
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr


def test_the_units_name_listeners_and_ports_as_we_do() -> None:
    from fumibako.config import NOT_BUILT, SECTIONS

    sockets = {unit_value(unit, "FileDescriptorName")[0]: unit for unit in UNITS if unit.suffix == ".socket"}
    assert set(sockets) == set(SECTIONS["listen"]) - set(NOT_BUILT) - {"lmtp"}
    for name, unit in sockets.items():
        port = re.findall(r":(\d+)", SECTIONS["listen"][name].default)[0]
        assert {one.rpartition(":")[2] for one in unit_value(unit, "ListenStream")} == {port}, unit.name
        assert unit_value(unit, "Service") == ["fumibako.service"]
    service = PACKAGING / "fumibako.service"
    assert unit_value(service, "RestartPreventExitStatus") == ["2"]
    assert unit_value(service, "KillMode") == ["mixed"]     # storage is stopped last, by the supervisor
