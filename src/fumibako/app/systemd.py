"""What the server and systemd tell each other: sockets handed over, readiness, reload, the watchdog.

Specification: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3), systemd.socket(5).
Contract: without systemd nothing here does anything. What systemd's variables say is taken out of the environment, so that no
    child takes it for its own. The watchdog is fed only while the storage process answers.
Failure: `Misconfigured` for a socket that is no listener's; a message that systemd does not take is lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Collection, MutableMapping
from contextlib import suppress
from socket import AF_INET6, AF_UNIX, IPPROTO_IPV6, IPV6_V6ONLY, SO_ACCEPTCONN, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, socket

from fumibako.faces.cli.house import Misconfigured
from fumibako.net.clock import Clock
from fumibako.net.endpoint import endpoint_of
from fumibako.net.listen import systemd_sockets
from fumibako.services.texts import N_

BEATS_PER_INTERVAL = 4      # an answer is looked at one beat later, and one may come late
TELL_S = 1.0                # systemd reads its socket at once
DATAGRAMS = "-udp"          # behind the name of a listener: its datagram half

log = logging.getLogger("fumibako.systemd")


class ServiceManager:
    """systemd, as sd_notify(3) reaches it; a supervisor of another kind that speaks this protocol will do."""

    def __init__(self, environment: MutableMapping[str, str], clock: Clock, answers: Callable[[], bool] = lambda: True) -> None:
        """answers: whether the server is well, asked at each beat of the watchdog."""
        self._clock, self._answers = clock, answers
        self._address = environment.pop("NOTIFY_SOCKET", "")
        interval_us = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        usable = bool(self._address) and watched and interval_us.isascii() and interval_us.isdigit() and int(interval_us) > 0
        self.beat_s = int(interval_us) / 1_000_000 / BEATS_PER_INTERVAL if usable else math.inf

    def ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """`ready` has to follow. The time is what systemd tells this reload from the one before by (Type=notify-reload)."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.monotonic_s() * 1_000_000)}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=stopping: sessions end")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell(f"STATUS={text}")

    def beat(self) -> None:
        """To be called every beat_s."""
        if self._answers():
            self._tell("WATCHDOG=1")

    async def accompany(self, stopping: asyncio.Event) -> None:
        """The watchdog of a server that is one process, then word of its stop."""
        while not stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self.beat_s if self.beat_s < math.inf else None):
                    await stopping.wait()
                    break
            self.beat()
        self.stopping()

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket(AF_UNIX, SOCK_DGRAM) as way:
            way.settimeout(TELL_S)
            try:
                way.sendto("\n".join(lines).encode(), address)
            except OSError as error:
                log.warning("systemd at %s was not told %s: %s", self._address, lines[0], error)


# -- socket activation --


def sockets_handed_over(environment: MutableMapping[str, str], listeners: Collection[str]) -> dict[str, list[socket]]:
    """What systemd opened for us: listener -> its sockets ("dns-udp": the datagram half of dns). Raises Misconfigured."""
    found = systemd_sockets(environment, os.getpid())
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        environment.pop(name, None)
    sorted_by_kind: dict[str, list[socket]] = {}
    for name, handed in found.items():
        if name not in listeners:
            raise Misconfigured(N_("systemd hands over a socket named {name}, which is no listener of [listen]; "
                                   "FileDescriptorName= may be: {known}"), name=name, known=", ".join(listeners))
        for one in handed:
            sorted_by_kind.setdefault(_key(name, one), []).append(one)
    return sorted_by_kind


def _key(name: str, handed: socket) -> str:
    if handed.type == SOCK_DGRAM and name == "dns":
        return name + DATAGRAMS
    if handed.type != SOCK_STREAM or not handed.getsockopt(SOL_SOCKET, SO_ACCEPTCONN):
        raise Misconfigured(N_("systemd hands over a socket named {name} that takes no connections; "
                               "its unit needs ListenStream= and Accept=no"), name=name)
    return name


def shares(handed: list[socket], workers: int) -> list[list[socket]]:
    """Each worker's own of the sockets of one listener.

    As many sockets of one address (ReusePort=yes) as there are workers: one for each. Fewer: workers share, and the kernel
    spreads connections unevenly over those that wait at one socket. More: some workers have two.
    """
    by_address: defaultdict[object, list[socket]] = defaultdict(list)
    for one in handed:
        by_address[one.family, one.getsockname()].append(one)
    return [
        [one for found in by_address.values()
         for number, one in enumerate(found) if number % workers == worker or number == worker % len(found)]
        for worker in range(workers)
    ]


def address_text(handed: socket) -> str:
    """Where a socket listens, as [listen] writes it."""
    name = handed.getsockname()
    if handed.family == AF_UNIX:
        return f"unix:{name}"
    endpoint = endpoint_of(name)
    both = handed.family == AF_INET6 and endpoint.host == "::" and not handed.getsockopt(IPPROTO_IPV6, IPV6_V6ONLY)
    return f":{endpoint.port}" if both else str(endpoint)
