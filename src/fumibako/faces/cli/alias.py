"""fumibako alias add|list|remove.

Contract: what a verb says holds when it returns; lists are one JSON array with --json.
"""

from __future__ import annotations

import click

from fumibako.faces.cli.terminal import Terminal, pass_terminal
from fumibako.services.texts import N_


@click.group()
def alias() -> None:
    """Other names for accounts: info@example.jp, or @example.jp for every address nobody has."""


@alias.command()
@click.argument("address")
@click.argument("targets", nargs=-1, required=True)
@pass_terminal
def add(terminal: Terminal, address: str, targets: tuple[str, ...]) -> None:
    """Send mail for an address to one or more others."""
    made = terminal.run(lambda desk: desk.admin.add_alias(address, targets))
    terminal.value({"address": made.address, "targets": list(made.targets)}, ())
    terminal.say(N_("{address} goes to {targets}"), address=made.address, targets=", ".join(made.targets))


@alias.command("list")
@click.argument("domain", default="")
@pass_terminal
def list_(terminal: Terminal, domain: str) -> None:
    """All aliases, or those of one domain."""
    found = terminal.run(lambda desk: desk.admin.aliases(domain))
    terminal.rows([{"address": one.address, "targets": list(one.targets)} for one in found],
                  (("address", N_("Address")), ("targets", N_("Goes to"))), N_("no alias yet"))


@alias.command()
@click.argument("address")
@click.argument("targets", nargs=-1)
@pass_terminal
def remove(terminal: Terminal, address: str, targets: tuple[str, ...]) -> None:
    """Remove an alias, or only some of its targets."""
    terminal.run(lambda desk: desk.admin.remove_alias(address, targets))
    terminal.say(N_("{address} is removed"), address=address)
