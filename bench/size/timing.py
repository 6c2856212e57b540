"""Seconds as medians and percentiles, in milliseconds, and the load of the machine beside them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from statistics import median


def timed_ms(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def median_ms(work: Callable[[], object], rounds: int) -> float:
    return median(timed_ms(work) for _ in range(rounds))


def spread(found_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest."""
    ordered = sorted(found_ms)
    at = {f"p{share}_ms": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (50, 95, 99)}
    return {**at, "max_ms": ordered[-1], "samples": len(ordered)}


def load() -> float:
    return round(os.getloadavg()[0], 1)
