"""What systemd is told, without a server; whole lives of one are in tests/system/10-processes."""

from __future__ import annotations

import os
import re
import socket
import tomllib
from pathlib import Path

import pytest

from fumibako.app.systemd import ServiceManager, address_text, shares, sockets_handed_over
from fumibako.net.clock import Clock
from tests.support.manager import Ear, listening


def test_without_systemd_nothing_is_said_and_no_beat_is_due() -> None:
    manager = ServiceManager({}, Clock())
    manager.ready("up")
    manager.beat()
    assert manager.beat_s == float("inf")
    assert sockets_handed_over({}, ("smtp",)) == {}


def test_variables_are_taken_out_so_that_no_child_takes_them_for_its_own() -> None:
    environment = {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid()), "LISTEN_PID": "1",
                   "LISTEN_FDS": "1", "LISTEN_FDNAMES": "smtp", "PATH": "/bin"}
    assert ServiceManager(environment, Clock()).beat_s == 1.0
    assert sockets_handed_over(environment, ("smtp",)) == {}        # meant for process 1
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(("interval", "process"), [("0", ""), ("-5", ""), ("soon", ""), ("1000000", "1"), ("", "")])
def test_a_watchdog_that_is_not_ours_is_not_fed(interval: str, process: str) -> None:
    environment = {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": interval, "WATCHDOG_PID": process}
    assert ServiceManager(environment, Clock()).beat_s == float("inf")


def test_a_beat_is_told_only_where_the_server_is_well() -> None:
    well = [True, False, True]
    with Ear(f"@fumibako-beats-{os.getpid()}") as ear:
        manager = ServiceManager({"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "1000000"}, Clock(), lambda: well.pop(0))
        for _ in range(3):
            manager.beat()
        assert ear.waiting() == [{"WATCHDOG": "1"}] * 2


def test_a_manager_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")}, Clock())
    manager.ready("nobody hears it")
    with Ear(str(tmp_path / "notify")) as ear:
        manager.ready("up")
        assert ear.waiting() == [{"READY": "1", "STATUS": "up"}]


def test_each_worker_has_a_share_of_every_address() -> None:
    one, two = (listening("127.0.0.1", 0) for _ in range(2))
    port = one.getsockname()[1]
    assert shares([one, two], 3) == [[one, two]] * 3
    same = [listening("127.0.0.1", 0, reuse_port=True)]
    same += [listening("127.0.0.1", same[0].getsockname()[1], reuse_port=True) for _ in range(2)]
    assert shares(same, 3) == [[found] for found in same]
    assert shares(same, 2) == [[same[0], same[2]], [same[1]]]           # none is left without a reader
    assert shares(same, 5) == [[same[number % 3]] for number in range(5)]
    assert address_text(one) == f"127.0.0.1:{port}"
    for opened in (one, two, *same):
        opened.close()


@pytest.mark.parametrize(("only", "text"), [(0, ":{port}"), (1, "[::]:{port}")])
def test_a_socket_for_both_families_is_written_as_the_file_writes_it(only: int, text: str) -> None:
    with socket.socket(socket.AF_INET6) as opened:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        try:
            opened.bind(("::", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        assert address_text(opened) == text.format(port=opened.getsockname()[1])


@pytest.mark.parametrize("page", ["systemd.md", "systemd.ja.md"])
def test_the_units_are_in_the_package_where_the_page_takes_them_from(page: str) -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    text = (root / "docs" / "howto" / page).read_text("utf-8")
    copied = re.findall(r"^cp /opt/fumibako/(\S+)/(\S+) /etc/systemd/system/$", text, re.MULTILINE)
    assert [name for _, name in copied] == ["fumibako.service", "fumibako-*.socket"]
    for place, name in copied:
        assert any(there == place and list((root / here).glob(name)) for here, there in shared.items()), (place, name)
