"""fumibako policy list|show|set|unset: every live setting.

Contract: every live setting is listed with its default and its meaning.
Failure: a usage error (exit 2) or a plain "no" (exit 1).
"""

from __future__ import annotations

import click

from fumibako.faces.cli.terminal import Terminal, pass_terminal
from fumibako.services.admin import domain_name, mail_address
from fumibako.services.policy import SETTINGS, Policy
from fumibako.services.texts import N_


@click.group()
def policy() -> None:
    """Settings that hold at once, without a restart."""


def _scope(domain: str, account: str) -> str:
    if domain and account:
        raise click.UsageError("--domain and --account exclude each other")
    if domain:
        return f"domain:{domain_name(domain)}"
    return f"account:{mail_address(account)}" if account else ""


_domain = click.option("--domain", default="", help="For one domain.")
_account = click.option("--account", default="", help="For one account.")


@policy.command("list")
@pass_terminal
def list_(terminal: Terminal) -> None:
    """Every setting, its value, and its values for single domains and accounts."""
    stored = terminal.run(lambda desk: desk.admin.settings())
    server = Policy(stored)
    rows = [{"key": key, "scope": "", "value": server.text(key), "default": declared.default,
             "comment": terminal.words(declared.comment)} for key, declared in SETTINGS.items()]
    rows += [{"key": one.key, "scope": one.scope, "value": one.value} for one in stored if one.scope]
    terminal.rows(rows, (("key", N_("Setting")), ("scope", N_("For")), ("value", N_("Value")), ("default", N_("Default")),
                         ("comment", N_("Meaning"))), N_("no setting"))


@policy.command()
@click.argument("key")
@_domain
@_account
@pass_terminal
def show(terminal: Terminal, key: str, domain: str, account: str) -> None:
    """One setting."""
    if key not in SETTINGS:
        terminal.fail(N_("{name}: there is no such setting; see: fumibako policy list"), name=key)
    stored = terminal.run(lambda desk: desk.admin.settings())
    address = mail_address(account) if account else f"*@{domain_name(domain)}" if domain else ""
    found = Policy(stored).text(key, address)
    terminal.value({"key": key, "scope": _scope(domain, account), "value": found}, ((N_("Setting"), key), (N_("Value"), found)))


@policy.command("set")
@click.argument("key")
@click.argument("value")
@_domain
@_account
@pass_terminal
def set_(terminal: Terminal, key: str, value: str, domain: str, account: str) -> None:
    """Change a setting."""
    scope = _scope(domain, account)
    made = terminal.run(lambda desk: desk.admin.set_setting(key, value, scope))
    terminal.value({"key": made.key, "scope": made.scope, "value": made.value}, ((made.key, made.value),))


@policy.command()
@click.argument("key")
@_domain
@_account
@pass_terminal
def unset(terminal: Terminal, key: str, domain: str, account: str) -> None:
    """Go back to the default."""
    scope = _scope(domain, account)
    terminal.run(lambda desk: desk.admin.unset_setting(key, scope))
    terminal.say(N_("{name} has its default again"), name=key)
