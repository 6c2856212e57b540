"""fumibako import: mail that lies in files comes into an account.

Contract: exit 0 when every message found is in the account, 1 when one is not.
Failure: a usage error; AdminError for what cannot be begun.
"""

from __future__ import annotations

from pathlib import Path

import click

from fumibako.faces.cli.progress import progress_shown
from fumibako.faces.cli.terminal import Terminal, pass_terminal
from fumibako.services.migrate.importing import ImportPlan, ImportReport
from fumibako.services.texts import N_


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("address")
@click.option("--format", "store", type=click.Choice(["maildir", "mbox"]), default=None,
              help="Default: recognised by itself. Given, a manifest of ours is not looked at.")
@click.option("--into", default="", help="Put everything under a mailbox of that name; it is made where it is missing.")
@click.option("--merge", is_flag=True, help="Into an account that has mail: messages that are there already are left out.")
@pass_terminal
def import_(terminal: Terminal, path: Path, address: str, store: str | None, into: str, merge: bool) -> None:
    """Bring mail from an export, a Maildir or mbox files into an account."""
    plan = ImportPlan(path, store or "", into, merge)
    with progress_shown(terminal, N_("importing"), in_octets=False) as told:
        report = terminal.run(lambda desk: desk.importing.import_(address, plan, told))
    _tell(terminal, address, report)
    if not report.complete:
        raise click.exceptions.Exit(1)


def _tell(terminal: Terminal, address: str, report: ImportReport) -> None:
    stopped = terminal.words(report.stopped, **report.values) if report.stopped else ""
    terminal.value({"address": address, "format": report.kind, "found": report.found, "imported": report.imported,
                    "size_octets": report.size_octets, "present": report.present, "mailboxes": report.mailboxes,
                    "too_big": report.too_big, "damaged": report.damaged, "keywords_left_out": report.keywords_left_out,
                    "not_imported": report.named, "skipped": report.skipped, "stopped": stopped}, ())
    if report.kind == "mbox":
        terminal.say(N_('mbox: read as mboxrd; in old mboxo files a line that begins with ">>From " loses one ">"'))
    terminal.say(N_("{imported} of {found} messages came into {mailboxes} mailboxes of {address}; {present} were there already"),
                 imported=report.imported, found=report.found, mailboxes=report.mailboxes, address=address,
                 present=report.present)
    if report.too_big or report.damaged:
        terminal.say(N_("left out: {too_big} over limits.message_size, {damaged} damaged or missing ({names})"),
                     too_big=report.too_big, damaged=report.damaged, names=", ".join(report.named[:10]))
    if report.keywords_left_out:
        terminal.say(N_("keywords left out: {count}; an account has room for 58"), count=report.keywords_left_out)
    if report.skipped:
        terminal.say(N_("passed over, no plain files or too deep: {names}"), names=", ".join(report.skipped[:10]))
    if stopped:
        terminal.say(N_("stopped: {why}; when that is put right, the same command with --merge brings the rest"), why=stopped)
