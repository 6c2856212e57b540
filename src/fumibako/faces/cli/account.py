"""fumibako account add|list|show|passwd|disable|enable|remove|recover|hold|release|holds.

Contract: passwords are read from standard input or a terminal, never from the arguments.
Failure: a usage error (exit 2) or a plain "no" (exit 1).
"""

from __future__ import annotations

from datetime import UTC, datetime

import click

from fumibako.faces.cli.terminal import Terminal, pass_terminal, read_password
from fumibako.model.account import Account, AccountStatus, Hold
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
            "messages": found.quota.messages, "opened": found.opened, "mailboxes": boxes,
            "recoverable_messages": found.recoverable_messages, "recoverable_octets": found.recoverable_octets,
            "holds": [_hold_row(one) for one in found.holds]}


def _hold_row(hold: Hold) -> dict[str, object]:
    return {"address": hold.address, "reason": hold.reason, "since": _time(hold.created_ms)}


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().isoformat(timespec="seconds")


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
        (N_("Messages"), found.quota.messages), (N_("Shard"), found.account.shard), (N_("Mailboxes"), boxes),
        (N_("Recoverable"), terminal.words(N_("{messages} expunged messages, {octets} octets"),
                                           messages=found.recoverable_messages, octets=found.recoverable_octets)),
        (N_("Holds"), [f"{one.reason or '-'} ({_time(one.created_ms)})" for one in found.holds])))
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


@account.command()
@click.argument("address")
@click.option("--list", "only_list", is_flag=True, help="Only show what could be recovered.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
              help="Only what was expunged on that day or later, e.g. 2026-08-01.")
@click.option("--mailbox", default="", help='Where to put it; made where it is missing; default "Recovered".')
@pass_terminal
def recover(terminal: Terminal, address: str, only_list: bool, since: datetime | None, mailbox: str) -> None:
    """Bring expunged mail back; it is kept for 14 days."""
    since_ms = int(since.astimezone().timestamp() * 1000) if since else 0
    if only_list:
        _list_recoverable(terminal, address, since_ms)
        return
    mailbox = mailbox or terminal.words(N_("Recovered"))
    count = terminal.run(lambda desk: desk.admin.recover(address, mailbox, since_ms))
    terminal.value({"address": address, "mailbox": mailbox, "recovered": count}, ())
    if not count:
        terminal.fail(N_("{address}: nothing to recover"), address=address)
    terminal.say(N_("{count} messages of {address} are back, in {mailbox}"), count=count, address=address, mailbox=mailbox)


def _list_recoverable(terminal: Terminal, address: str, since_ms: int) -> None:
    found = terminal.run(lambda desk: desk.admin.recoverable(address, since_ms))
    rows = [{"email_id": one.email_id, "expunged": _time(one.expunged_ms), "purged_after": _time(one.purge_after_ms),
             "received": _time(one.internal_date), "from": one.sender, "subject": one.subject, "size_octets": one.size_octets}
            for one in found]
    terminal.rows(rows, (("expunged", N_("Expunged")), ("purged_after", N_("Kept until")), ("from", N_("From")),
                         ("subject", N_("Subject")), ("size_octets", N_("Size"))), N_("nothing to recover"))


@account.command()
@click.argument("address")
@click.option("--reason", default="", help="Why; one hold for each reason.")
@pass_terminal
def hold(terminal: Terminal, address: str, reason: str) -> None:
    """From now on delete nothing of this account for good, not even when it is removed."""
    terminal.run(lambda desk: desk.admin.hold(address, reason))
    terminal.value({"address": address, "reason": reason}, ())
    terminal.say(N_("{address} is on hold: nothing of it is deleted for good"), address=address)


@account.command()
@click.argument("address")
@click.option("--reason", default=None, help="Only the hold of that reason.")
@pass_terminal
def release(terminal: Terminal, address: str, reason: str | None) -> None:
    """End a hold; expunged mail whose time is up goes for good."""
    count = terminal.run(lambda desk: desk.admin.release(address, reason))
    terminal.value({"address": address, "released": count}, ())
    terminal.say(N_("{address}: holds ended: {count}"), address=address, count=count)


@account.command()
@pass_terminal
def holds(terminal: Terminal) -> None:
    """Every hold, those of removed accounts included."""
    found = terminal.run(lambda desk: desk.admin.holds())
    terminal.rows([_hold_row(one) for one in found],
                  (("address", N_("Address")), ("reason", N_("Reason")), ("since", N_("Since"))), N_("no hold"))


def _quota(terminal: Terminal, value: str) -> int:
    try:
        limit = parse_setting("account.quota", value)
    except SettingError as error:
        raise click.UsageError(f"--quota {value}: {terminal.words(error.allowed)}") from None
    assert isinstance(limit, int)
    return limit
