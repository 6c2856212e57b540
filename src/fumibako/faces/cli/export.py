"""fumibako export: an account's mail as Maildir or mbox.

Contract: exit 0 when every message is in the export, 1 when one is not.
"""

from __future__ import annotations

from pathlib import Path

import click

from fumibako.faces.cli.progress import progress_shown
from fumibako.faces.cli.terminal import Terminal, pass_terminal
from fumibako.services.texts import N_


@click.command()
@click.argument("address")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--format", "store", type=click.Choice(["maildir", "mbox"]), default="maildir", help="Default: maildir.")
@click.option("--mailbox", default="", help="Only this mailbox.")
@pass_terminal
def export(terminal: Terminal, address: str, path: Path, store: str, mailbox: str) -> None:
    """Write an account's mail into an empty directory, as Maildir or mbox."""
    with progress_shown(terminal, N_("exporting"), in_octets=False) as told:
        report = terminal.run(lambda desk: desk.exporting.export(address, path, store, mailbox, told))
    terminal.value({"address": address, "path": str(path), "format": store, "mailboxes": report.mailboxes,
                    "messages": report.messages, "size_octets": report.size_octets, "unreadable": report.unreadable}, ())
    terminal.say(N_("{messages} messages in {mailboxes} mailboxes, {octets} octets, are in {path}"), messages=report.messages,
                 mailboxes=report.mailboxes, octets=report.size_octets, path=path)
    if report.unreadable:
        terminal.fail(N_("{count} messages can't be read and are left out ({names}); see: fumibako check"),
                      count=len(report.unreadable), names=", ".join(report.unreadable[:10]))
