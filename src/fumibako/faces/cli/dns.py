"""fumibako dns records|check|zone: the DNS of a hosted domain.

Contract: `records` shows what to publish and why, `zone` the same as zone text; `check` compares with what the world sees.
Failure: a domain that isn't hosted is a plain "no"; records that are missing or wrong make `check` exit 1.
"""

from __future__ import annotations

import click

from fumibako.faces.cli.house import Desk
from fumibako.faces.cli.terminal import Terminal, pass_terminal
from fumibako.services.texts import N_, use_language


@click.group()
def dns() -> None:
    """The DNS records of a hosted domain."""


@dns.command()
@click.argument("domain")
@pass_terminal
def records(terminal: Terminal, domain: str) -> None:
    """What must stand in the DNS, and what for."""
    async def ask(desk: Desk) -> list[dict[str, object]]:
        hosted = await desk.admin.domain(domain)
        return [{"owner": one.record.owner, "type": one.record.rrtype, "ttl_s": one.record.ttl_s, "data": one.record.data,
                 "why": one.why} for one in await desk.zones.records(hosted.name)]
    use_language(terminal.language)
    found = terminal.run(ask)
    columns = (("owner", N_("Name")), ("type", N_("Type")), ("data", N_("Data")), ("why", N_("What for")))
    terminal.rows(found, columns, N_("no record"))


@dns.command()
@click.argument("domain")
@pass_terminal
def zone(terminal: Terminal, domain: str) -> None:
    """The records as zone text, to paste into another DNS server."""
    async def ask(desk: Desk) -> str:
        hosted = await desk.admin.domain(domain)
        return await desk.zones.zone_text(hosted.name)
    text = terminal.run(ask)
    if terminal.as_json:
        terminal.value({"zone": text}, ())
    else:
        click.echo(text, nl=False)


@dns.command()
@click.argument("domain")
@pass_terminal
def check(terminal: Terminal, domain: str) -> None:
    """What the configured resolver sees, beside what it should see."""
    async def ask(desk: Desk) -> list[dict[str, object]]:
        hosted = await desk.admin.domain(domain)
        return [{"owner": one.owner, "type": one.rrtype, "expected": list(one.expected), "seen": list(one.seen),
                 "result": one.result, "why": one.why} for one in await desk.survey.look(hosted.name)]
    use_language(terminal.language)
    found = terminal.run(ask)
    columns = (("result", N_("Result")), ("owner", N_("Name")), ("type", N_("Type")), ("expected", N_("Should be")),
               ("seen", N_("Is")), ("why", N_("Next step")))
    terminal.rows(found, columns, N_("no record"))
    if any(one["result"] != "pass" for one in found):
        raise click.exceptions.Exit(1)
