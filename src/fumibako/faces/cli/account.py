"""fumibako account add|list|show|passwd|disable|enable|remove.

Contract: passwords are read from standard input or a terminal, never from the arguments.
Failure: a usage error (exit 2) or a plain "no" (exit 1).
"""

from __future__ import annotations

import click

from fumibako.faces.cli.terminal import Terminal, pass_terminal, read_password
from fumibako.model.account import Account, AccountStatus
from fumibako.services.admin import AccountDetail
from fumibako.services.policy import SettingError, parse_setting
from fumibako.services.texts import N_


@click.group()
def account() -> None:
    """Accounts: people and services that have mail here."""


_password_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


def _row(found: Account) -> dict[str, object]:
    return {"address": found.address, "status": str(found.status), "quota_limit_octets": found.quota_limit_octets,
            "display_name": found.display_name}


def _detail(found: AccountDetail) -> dict[str, object]:
    boxes = [{"name": one.name, "messages": one.total, "unseen": one.unseen, "size_octets": one.size_octets,
              "special_use": one.special_use} for one in found.mailboxes]
    return {**_row(found.account), "shard": found.account.shard, "used_octets": found.quota.used_octets,
            "messages": found.quota.messages, "opened": found.opened, "mailboxes": boxes}


@account.command()
@click.argument("address")
@_password_stdin
@click.option("--quota", default="0", help='Limit such as "10G"; 0: none.')
@click.option("--name", default="", help="Display name.")
@pass_terminal
def add(terminal: Terminal, address: str, password_stdin: bool, quota: str, name: str) -> None:
    """Make an account; the password is asked for."""
    limit = _quota(terminal, quota)
    password = read_password(terminal, from_stdin=password_stdin)
    made = terminal.run(lambda desk: desk.admin.add_account(address, password, limit, name))
    terminal.value(_row(made), ())
    terminal.say(N_("{address} is made"), address=made.address)


@account.command("list")
@click.argument("domain", default="")
@pass_terminal
def list_(terminal: Terminal, domain: str) -> None:
    """All accounts, or those of one domain."""
    found = terminal.run(lambda desk: desk.admin.accounts(domain))
    terminal.rows([_row(one) for one in found],
                  (("address", N_("Address")), ("status", N_("Status")), ("quota_limit_octets", N_("Quota")),
                   ("display_name", N_("Name"))), N_("no account yet"))


@account.command()
@click.argument("address")
@pass_terminal
def show(terminal: Terminal, address: str) -> None:
    """One account with its mailboxes."""
    found = terminal.run(lambda desk: desk.admin.account(address))
    boxes = [f"{one.name} ({one.total})" for one in found.mailboxes]
    terminal.value(_detail(found), (
        (N_("Address"), found.account.address), (N_("Status"), found.account.status), (N_("Name"), found.account.display_name),
        (N_("Used"), found.quota.used_octets), (N_("Quota"), found.account.quota_limit_octets),
        (N_("Messages"), found.quota.messages), (N_("Shard"), found.account.shard), (N_("Mailboxes"), boxes)))
    if not found.opened:
        terminal.say(N_("not used yet: the mailboxes are made at the first login or with the first mail"))


@account.command()
@click.argument("address")
@_password_stdin
@pass_terminal
def passwd(terminal: Terminal, address: str, password_stdin: bool) -> None:
    """Change the password; open sessions end."""
    password = read_password(terminal, from_stdin=password_stdin)
    terminal.run(lambda desk: desk.admin.change_password(address, password))
    terminal.say(N_("the password of {address} is changed; its open sessions are closed"), address=address)


@account.command()
@click.argument("address")
@pass_terminal
def disable(terminal: Terminal, address: str) -> None:
    """No more logins and no more mail; nothing is deleted."""
    terminal.run(lambda desk: desk.admin.change_status(address, AccountStatus.DISABLED))
    terminal.say(N_("{address} is disabled; its open sessions are closed"), address=address)


@account.command()
@click.argument("address")
@pass_terminal
def enable(terminal: Terminal, address: str) -> None:
    """Undo disable."""
    terminal.run(lambda desk: desk.admin.change_status(address, AccountStatus.ACTIVE))
    terminal.say(N_("{address} is active again"), address=address)


@account.command()
@click.argument("address")
@pass_terminal
def remove(terminal: Terminal, address: str) -> None:
    """Remove an account; the address is free again."""
    terminal.run(lambda desk: desk.admin.remove_account(address))
    terminal.say(N_("{address} is removed"), address=address)


def _quota(terminal: Terminal, value: str) -> int:
    try:
        limit = parse_setting("account.quota", value)
    except SettingError as error:
        raise click.UsageError(f"--quota {value}: {terminal.words(error.allowed)}") from None
    assert isinstance(limit, int)
    return limit
