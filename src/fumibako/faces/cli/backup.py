"""fumibako backup|restore: a copy of everything, and the way back.

Contract: `backup` runs with the server up or down and changes nothing of it; `restore` fills a data directory that `init`
    made and that holds nobody.
Failure: a usage error (exit 2) or a plain "no" (exit 1), which leaves nothing half done behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import click

from fumibako.faces.cli.house import BackupWish
from fumibako.faces.cli.progress import progress_shown, size_text
from fumibako.faces.cli.terminal import Terminal, pass_terminal
from fumibako.services.recall import Wanted
from fumibako.services.texts import N_


@click.command()
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--keep", type=click.IntRange(min=1), help="Remove the oldest backups in DEST beyond this number.")
@click.option("--verify", is_flag=True, help="Read everything back and compare it before the backup counts as one.")
@pass_terminal
def backup(terminal: Terminal, destination: Path, keep: int | None, verify: bool) -> None:
    """Write a backup to a new directory in DEST; the server may run. It takes only what changed since the last one."""
    wish = BackupWish(destination.absolute(), keep or 0, verify)
    with progress_shown(terminal, N_("backup")) as progress:
        report = terminal.house.backup(terminal.directory, wish, progress)
    terminal.value({"path": str(report.path), "accounts": report.accounts, "messages": report.messages, "files": report.files,
                    "octets": report.octets, "new_files": report.new_files, "new_octets": report.new_octets,
                    "frozen_ms": report.frozen_ms, "removed": list(report.removed)}, ())
    terminal.say(N_("written: {path}"), path=report.path)
    terminal.say(N_("{accounts} accounts, {messages} messages; {size} in {files} files; new are {new} in {new_files} files"),
                 accounts=report.accounts, messages=report.messages, size=size_text(report.octets), files=report.files,
                 new=size_text(report.new_octets), new_files=report.new_files)
    if report.removed:
        terminal.say(N_("removed: {names}"), names=", ".join(report.removed))


@click.command()
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.option("--account", default="", metavar="ADDRESS", help="Only what this account no longer has, into a new mailbox.")
@click.option("--mailbox", default="", metavar="NAME", help="Of the account: only this mailbox.")
@click.option("--message", default="", metavar="ID", help="Of the account: only this message, by Message-ID or by UID.")
@click.option("--into", default="", metavar="NAME", help="The mailbox that takes them, instead of one with the backup's date.")
@click.option("--all", "everything", is_flag=True, help="Of the account: also what it still has.")
@pass_terminal
def restore(terminal: Terminal, /, source: Path, account: str, **chosen: str | bool) -> None:
    """Bring back what a backup holds: everything, into a data directory that init made and that holds no account.

    SRC is one backup, or the DEST of several: then the newest. With --account the server may run: mail that the account
    has stays as it is, and what comes back goes to a mailbox of its own.
    """
    if account:
        _restore_account(terminal, source.absolute(), account, chosen)
        return
    if any(chosen.values()):
        raise click.UsageError(terminal.words(N_("--mailbox, --message, --into and --all need --account")))
    with progress_shown(terminal, N_("restore")) as progress:
        report = terminal.house.restore(terminal.directory, source.absolute(), progress)
    terminal.value({"time": report.time, "hostname": report.hostname, "accounts": report.accounts,
                    "messages": report.messages, "octets": report.octets}, ())
    terminal.say(N_("restored: {accounts} accounts, {messages} messages, {size}, as they were at {time} on {hostname}"),
                 accounts=report.accounts, messages=report.messages, size=size_text(report.octets), time=report.time,
                 hostname=report.hostname)
    terminal.say(N_("What waited in the queue then will be sent again when the server starts; to look at it first: "
                    "fumibako queue hold --all --data {directory}"), directory=terminal.directory)


def _restore_account(terminal: Terminal, source: Path, account: str, chosen: Mapping[str, str | bool]) -> None:
    into = str(chosen["into"]).replace("{", "{{").replace("}", "}}") or terminal.words(N_("Restored {day}"))
    wanted = Wanted(account, into, str(chosen["mailbox"]), str(chosen["message"]), bool(chosen["everything"]))
    with progress_shown(terminal, N_("restore"), in_octets=False) as progress:
        found = asyncio.run(terminal.house.recall(terminal.directory, source, wanted, progress))
    terminal.value({"restored": found.restored, "present": found.present, "octets": found.octets,
                    "mailboxes": found.mailboxes}, ())
    terminal.say(N_("{restored} messages restored, {present} were there already"), restored=found.restored, present=found.present)
    for name in found.mailboxes:
        terminal.say("  {name}", name=name)
