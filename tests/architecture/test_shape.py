"""A function fits a screen, a file has one subject, a name says what a thing is."""

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.source import Module, calls, functions, modules, no_faults, parse

LINES_OF_FUNCTION, LINES_OF_FILE = 60, 600
EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
EMPTY_PREFIXES = ("get_", "do_", "handle_")
# Names a library calls us by, or that a protocol gives.
GIVEN = {"get_extra_info", "get_buffer", "get_write_buffer_size"}


def size_faults(module: Module) -> Iterator[str]:
    """Yields each function or file that is too long."""
    if (lines := module.text.count("\n")) > LINES_OF_FILE:
        yield f"{module.path}: {lines} lines, at most {LINES_OF_FILE}"
    for function in functions(module):
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > LINES_OF_FUNCTION:
            yield f"{module.path}:{function.lineno}: {function.name} has {lines} lines, at most {LINES_OF_FUNCTION}"


def name_faults(module: Module) -> Iterator[str]:
    """Yields each name that says nothing."""
    for part in set(module.name.split(".")) & EMPTY_NAMES:
        yield f"{module.path}: a module called {part} has no subject"
    for function in functions(module):
        if function.name.lstrip("_").startswith(EMPTY_PREFIXES) and function.name not in GIVEN:
            yield f"{module.path}:{function.lineno}: {function.name}: name it for what it returns or does"


def labels(module: Module) -> Iterator[str]:
    """Yields the labels a module's docstring must hold: where it has code, what it promises and how it fails."""
    if any(isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) for node in module.tree.body):
        yield "Contract:"
    if any(isinstance(node, ast.Raise) for node in ast.walk(module.tree)):
        yield "Failure:"
    if module.room == "proto" and module.text.count("RFC "):
        yield "Specification:"


def docstring_faults(module: Module) -> Iterator[str]:
    """Yields each module without a docstring, or with one that lacks a label."""
    text = ast.get_docstring(module.tree) or ""
    if not text:
        yield f"{module.path}: no docstring"
    else:
        yield from (f"{module.path}: the docstring has no `{label}`" for label in labels(module) if label not in text)


def value_faults(module: Module) -> Iterator[str]:
    """Yields each dataclass of model that can change: values are frozen and have slots."""
    if module.room != "model":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and node.id == "dataclass" and not any(c.func is node for _, c in calls(module)):
            yield f"{module.path}:{node.lineno}: @dataclass(frozen=True, slots=True)"
    for name, call in calls(module):
        given = {k.arg for k in call.keywords if isinstance(k.value, ast.Constant) and k.value.value is True}
        if name == "dataclasses.dataclass" and not {"frozen", "slots"} <= given:
            yield f"{module.path}:{call.lineno}: @dataclass(frozen=True, slots=True)"


def test_sizes() -> None:
    no_faults(fault for module in modules() for fault in size_faults(module))


def test_names() -> None:
    no_faults(fault for module in modules() for fault in name_faults(module))


def test_docstrings() -> None:
    no_faults(fault for module in modules() for fault in docstring_faults(module))


def test_values_are_frozen() -> None:
    no_faults(fault for module in modules() for fault in value_faults(module))


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (size_faults, "net.dial", "def dial():\n" + "    pass\n" * 60),
        (size_faults, "net.dial", "x = 1\n" * 601),
        (name_faults, "services.utils", ""),
        (name_faults, "net.common.dial", ""),
        (name_faults, "net.dial", "async def handle_line(): ..."),
        (name_faults, "net.dial", "class A:\n    def _get_host(self): ..."),
        (docstring_faults, "net.dial", "x = 1"),
        (docstring_faults, "net.dial", '"""Opens connections."""\ndef dial(): ...'),
        (docstring_faults, "net.dial", '"""Opens.\n\nContract: a Stream."""\ndef dial():\n    raise OSError'),
        (docstring_faults, "proto.dns.wire", '"""Reads names."""\n# RFC 1035 §4.1.4'),
        (value_faults, "model.ids", "from dataclasses import dataclass\n@dataclass\nclass A: ..."),
        (value_faults, "model.ids", "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass A: ..."),
    ],
)
def test_rule_catches(rule: object, name: str, text: str) -> None:
    assert callable(rule)
    assert list(rule(parse(name, text))) != []


def test_rules_let_pass() -> None:
    text = (
        '"""Opens connections.\n\nSpecification: RFC 5321 §5.1.\nContract: a Stream.\nFailure: OSError."""\n'
        "from dataclasses import dataclass\n@dataclass(frozen=True, slots=True)\nclass Host:\n    name: str\ndef dial(): ...\n"
    )
    module = parse("model.dial", text)
    no_faults(f for rule in (size_faults, name_faults, docstring_faults, value_faults) for f in rule(module))
