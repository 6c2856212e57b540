"""What the system knows of a tree of processes: processor time and memory; and a directory on a real disk.

Contract: figures come from /proc. A child that has ended counts as processor time of the parent that waited for it.
Failure: OSError when the first process is gone.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_USER, _CHILDREN_SYSTEM = 11, 15    # utime stime cutime cstime in /proc/PID/stat, counted behind the name


def tree(root: int) -> list[int]:
    """The process and all below it."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:
            continue        # it has just ended
    return found


def cpu_s(root: int) -> float:
    """User and system time of the tree so far."""
    ticks = 0
    for pid in tree(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[_USER : _CHILDREN_SYSTEM]))
    return ticks * _TICK_S


def memory_octets(root: int) -> int:
    """Proportional set size of the tree: a page that several processes share counts once."""
    total = 0
    for pid in tree(root):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def description() -> dict[str, str]:
    """What the figures were made on."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    memory = next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {"processor": model, "processors": str(os.cpu_count()), "memory_gb": f"{int(memory) / 1024**2:.0f}",
            "system": f"{platform.system()} {platform.release()}", "python": platform.python_version() + _origin()}


def _origin() -> str:
    """Whose interpreter it is: a tenth of all CPU figures hangs on how it was compiled."""
    return " of the system" if sys.base_prefix == "/usr" else ""


def wait_until(done: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Looks again and again, for a tenth of the time at most; RuntimeError when it takes too long."""
    begun = looked = time.monotonic()
    while not done():
        now = time.monotonic()
        if now > begun + timeout_s:
            raise RuntimeError(f"{what}: not after {timeout_s:g} s")
        time.sleep(max(0.005, 10 * (now - looked)))
        looked = time.monotonic()


@contextmanager
def work_directory() -> Iterator[Path]:
    """Where all servers keep their data; removed afterwards. /var/tmp: /tmp may be memory, and then fsync costs nothing."""
    place = Path(tempfile.mkdtemp(prefix="fumibako-bench-", dir="/var/tmp"))
    place.chmod(0o755)      # the peers' own users go through it
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
