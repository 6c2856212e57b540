"""Work in a process of its own that may die in the middle of it."""

from __future__ import annotations

import os
from collections.abc import Callable

from fumibako.store import failpoint


def told_by_child(work: Callable[[Callable[[], object]], None], armed: str = "") -> tuple[int, bool]:
    """Runs `work` in a child that dies at the failpoint, if any: how often it called back, and whether it died."""
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            failpoint.arm(armed)
            work(lambda: os.write(write_fd, b"."))
            os._exit(0)
        finally:
            os._exit(99)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as answers:
        count = len(answers.read())
    status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) in (0, -9), status
    return count, os.WIFSIGNALED(status)
