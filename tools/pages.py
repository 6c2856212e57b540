"""The reference pages made from the code: docs/config.md and docs/cli.md."""

import click

from fumibako.config import NOT_BUILT, SECTIONS
from fumibako.faces.cli.main import fumibako
from fumibako.services.policy import SETTINGS


def config_page() -> str:
    """Returns docs/config.md: every key of fumibako.toml, and every live setting."""
    lines = ["# Configuration", "", "<!-- made by `make docs` from src/fumibako/config.py and services/policy.py -->", "",
             "`DIR/fumibako.toml` holds what must be known before the store opens. Every section and key is optional; a listener",
             "without a line is off. Everything else is a live setting, changed with `fumibako policy` (below).", ""]
    for section, keys in SECTIONS.items():
        lines += [f"## [{section}]", "", "| key | default | allowed | meaning |", "|---|---|---|---|"]
        for name, key in keys.items():
            note = " (not built yet: refused)" if name in (*NOT_BUILT, "acme") else ""
            lines.append(f"| `{name}` | `{key.default}` | {key.allowed} | {key.comment}{note} |")
        lines.append("")
    lines += ["## Live settings (`fumibako policy`)", "", "| setting | default | allowed | meaning |", "|---|---|---|---|"]
    lines += [f"| `{key}` | `{one.default}` | {one.allowed} | {one.comment} |" for key, one in SETTINGS.items()]
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """Returns docs/cli.md: every command with its help."""
    lines = ["# Command line", "", "<!-- made by `make docs` from src/fumibako/faces/cli -->", "",
             "Global options stand anywhere: `--data DIR` (or `FUMIBAKO_DATA`), `--json`, `--lang ja|en`.",
             "Exit codes: 0 ok, 1 the answer is no, 2 usage or configuration, 70 a bug.", ""]
    for words, command in _commands(fumibako, ()):
        # Said outright: click remembers the help option of whoever asked first, and the width is the terminal's.
        context = click.Context(command, info_name=" ".join(("fumibako", *words)), terminal_width=100,
                                help_option_names=["-h", "--help"])
        lines += [f"## {context.info_name}", "", "```", command.get_help(context), "```", ""]
    return "\n".join(lines)


def _commands(group: click.Group, words: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in sorted(group.commands.items()):
        found += _commands(command, (*words, name)) if isinstance(command, click.Group) else [((*words, name), command)]
    return found
