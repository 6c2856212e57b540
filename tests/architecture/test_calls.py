"""Some calls are forbidden everywhere, some have one room; each rule says what to write instead."""

import ast
from collections.abc import Callable, Iterator

import pytest

from tests.architecture.source import Module, calls, modules, no_faults, parse

CLOCK = ["net.clock", "store"]
TASKS = "only a TaskGroup starts tasks: an exception is never lost"
TIME = "the clock is handed in (net.clock)"
CHANCE = "random numbers are handed in (net.clock)"

# dotted name -> (rooms where it may stand, what to do instead)
CALLS: dict[str, tuple[list[str], str]] = {
    "eval": ([], "parse it"),
    "exec": ([], "write the code"),
    "__import__": ([], "import it at the top"),
    "importlib.import_module": ([], "import it at the top"),
    "os.system": ([], "use subprocess with a list"),
    "os.popen": ([], "use subprocess with a list"),
    "asyncio.create_task": ([], TASKS),
    "asyncio.ensure_future": ([], TASKS),
    "asyncio.gather": ([], TASKS),
    "asyncio.wait_for": ([], "use asyncio.timeout: it never swallows a cancellation"),
    "asyncio.get_running_loop().create_task": ([], TASKS),
    "asyncio.get_event_loop().create_task": ([], TASKS),
    "loop.create_task": ([], TASKS),
    "self.loop.create_task": ([], TASKS),
    "self._loop.create_task": ([], TASKS),
    # RFC 2045 §6.8: in a body, characters outside the alphabet are ignored.
    "binascii.a2b_base64": (["proto.message"], "decode strictly: b64decode(x, validate=True)"),
    "time.time": (CLOCK, TIME),
    "time.time_ns": (CLOCK, TIME),
    "time.monotonic": (CLOCK, TIME),
    "time.monotonic_ns": (CLOCK, TIME),
    "time.perf_counter": (CLOCK, TIME),
    "time.localtime": (CLOCK, TIME),
    "time.sleep": (CLOCK, "wait on an event"),
    "datetime.datetime.now": (CLOCK, TIME),
    "datetime.datetime.utcnow": (CLOCK, TIME),
    "datetime.datetime.today": (CLOCK, TIME),
    "datetime.date.today": (CLOCK, TIME),
    "email.utils.localtime": (CLOCK, TIME),
    "os.urandom": (CLOCK, CHANCE),
    "uuid.uuid1": (CLOCK, CHANCE),
    "uuid.uuid4": (CLOCK, CHANCE),
}

LOOSE_BASE64 = {"base64.b64decode", "base64.standard_b64decode", "base64.urlsafe_b64decode", "base64.decodebytes"}


def anything_of(name: str) -> str | None:
    """Whole modules whose every call is chance."""
    return CHANCE if name.startswith(("random.", "secrets.")) else None


def keyword(call: ast.Call, name: str) -> object:
    """Returns the constant given for a keyword argument, else None."""
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def loose_split(name: str, _: ast.Call) -> str | None:
    """str.splitlines also splits at VT, FF, NEL, U+2028 and bare CR, so a peer can smuggle a line."""
    return 'split on b"\\r\\n" or "\\n"' if name.endswith(".splitlines") else None


def shell(_: str, call: ast.Call) -> str | None:
    """A shell reads its argument as a program."""
    return "no shell: pass a list" if keyword(call, "shell") is True else None


def loose_base64(name: str, call: ast.Call) -> str | None:
    """b64decode skips what is not in the alphabet unless told otherwise."""
    loose = name in LOOSE_BASE64 and keyword(call, "validate") is not True
    return "decode strictly: b64decode(x, validate=True)" if loose else None


def loose_anchor(name: str, call: ast.Call) -> str | None:
    """`$` also matches before a final LF, so `^...$` lets one octet more pass."""
    if name not in {"re.match", "re.search", "re.compile"} or not call.args or not isinstance(call.args[0], ast.Constant):
        return None
    pattern = call.args[0].value
    text = pattern.decode("latin-1") if isinstance(pattern, bytes) else str(pattern)
    anchored = text.endswith("$") and not text.endswith("\\$") and "MULTILINE" not in ast.dump(call)
    return "use fullmatch, not `$`" if anchored else None


RULES: tuple[Callable[[str, ast.Call], str | None], ...] = (loose_split, shell, loose_base64, loose_anchor)


def faults(module: Module) -> Iterator[str]:
    """Yields one sentence for each forbidden call."""
    for name, call in calls(module):
        where = f"{module.path}:{call.lineno}: {name}()"
        rooms, instead = CALLS.get(name, (CLOCK, anything_of(name)))
        strict = keyword(call, "strict_mode") is True  # binascii's own way to refuse what is not base64
        if instead and not strict and not module.inside(rooms):
            yield f"{where}: {instead}"
        yield from (f"{where}: {instead}" for rule in RULES if (instead := rule(name, call)))


def test_no_forbidden_call() -> None:
    no_faults(fault for module in modules() for fault in faults(module))


@pytest.mark.parametrize(
    "text",
    [
        "line.splitlines()",
        "import asyncio\nasyncio.create_task(x())",
        "from asyncio import create_task as spawn\nspawn(x())",
        "import asyncio\nasyncio.get_running_loop().create_task(x())",
        "import time\ntime.time()",
        "from time import time as now\nnow()",
        "import datetime as dt\ndt.datetime.now()",
        "from datetime import datetime, UTC\ndatetime.now(UTC)",
        "import random\nrandom.shuffle(hosts)",
        "from secrets import token_bytes\ntoken_bytes(16)",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "from base64 import b64decode\nb64decode(x)",
        "import re\nre.compile(rb'^[a-z]+$')",
        "eval('1')",
    ],
)
def test_rule_catches(text: str) -> None:
    assert list(faults(parse("services.queue", text))) != []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("net.clock", "import time\nimport secrets\ntime.time()\nsecrets.token_bytes(16)"),
        ("store.process", "import time\ntime.monotonic()"),
        ("net.listen", "async with asyncio.TaskGroup() as tasks:\n    tasks.create_task(x())"),
        ("proto.sasl.plain", "from base64 import b64decode\nb64decode(x, validate=True)"),
        ("proto.smtp.path", "import re\nre.compile(rb'[a-z]+\\\\$')"),
        ("proto.message.transfer", "import binascii\nbinascii.a2b_base64(line)"),
        ("services.queue", "clock.time()\nself.random.shuffle(hosts)"),
    ],
)
def test_rule_lets_pass(name: str, text: str) -> None:
    text = text if not text.startswith("async") else "import asyncio\nasync def f():\n    " + text.replace("\n", "\n    ")
    assert list(faults(parse(name, text))) == []
