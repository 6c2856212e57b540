"""What a process does to itself before it serves."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

_FREED_AND_ASKED = """
import ctypes, sys
from fumibako.app.processes import _loop_factory
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "free", "small", "hblks", *"abcdef")]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype, libc.malloc.restype, libc.free.argtypes = Info, ctypes.c_void_p, [ctypes.c_void_p]
_loop_factory(sys.argv[1])
libc.free(libc.malloc(8 << 20))
before = libc.mallinfo2().hblks
for _ in range(40):
    libc.malloc(256 * 1024)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc's way of counting")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_buffers_of_uvloop_are_mapped_whatever_was_freed_before(loop: str) -> None:
    """A few find room on the heap; without the setting all of them do."""
    done = subprocess.run([sys.executable, "-c", _FREED_AND_ASKED, loop], capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 20) == (loop == "uvloop")
