"""Every import points down the list of rooms, and the pure rooms stay pure."""

from collections.abc import Iterator

import pytest

from tests.architecture.source import Module, imports, modules, no_faults, parse

# What each room may import of ours; see docs/architecture.md.
MAY = {
    "model": [],
    "proto": ["model"],
    "store": ["model"],
    "config": ["model"],
    "net": ["model", "proto"],
    "services": ["model", "proto", "store.base", "net"],
    "faces": ["model", "proto", "net", "services"],
    "app": ["model", "proto", "store", "config", "net", "services", "faces", "app", "__main__"],
}
PURE = {"model", "proto"}
WORLD = set(
    "_thread asyncio concurrent ctypes fcntl ftplib glob http imaplib logging mmap multiprocessing os pathlib poplib "
    "random sched secrets select selectors shutil signal smtplib socket socketserver ssl subprocess syslog tempfile "
    "threading time urllib.request uuid".split()
)


def under(name: str, place: str) -> bool:
    """Whether a dotted name is a place or lies below it."""
    return name == place or name.startswith(f"{place}.")


def faults(module: Module) -> Iterator[str]:
    """Yields one sentence for each import that is not allowed."""
    for line, name in imports(module):
        where = f"{module.path}:{line}"
        if name.startswith("."):
            yield f"{where}: relative import; write the full name"
        elif under(name, "fumibako"):
            target = name.removeprefix("fumibako").removeprefix(".")
            allowed = [*MAY.get(module.room, []), module.room, "__version__"]
            if not any(under(target, place) for place in allowed):
                yield f"{where}: {module.room or 'fumibako'} may not import {name}"
        elif module.room in PURE and any(under(name, place) for place in WORLD):
            yield f"{where}: {module.room} is pure and may not import {name}"


def test_every_module_has_a_room() -> None:
    no_faults(m.path for m in modules() if m.room and m.room not in MAY)


def test_every_import_points_down() -> None:
    no_faults(fault for module in modules() for fault in faults(module))


ALLOWED = [
    ("model.envelope", "from fumibako.model.status import Status"),
    ("services.queue", "from fumibako.store.base import Store"),
    ("services.queue", "from fumibako.store import base"),
    ("faces.smtp", "from fumibako.services.receive import receive\nfrom fumibako.net.stream import Stream"),
    ("app", "from fumibako.store.sqlite.engine import Engine\nfrom fumibako.config import read_config"),
    ("app.house", "from fumibako.app.serving import Server"),
    ("faces.cli.main", "from fumibako import __version__"),
    ("net.clock", "import time"),
]
FORBIDDEN = [
    ("model.envelope", "from fumibako.proto.reader import Reader"),
    ("proto.smtp.server", "from fumibako.store.base import Store"),
    ("store.sqlite.engine", "from fumibako.proto.message import index"),
    ("config", "from fumibako.net.tls import server_context"),
    ("net.dial", "from fumibako.store.base import Store"),
    ("net.dial", "from fumibako.services.relay import relay"),
    ("services.queue", "from fumibako.store.sqlite.engine import Engine"),
    ("services.queue", "from fumibako.store import sqlite"),
    ("services.queue", "from fumibako import store"),
    ("services.queue", "import fumibako"),
    ("services.queue", "from fumibako.config import Config"),
    ("services.queue", "from fumibako.faces.smtp import Session"),
    ("faces.smtp", "from fumibako.store.base import Store"),
    ("faces.smtp", "from fumibako.config import Config"),
    ("faces.smtp", "from fumibako.app import run"),
    ("faces.smtp", "from ..services import receive"),
    ("faces.smtp", "from . import imap"),
    ("services.queue", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fumibako.faces.smtp import Session"),
    ("services.queue", "def late():\n    from fumibako.faces.smtp import Session"),
    ("proto.smtp.server", "import time"),
    ("proto.smtp.server", "from asyncio import sleep"),
    ("model.ids", "import secrets as chance"),
    ("model.ids", "from os import urandom"),
]


@pytest.mark.parametrize(("name", "text"), ALLOWED)
def test_rule_lets_pass(name: str, text: str) -> None:
    assert list(faults(parse(name, text))) == []


@pytest.mark.parametrize(("name", "text"), FORBIDDEN)
def test_rule_catches(name: str, text: str) -> None:
    assert list(faults(parse(name, text))) != []
