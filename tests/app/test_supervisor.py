"""The supervisor: order of start and stop, restart of the dead, an end when a role cannot start."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from fumibako.app.supervisor import Role, Supervisor
from fumibako.net.clock import Clock


def in_child(supervise: Callable[[], int]) -> int:
    """Run a supervisor in a process of its own (it owns signals); returns its exit code."""
    process = os.fork()
    if process == 0:
        code = 99
        try:
            code = supervise()
        finally:
            os._exit(code)
    watchdog = threading.Timer(20, lambda: os.kill(process, signal.SIGKILL))
    watchdog.start()
    _, status = os.waitpid(process, 0)
    watchdog.cancel()
    return os.waitstatus_to_exitcode(status)


def note(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(line + "\n")


def staying(log: Path, name: str) -> Role:
    def run(ready: Callable[[], None]) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        note(log, f"start {name}")
        ready()
        signal.sigwait({signal.SIGTERM})
        note(log, f"stop {name}")
        return 0
    return Role(name, run)


def test_roles_start_in_order_and_the_first_stops_last(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def supervise() -> int:
        supervisor = Supervisor([staying(log, "storage"), staying(log, "worker")])
        return supervisor.run(lambda: os.kill(os.getpid(), signal.SIGTERM))

    assert in_child(supervise) == 0
    assert log.read_text().split("\n")[:4] == ["start storage", "start worker", "stop worker", "stop storage"]


def test_a_role_that_dies_is_started_again(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def dying(ready: Callable[[], None]) -> int:
        note(log, "life")
        if log.read_text().count("life") == 3:
            os.kill(os.getppid(), signal.SIGTERM)
        ready()
        return 70

    def supervise() -> int:
        return Supervisor([staying(log, "storage"), Role("worker", dying)]).run(lambda: None)

    assert in_child(supervise) == 0
    assert log.read_text().count("life") >= 3


def test_no_process_to_be_had_ends_nobody(tmp_path: Path) -> None:
    """A role died and no new process could be made: the supervisor itself fell over, and with it the whole server."""
    log, real = tmp_path / "log", os.fork

    def dying(ready: Callable[[], None]) -> int:
        note(log, "life")
        if log.read_text().count("life") == 2:
            os.kill(os.getppid(), signal.SIGTERM)
        ready()
        return 70

    def fork() -> int:
        if "life" in log.read_text() and log.read_text().count("refused") < 3:
            note(log, "refused")
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return real()

    def supervise() -> int:
        with mock.patch("os.fork", fork):
            return Supervisor([staying(log, "storage"), Role("worker", dying)]).run(lambda: None)

    log.touch()
    assert in_child(supervise) == 0
    assert log.read_text().count("refused") == 3 and log.read_text().count("life") == 2
    assert log.read_text().count("start storage") == 1


def test_a_role_that_was_ready_and_died_before_anybody_looked_is_started_again(tmp_path: Path) -> None:
    log = tmp_path / "log"

    class LateClock(Clock):
        """Looks away until a child is dead."""

        def monotonic_s(self) -> float:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            return super().monotonic_s()

    def brief(ready: Callable[[], None]) -> int:
        note(log, "life")
        if log.read_text().count("life") == 2:
            os.kill(os.getppid(), signal.SIGTERM)
        ready()
        return 70

    def supervise() -> int:
        return Supervisor([Role("brief", brief)], LateClock()).run(lambda: note(log, "all ready"))

    assert in_child(supervise) == 0
    assert log.read_text().split("\n")[:3] == ["life", "all ready", "life"]


def test_a_role_shares_what_was_imported_before_it(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def counting(ready: Callable[[], None]) -> int:
        note(log, "shared" if gc.get_freeze_count() > 1_000 else "its own")
        return 1
    assert in_child(lambda: Supervisor([Role("counting", counting)]).run(lambda: None)) == 1
    assert log.read_text() == "shared\n"


def test_a_role_that_cannot_start_ends_everything(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def supervise() -> int:
        return Supervisor([staying(log, "storage"), Role("worker", lambda ready: 1)]).run(lambda: note(log, "ready"))

    assert in_child(supervise) == 1
    assert log.read_text().split("\n")[:2] == ["start storage", "stop storage"]


def test_bug_a_reload_killed_the_roles_that_have_nothing_to_reload(tmp_path: Path) -> None:
    """SIGHUP is passed on to every role; storage and jobs died of it, and every session with them."""
    log = tmp_path / "log"

    def reload_then_stop() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)

    def supervise() -> int:
        return Supervisor([staying(log, "storage")]).run(reload_then_stop)

    assert in_child(supervise) == 0
    assert log.read_text().split("\n")[:2] == ["start storage", "stop storage"]


def test_bug_a_role_that_dies_while_another_starts_is_started_again_at_once(tmp_path: Path) -> None:
    """A worker waits for storage; storage that died meanwhile was left dead until the worker gave up, and all with it."""
    log = tmp_path / "log"

    def storage(ready: Callable[[], None]) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        note(log, "life")
        ready()
        if log.read_text().count("life") == 1:
            return 70
        signal.sigwait({signal.SIGTERM})
        return 0

    def worker(ready: Callable[[], None]) -> int:
        while log.read_text().count("life") < 2:
            os.sched_yield()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        ready()
        signal.sigwait({signal.SIGTERM})
        return 0

    def supervise() -> int:
        return Supervisor([Role("storage", storage), Role("worker", worker)]).run(lambda: os.kill(os.getpid(), signal.SIGTERM))

    assert in_child(supervise) == 0
    assert log.read_text().count("life") == 2
