"""The package as data: every module with its room, its imports and its calls."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "src" / "fumibako"

# Modules at the top of the package that belong to a room with another name.
TOP = {"__main__": "app", "config": "config"}


@dataclass(frozen=True, slots=True)
class Module:
    """One module: its name inside the package (`proto.smtp.server`, empty for the package itself) and its tree."""

    name: str
    path: str
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The room it lives in; empty for the package's own __init__."""
        first = self.name.partition(".")[0]
        return TOP.get(first, first)

    def inside(self, places: list[str]) -> bool:
        """Whether it is one of the places or lies below one."""
        return any(self.name == place or self.name.startswith(f"{place}.") for place in places)


def no_faults(found: Iterable[str], remedy: str = "") -> None:
    """Fails with one line for each fault and no traceback, so that the list is all there is to read."""
    if lines := list(found):
        pytest.fail("\n".join([*lines, remedy]).strip(), pytrace=False)


def parse(name: str, text: str, path: str = "") -> Module:
    """Makes a Module from source text."""
    return Module(name, path or f"{name}.py", text, ast.parse(text))


@cache
def modules() -> tuple[Module, ...]:
    """Returns every module of the package, in order of path."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")
        found.append(parse(name, path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))))
    return tuple(found)


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Yields (line, full dotted name) of everything imported; a relative import keeps its dots."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)


def origins(module: Module) -> dict[str, str]:
    """Returns local name -> full dotted name for every import, so that a renamed import is still known."""
    names: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
            names |= {top: top for alias in node.names if not alias.asname and (top := alias.name.partition(".")[0])}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """Returns `asyncio.create_task` for a name or attribute; what can't be named becomes `?`, a call keeps `()`."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    if isinstance(node, ast.Call):
        return f"{dotted(node.func, names)}()"
    return "?"


def calls(module: Module) -> Iterator[tuple[str, ast.Call]]:
    """Yields (dotted name, call) of every call."""
    names = origins(module)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func, names), node


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yields every function and method, nested ones too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
