"""Every third-party package lodges where lodgers.toml says, and is declared in pyproject.toml."""

import re
import sys
import tomllib
from collections.abc import Iterator

import pytest

from tests.architecture.source import ROOT, Module, imports, modules, no_faults, parse

LODGERS = tomllib.loads((ROOT / "tests" / "architecture" / "lodgers.toml").read_text())
# The standard library's sqlite3 is the system's SQLite: only apsw may touch a database file.
BARRED = {
    "sqlite3": "use apsw, inside store",
    "dbm": "use the store",
    "shelve": "use the store",
    "pickle": "unpickling runs code",
    "marshal": "unmarshalling crashes on hostile octets",
}


def faults(module: Module) -> Iterator[str]:
    """Yields one sentence for each package imported outside its rooms."""
    for line, name in imports(module):
        top = name.partition(".")[0]
        where = f"{module.path}:{line}"
        if top in BARRED:
            yield f"{where}: {top} is barred: {BARRED[top]}"
        elif top in LODGERS and not module.inside(LODGERS[top]["rooms"]):
            yield f"{where}: {top} lodges in {', '.join(LODGERS[top]['rooms'])}, not in {module.name}"
        elif top and top != "fumibako" and top not in LODGERS and top not in sys.stdlib_module_names:
            yield f"{where}: {top} has no room in tests/architecture/lodgers.toml"


def declared() -> set[str]:
    """Returns the names of the packages in pyproject.toml that a user's installation may hold."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return {re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0] for line in project["dependencies"] + extras}


def test_every_lodger_is_at_home() -> None:
    no_faults(fault for module in modules() for fault in faults(module))


def test_lodgers_are_the_declared_packages() -> None:
    assert {entry["package"] for entry in LODGERS.values()} == declared()


def test_every_lodger_has_a_reason() -> None:
    no_faults(name for name, entry in LODGERS.items() if set(entry) != {"package", "rooms", "why"} or not entry["why"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("services.queue", "import apsw"),
        ("store.sqlite.engine", "import sqlite3"),
        ("net.ipc", "from pickle import loads"),
        ("proto.smtp.server", "import dns.message"),
        ("faces.smtp", "import requests"),
    ],
)
def test_rule_catches(name: str, text: str) -> None:
    assert list(faults(parse(name, text))) != []


def test_rule_lets_pass() -> None:
    assert list(faults(parse("store.sqlite.engine", "import apsw\nimport json\nfrom fumibako.model import ops"))) == []
