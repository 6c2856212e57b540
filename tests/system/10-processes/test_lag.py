"""SIGUSR1: every process with an event loop tells how late it is, in one line of the log; nobody dies of it."""

from __future__ import annotations

import pytest

from tests.support.clients import smtp_wire
from tests.support.lag import ask_lag
from tests.support.server import LiveServer

pytestmark = pytest.mark.system


@pytest.mark.parametrize(("workers", "roles"), [("0", {"alone"}), ("2", {"jobs", "worker 0", "worker 1"})])
def test_each_process_tells(fresh: LiveServer, workers: str, roles: set[str]) -> None:
    fresh.init(server__workers=workers)
    fresh.start()
    children = fresh.children()
    first = ask_lag(fresh)
    assert set(first) == roles
    for _ in range(2):
        said = ask_lag(fresh)
        assert set(said) == roles
        for one in said.values():
            assert 0 <= one["p50_ms"] <= one["p99_ms"] <= 2000 and one["max_ms"] >= 0 and one["window_s"] < 60
            assert 0 < one["tasks"] < 100
    smtp_wire(fresh).close()
    assert fresh.children() == children
    fresh.stop()
