"""fumibako init|serve|status|check|trace: the server as a whole.

Contract: `serve` stays until it is stopped; `check` changes nothing without --repair.
Failure: a usage error (exit 2) or a plain "no" (exit 1).
"""

from __future__ import annotations

import json

import click

from fumibako.faces.cli.house import Desk
from fumibako.faces.cli.terminal import Terminal, pass_terminal
from fumibako.services.texts import N_


@click.command()
@click.option("--hostname", required=True, help="The server's own name, e.g. mail.example.jp.")
@pass_terminal
def init(terminal: Terminal, hostname: str) -> None:
    """Make a data directory: configuration, keys, certificate, databases. Running it again changes nothing."""
    report = terminal.house.init(terminal.directory, hostname, terminal.words)
    terminal.value({"directory": str(report.directory), "hostname": report.hostname, "made": list(report.made)}, ())
    if report.made:
        terminal.say(N_("made in {directory}: {made}"), directory=report.directory, made=", ".join(report.made))
    else:
        terminal.say(N_("{directory} is complete already; nothing was changed"), directory=report.directory)
    data = f"--data {report.directory}"
    domain = hostname.partition(".")[2] or "example.jp"
    terminal.say(N_("Next steps:"))
    for step in (f"fumibako domain add {domain} {data}", f"fumibako account add someone@{domain} {data}",
                 f"fumibako dns records {domain} {data}", f"fumibako serve {data}"):
        terminal.say("  {step}", step=step)


@click.command()
@pass_terminal
def serve(terminal: Terminal) -> None:
    """Run the server in the foreground; it prints its listeners and then "ready"."""
    raise click.exceptions.Exit(terminal.house.serve(terminal.directory, click.echo))


@click.command()
@pass_terminal
def status(terminal: Terminal) -> None:
    """Is it up, and what does it hold?"""
    async def ask(desk: Desk) -> dict[str, object]:
        domains, queued = await desk.admin.domains(), await desk.admin.queue()
        return {"running": desk.running, "domains": len(domains), "accounts": sum(one.accounts for one in domains),
                "queued": len(queued)}
    found = terminal.run(ask)
    running = terminal.words(N_("running") if found["running"] else N_("stopped"))
    terminal.value(found, ((N_("Server"), running), (N_("Domains"), found["domains"]), (N_("Accounts"), found["accounts"]),
                           (N_("In the queue"), found["queued"])))


@click.command()
@click.option("--repair", is_flag=True, help="Repair what can be repaired; without it nothing is changed.")
@pass_terminal
def check(terminal: Terminal, repair: bool) -> None:
    """Look for damage in the store."""
    report = terminal.house.check(terminal.directory, repair=repair)
    found = report.findings
    rows: list[dict[str, object]] = [{"damage": one.kind, "where": one.where, "count": one.count, "examples": list(one.examples),
                                      "repaired": one.repaired} for one in found]
    columns = (("damage", N_("Damage")), ("where", N_("Where")), ("count", N_("Count")), ("examples", N_("Examples")),
               ("repaired", N_("Repaired")))
    terminal.rows(rows, columns, N_("no damage found"))
    if report.unfinished and not terminal.as_json:
        click.echo(terminal.words(N_("{count} files in spool/ belong to work under way, or cut off before it was acknowledged: "
                                     "no damage, the server removes what is left there after an hour"), count=report.unfinished))
    if any(not one.repaired for one in found):
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("query")
@pass_terminal
def trace(terminal: Terminal, query: str) -> None:
    """What happened to a mail: by trace id, address, or any word of its lines."""
    found = terminal.house.trace(terminal.directory, query)
    if terminal.as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    for line in () if terminal.as_json else found:
        shown = ((key, value) for key, value in line.items() if key not in ("time", "kind", "trace_id") and value != "")
        rest = "  ".join(f"{key}={value}" for key, value in shown)
        click.echo(f"{line.get('time')}  {line.get('trace_id', '')}  {line.get('kind')}  {rest}")
    if not found:
        terminal.fail(N_("nothing about {query}"), query=query)
