"""What a running server says about its event loops."""

from __future__ import annotations

import json
import signal
from typing import Any

from tests.support.server import LiveServer, eventually


def ask_lag(server: LiveServer) -> dict[str, dict[str, Any]]:
    """Role ("jobs", "worker 0", ...; "alone" with workers = 0) -> looks, window_s, p50_ms, p99_ms, max_ms since last asked."""
    expected = len(server.children()[1:]) or 1      # storage has no event loop
    before = len(_told(server))
    server.signal(signal.SIGUSR1)
    found = eventually(lambda: _told(server)[before:] if len(_told(server)) >= before + expected else [], "the lag of every loop")
    return {line["role"]: line for line in found}


def _told(server: LiveServer) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.errors_text().split("\n")[:-1]]
    return [line for line in lines if line["logger"] == "fumibako.lag"]
