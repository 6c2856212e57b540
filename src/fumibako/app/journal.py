"""What the program writes about itself: the trace of every mail, and the log, both as JSON lines.

Contract: a trace line never holds up a mail: it is written in the event loop's next turn, behind the reply, and what
    can't be written is dropped. Every line is one JSON object in ASCII,
    so that no peer's octets can forge a second line or move a terminal's cursor (spec/reliability.md F11).
    Processes append to one file; the one that finds it full renames it to `trace.1.jsonl`.
Failure: none.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from fumibako.model.ids import TraceId
from fumibako.net.clock import Clock

TRACE_FILE = "trace.jsonl"
TRACE_FILE_OCTETS = 64 << 20
VALUE_CHARACTERS = 1_000
_LOOK_EVERY = 256           # lines between looks at the file's size


class TraceFile:
    """services.trace.Trace on DIR/trace.jsonl."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._path, self._clock = directory / TRACE_FILE, clock
        self._descriptor, self._looked = -1, 0
        self._lines: list[str] = []

    def event(self, trace_id: TraceId, kind: str, **fields: object) -> None:
        line: dict[str, object] = {"time": _time(self._clock.now_ms()), "trace_id": trace_id.hex(), "kind": kind}
        for name, value in fields.items():
            line[name] = _plain(value)
        self._lines.append(json.dumps(line))
        if len(self._lines) == 1:
            self._write_soon()

    def _write_soon(self) -> None:
        try:
            asyncio.get_running_loop().call_soon(self._write)
        except RuntimeError:        # no loop, so nobody whom it would hold up
            self._write()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        try:
            if self._looked <= 0:
                self._look()
                self._looked = _LOOK_EVERY
            self._looked -= len(lines)
            os.write(self._descriptor, "\n".join([*lines, ""]).encode())     # O_APPEND: those of other processes don't mix
        except OSError as error:
            logging.getLogger("fumibako.trace").warning("%d lines are lost: %s", len(lines), error)

    def _look(self) -> None:
        """Open the file; when it is full, or somebody has renamed it, a new one."""
        if self._descriptor >= 0:
            own = os.fstat(self._descriptor)
            if own.st_size > TRACE_FILE_OCTETS and self._is_current(own):
                os.rename(self._path, self._path.with_suffix(".1.jsonl"))
            os.close(self._descriptor)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _is_current(self, own: os.stat_result) -> bool:
        try:
            return os.stat(self._path).st_ino == own.st_ino
        except FileNotFoundError:
            return False


def read_trace(directory: Path, query: str) -> list[dict[str, object]]:
    """The lines about a mail: those that contain `query`, and all others with the same trace_id; oldest first."""
    found = {str(line.get("trace_id")) for line in _lines(directory) if _mentions(line, query)}
    return [line for line in _lines(directory) if str(line.get("trace_id")) in found]


def _lines(directory: Path) -> Iterator[dict[str, object]]:
    for path in (directory / TRACE_FILE).with_suffix(".1.jsonl"), directory / TRACE_FILE:
        if not path.exists():
            continue
        with path.open("rb") as file:
            for line in file:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue        # cut short by a crash


def _mentions(line: dict[str, object], query: str) -> bool:
    return any(query.casefold() in str(value).casefold() for value in line.values())


def _plain(value: object) -> object:
    """What JSON can say, of bounded length."""
    if isinstance(value, str):
        return value[:VALUE_CHARACTERS]
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value[:100]]
    return str(value)[:VALUE_CHARACTERS]


def _time(ms: int) -> str:
    seconds, thousandths = divmod(ms, 1000)
    return f"{_second(seconds)}.{thousandths:03}+00:00"


@lru_cache(maxsize=8)       # most lines are of the second of the one before
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class JsonLines(logging.Formatter):
    """A log record as one JSON object. `extra={"values": {...}}` adds fields of its own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(int(record.created * 1000)), "level": record.levelname.lower(), "process": record.process,
            "logger": record.name, "message": record.getMessage()[:VALUE_CHARACTERS],
        }
        line |= {name: _plain(value) for name, value in getattr(record, "values", {}).items()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)[-10 * VALUE_CHARACTERS:]
        return json.dumps(line)


def log_to_stderr() -> None:
    """Every log record of this process and its children, as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
