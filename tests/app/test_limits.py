"""When a process has files enough for connections, and when not."""

from __future__ import annotations

import os
import resource

from fumibako.app.limits import allow_most_files, files_allowed, is_beyond


def test_four_fifths_of_the_files_are_for_connections() -> None:
    """In a process of its own, which then ends: the limit is lowered for good."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.closerange(3, 4096)
            resource.setrlimit(resource.RLIMIT_NOFILE, (60, 100))
            allow_most_files()
            assert files_allowed() == 100
            opened = [os.open(os.devnull, os.O_RDONLY)]
            while not is_beyond(opened[-1]):
                opened.append(os.open(os.devnull, os.O_RDONLY))
            assert 75 <= len(opened) <= 80, len(opened)
            os.close(opened[10])
            assert not is_beyond(os.open(os.devnull, os.O_RDONLY))      # it gets the number that is free again
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
