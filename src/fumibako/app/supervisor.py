"""The supervisor: starts the processes of one server, restarts those that die, stops them in order.

Specification: DESIGN §4.
Contract: roles start in the given order, each ready before the next begins, and stop in the reverse order; a role that
    dies later is started again (at once after a long life, slower and slower after short ones, for ever: what the others
    do goes on, and systemd's watchdog sees to a server whose storage does not come back). A second SIGTERM ends at once.
    SIGUSR1 is handed on to every role.
    A child dies with its supervisor (PR_SET_PDEATHSIG), so that nothing keeps the data directory locked.
Failure: a role that dies before it was ready the first time ends everything with exit code 1; it has said why itself.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fumibako.app.systemd import ServiceManager
from fumibako.net.clock import Clock

STOP_S = 15.0               # a role ends its sessions within 10 s (DESIGN §4); then it is killed
HURRY_S = 1.0               # storage finishes what it has received at once; this long where nobody wants to wait
SHORT_LIFE_S = 5.0
LONGEST_PAUSE_S = 10.0
_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 1, 38, 4

log = logging.getLogger("fumibako.supervisor")


@dataclass(frozen=True, slots=True)
class Role:
    """A process: run(ready) does its whole work, calls ready() once it serves, and returns its exit code at SIGTERM."""

    name: str
    run: Callable[[Callable[[], None]], int]


@dataclass(slots=True)
class _Child:
    role: Role
    process: int = 0            # 0: not running
    ready_fd: int = -1
    was_ready: bool = False
    started_s: float = 0.0
    short_lives: int = 0        # in a row
    pause_s: float = 0.0        # before the next start
    due_s: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """One server's processes. run() returns the exit code. reload: at SIGHUP; True: the roles are told too."""

    roles: Sequence[Role]
    clock: Clock = field(default_factory=Clock)
    manager: ServiceManager | None = None
    reload: Callable[[], bool] = lambda: True
    _announced: bool = False
    _beat_due_s: float = 0.0
    _children: list[_Child] = field(default_factory=list)
    _signals_fd: int = -1
    _received: set[int] = field(default_factory=set)

    def run(self, announce: Callable[[], None]) -> int:
        """Start everything, call announce(), and stay until SIGTERM or SIGINT."""
        self._catch_signals()
        for role in self.roles:
            child = _Child(role)
            self._children.append(child)
            self._start(child)
            if not self._became_ready(child):
                self._stop_all()
                return 0 if self._stopped() else 1
        announce()
        self._announced = True
        if self.manager:
            self.manager.ready(self._status())
        while not self._tick():
            pass
        self._stop_all()
        return 0

    # -- signals: a pipe that select can wait for --

    def _catch_signals(self) -> None:
        self._signals_fd, write_fd = os.pipe()
        os.set_blocking(self._signals_fd, False)
        os.set_blocking(write_fd, False)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def _read_signals(self) -> None:
        try:
            self._received |= set(os.read(self._signals_fd, 4096))
        except BlockingIOError:
            pass

    def _stopped(self) -> bool:
        return bool(self._received & {signal.SIGTERM, signal.SIGINT})

    # -- one child --

    def _start(self, child: _Child) -> None:
        parent = os.getpid()
        # What is imported stays: else each child's first full collection walks through all of it, which takes 30 ms in
        # which it does nothing else, and makes pages its own that all could share.
        gc.collect()
        gc.freeze()
        read_fd, write_fd = os.pipe()
        try:
            process = os.fork()
        except OSError:
            os.close(read_fd)
            os.close(write_fd)
            raise
        if process == 0:
            os.close(read_fd)
            self._be(child.role, write_fd, parent)
        os.close(write_fd)
        child.process, child.ready_fd, child.started_s, child.was_ready = process, read_fd, self.clock.monotonic_s(), False

    def _start_again(self, child: _Child, now_s: float) -> None:
        """No descriptor or no process to be had: the others go on, and it is tried again."""
        try:
            self._start(child)
        except OSError as error:
            child.pause_s = min(max(child.pause_s * 2, 0.1), LONGEST_PAUSE_S)
            child.due_s = now_s + child.pause_s
            log.error("%s can't be started: %s; tried again in %.1f s", child.role.name, error.strerror, child.pause_s)

    def _be(self, role: Role, ready_fd: int, parent: int) -> None:
        """The child's whole life; never returns."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        # Ctrl-C reaches the whole terminal group; only the supervisor acts on it. The others are for those who listen to them.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        die_with_parent(parent)
        code = 70
        try:
            code = role.run(lambda: _say_ready(ready_fd))
        except BaseException:
            log.exception("%s failed", role.name)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _became_ready(self, child: _Child) -> bool:
        """While it starts, those before it are started again where they die: it may be waiting for one of them."""
        while child.ready_fd >= 0 and not self._stopped():
            self._tick()
        return child.was_ready

    def _note_ready(self, child: _Child) -> None:
        child.was_ready = os.read(child.ready_fd, 1) != b""
        os.close(child.ready_fd)
        child.ready_fd = -1
        self._show_status()

    # -- all of them --

    def _tick(self) -> bool:
        """Wait for the next thing to do and do it; True when it is time to stop."""
        self._reap()
        now = self.clock.monotonic_s()
        dead = [child for child in self._children if not child.process]
        for child in dead:
            if child.due_s <= now:
                self._start_again(child, now)
        waiting = [child.due_s - now for child in dead if child.due_s > now]
        starting = {child.ready_fd: child for child in self._children if child.ready_fd >= 0}
        for descriptor in self._wait(list(starting), min([*waiting, self._beat(now)])):
            if descriptor in starting:
                self._note_ready(starting[descriptor])
        self._read_signals()
        if signal.SIGHUP in self._received and self.reload():
            self._tell(signal.SIGHUP)
        if signal.SIGUSR1 in self._received:
            self._tell(signal.SIGUSR1)
        if signal.SIGHUP in self._received and self.manager:
            self.manager.ready(self._status())
        self._received &= {signal.SIGTERM, signal.SIGINT}
        return self._stopped()

    def _wait(self, descriptors: Sequence[int], at_most_s: float) -> list[int]:
        """Those that can be read, at the latest when the time is over. poll: behind many listeners numbers go beyond select's."""
        waiter = select.poll()
        for descriptor in (self._signals_fd, *descriptors):
            waiter.register(descriptor, select.POLLIN)
        timeout_ms = None if at_most_s == math.inf else math.ceil(max(0.0, at_most_s) * 1000)
        return [descriptor for descriptor, _ in waiter.poll(timeout_ms)]

    def _beat(self, now_s: float) -> float:
        """How long until the watchdog wants to be fed again, which is done where it is time."""
        if not self.manager or not self._announced or self.manager.beat_s == math.inf:
            return math.inf
        if self._beat_due_s <= now_s:
            self.manager.beat()
            self._beat_due_s = now_s + self.manager.beat_s
        return self._beat_due_s - now_s

    def _status(self) -> str:
        """For `systemctl status`."""
        down = [child.role.name for child in self._children if not child.was_ready or not child.process]
        up = f"{len(self._children) - len(down)} of {len(self._children)} processes serve"
        return f"{up}; started again: {', '.join(down)}" if down else up

    def _show_status(self) -> None:
        if self._announced and self.manager:
            self.manager.status(self._status())

    def _reap(self) -> None:
        for child in self._children:
            if child.process and (ended := os.waitpid(child.process, os.WNOHANG))[0]:
                self._buried(child, os.waitstatus_to_exitcode(ended[1]))

    def _buried(self, child: _Child, code: int) -> None:
        lived_s = self.clock.monotonic_s() - child.started_s
        child.short_lives = child.short_lives + 1 if lived_s < SHORT_LIFE_S else 0
        child.pause_s = min(max(child.pause_s * 2, 0.1), LONGEST_PAUSE_S) if child.short_lives else 0.0
        child.due_s = self.clock.monotonic_s() + child.pause_s
        log.error("%s (process %d) ended after %.1f s with %s%s; it starts again in %.1f s",
                  child.role.name, child.process, lived_s, f"signal {-code}" if code < 0 else f"exit code {code}",
                  f", {child.short_lives} short lives in a row" if child.short_lives > 1 else "", child.pause_s)
        child.process = 0
        if child.ready_fd >= 0:
            self._note_ready(child)     # it may have been ready and died before anybody looked
        self._show_status()

    def _tell(self, number: int) -> None:
        for child in self._children:
            if child.process:
                os.kill(child.process, number)

    def _stop_all(self) -> None:
        """Everybody but the first role (storage) together, then that one: replies still under way need it.

        Told a second time, nobody waits for the rest: they are killed. What was acknowledged is on the disk.
        """
        if self.manager:
            self.manager.stopping()
        first, rest = self._children[:1], self._children[1:]
        hurried = self._stop_group(rest, STOP_S)
        self._stop_group(first, HURRY_S if hurried else STOP_S)

    def _stop_group(self, group: Sequence[_Child], within_s: float) -> bool:
        """SIGTERM, and SIGKILL to those that are still there when the time is over; True when a signal cut it short."""
        self._received.clear()
        for child in group:
            if child.process:
                os.kill(child.process, signal.SIGTERM)
        deadline = self.clock.monotonic_s() + within_s
        hurried = False
        while any(child.process for child in group):
            for child in group:
                if child.process and os.waitpid(child.process, os.WNOHANG)[0]:
                    child.process = 0
            hurried = hurried or self._stopped()
            if hurried or self.clock.monotonic_s() > deadline:
                for child in group:
                    if child.process:
                        os.kill(child.process, signal.SIGKILL)
            self._wait([], 0.05)
            self._read_signals()
        return hurried


def _say_ready(descriptor: int) -> None:
    os.write(descriptor, b"r")
    os.close(descriptor)


def die_with_parent(parent: int) -> None:
    """SIGTERM to this process when its parent ends; it may have ended already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def harden() -> None:
    """No new privileges through exec, none kept for a port that is bound, files for nobody else, no core dump with secrets in
    it (spec/reliability.md §2.2-G). Once the user is the one to stay: setuid makes a process dumpable again."""
    os.umask(0o077)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() != 0:
        _drop_capabilities()


def _drop_capabilities() -> None:
    """capset(2): a unit may have given CAP_NET_BIND_SERVICE to an ordinary user."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
