"""How much memory a piece of work takes at its worst."""

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

MIB = 1 << 20


class Memory:
    """peak_octets: the most that was held at once beyond what there was before."""

    peak_octets = 0


@contextmanager
def measured() -> Iterator[Memory]:
    """Measures what Python allocates within the block."""
    memory = Memory()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield memory
        memory.peak_octets = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
