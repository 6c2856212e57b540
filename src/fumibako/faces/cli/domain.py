"""fumibako domain add|list|show|remove.

Contract: what a verb says holds when it returns; lists are one JSON array with --json.
"""

from __future__ import annotations

import click

from fumibako.faces.cli.terminal import Terminal, pass_terminal
from fumibako.model.account import Domain
from fumibako.services.texts import N_


@click.group()
def domain() -> None:
    """Domains that this server hosts."""


def _row(found: Domain) -> dict[str, object]:
    return {"name": found.name, "accounts": found.accounts, "aliases": found.aliases}


@domain.command()
@click.argument("name")
@pass_terminal
def add(terminal: Terminal, name: str) -> None:
    """Host a domain."""
    made = terminal.run(lambda desk: desk.admin.add_domain(name))
    terminal.value(_row(made), ())
    terminal.say(N_("{name} is hosted. Next: fumibako account add someone@{name}; the DNS records: fumibako dns records {name}"),
                 name=made.name)


@domain.command("list")
@pass_terminal
def list_(terminal: Terminal) -> None:
    """The hosted domains."""
    found = terminal.run(lambda desk: desk.admin.domains())
    terminal.rows([_row(one) for one in found],
                  (("name", N_("Domain")), ("accounts", N_("Accounts")), ("aliases", N_("Aliases"))), N_("no domain yet"))


@domain.command()
@click.argument("name")
@pass_terminal
def show(terminal: Terminal, name: str) -> None:
    """One domain."""
    found = terminal.run(lambda desk: desk.admin.domain(name))
    terminal.value(_row(found), ((N_("Domain"), found.name), (N_("Accounts"), found.accounts), (N_("Aliases"), found.aliases)))


@domain.command()
@click.argument("name")
@pass_terminal
def remove(terminal: Terminal, name: str) -> None:
    """Stop hosting a domain that has no accounts and no aliases left."""
    terminal.run(lambda desk: desk.admin.remove_domain(name))
    terminal.say(N_("{name} is removed"), name=name)
