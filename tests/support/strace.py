"""What strace saw, as calls with a beginning and an end, and the order in which a message became durable and was acknowledged.

A system call of several processes is printed in two lines when another one comes between: `<unfinished ...>` and `resumed`. The
numbers of those lines are its beginning and end; strace prints a line when the kernel has done it, so their order is the order
of events between processes that wait for each other.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import die_with_tests, eventually

CALLS = "pwrite64,write,sendto,sendmsg,recvfrom,recv,fsync,fdatasync"
_WHOLE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(?: .*)?")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)(?: .*)?")
_PLACE = re.compile(r"\d+<(.*?)>")
_SYNCS = ("fsync", "fdatasync")
_SENDS = ("sendto", "sendmsg", "write")


def strace(output: Path) -> tuple[str, ...]:
    """The command to run a server under; its calls go to `output`."""
    return ("strace", "-f", "-qq", "-yy", "-s", "100000", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(output))


@contextmanager
def injecting(process: int, calls: str, how: str, output: Path) -> Iterator[None]:
    """While the block runs, those calls of `process` end as strace is told: "error=EIO:when=2", "delay_enter=200000"."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(process), "-e", f"trace={calls}", "-e", f"inject={calls}:{how}", "-y", "-o", str(output)],
        stderr=subprocess.DEVNULL, preexec_fn=die_with_tests)  # noqa: PLW1509 (it takes no lock)
    try:
        eventually(lambda: re.search(r"TracerPid:\t[1-9]", Path(f"/proc/{process}/status").read_text()), "strace is attached")
        yield
    finally:
        lives = Path(f"/proc/{process}/fd").exists()
        _let_go(tracer, patience_s=0 if lives else 2)


def _let_go(tracer: subprocess.Popen[bytes], patience_s: float) -> None:
    """It ends with the last process it watches, or is told to. Where that process dies just then, it may wait for it for ever,
    and whoever reaps that for both."""
    for end in (tracer.terminate, tracer.kill):
        with contextlib.suppress(subprocess.TimeoutExpired):
            tracer.wait(patience_s)
            return
        end()
        patience_s = 2
    tracer.wait()


@dataclass(slots=True)
class Call:
    """place: the file or socket of the first argument; result -1: it failed, or never came back."""

    process: int
    name: str
    arguments: str
    begin: int
    end: int
    result: int

    @property
    def place(self) -> str:
        found = _PLACE.match(self.arguments)
        return found[1] if found else ""


def parse_trace(lines: Iterable[str]) -> list[Call]:
    """Calls in the order of their beginnings."""
    calls: list[Call] = []
    open_calls: dict[tuple[int, str], Call] = {}
    for number, line in enumerate(lines):
        if found := _WHOLE.fullmatch(line):
            calls.append(Call(int(found[1]), found[2], found[3], number, number, int(found[4])))
        elif found := _BEGUN.fullmatch(line):
            call = Call(int(found[1]), found[2], found[3], number, 1 << 60, -1)
            open_calls[call.process, call.name] = call
            calls.append(call)
        elif (found := _RESUMED.fullmatch(line)) and (begun := open_calls.pop((int(found[1]), found[2]), None)):
            begun.arguments, begun.end, begun.result = begun.arguments + found[3], number, int(found[4])
    return calls


class NotInOrder(AssertionError):
    """Success was told before it was true."""


def check_order(calls: list[Call], mark: str, success: str, *, after: int = -1) -> Call:
    """The octets with `mark`, their fdatasync, rows, their sync, and only then `success`; the call that told it.

    mark: text of the message, "" where no octets are stored; success: text of the reply; after: an earlier call's end.
    """
    told = next((call for call in calls if call.begin > after and call.name in _SENDS and success in call.arguments
                 and not call.place.startswith("/")), None)
    if told is None:
        raise NotInOrder(f"{success!r} was never told")
    if mark:
        after = _octets_synced(calls, mark, told)
    rows_synced(calls, after, told)
    return told


def _octets_synced(calls: list[Call], mark: str, told: Call) -> int:
    """The end of the fdatasync of the file that got the octets."""
    writes = [call for call in calls if call.name == "pwrite64" and mark in call.arguments and call.result > 0
              and "-wal>" not in call.arguments and call.begin < told.begin]
    if not writes:
        raise NotInOrder(f"{mark!r}: no octets written before {told.arguments[:80]}")
    last = writes[-1]
    syncs = [call.end for call in calls if call.name in _SYNCS and call.result == 0 and call.place == last.place
             and last.end < call.begin and call.end < told.begin]
    if not syncs:
        raise NotInOrder(f"{mark!r}: no sync of {last.place} between its octets and {told.arguments[:80]}")
    return syncs[0]


def rows_synced(calls: list[Call], after: int, told: Call) -> None:
    """A log of a database was written and synced between `after` and `told`."""
    for written in calls:
        is_rows = written.begin > after and written.name == "pwrite64" and written.place.endswith("-wal")
        if is_rows and any(call.name in _SYNCS and call.result == 0 and call.place == written.place
                           and written.end < call.begin and call.end < told.begin for call in calls):
            return
    raise NotInOrder(f"no synced rows before {told.arguments[:80]}")
