"""fumibako queue list|show|retry|hold|release|delete.

Contract: messages are named by number; a time is local, a reply is the remote's own words.
Failure: a usage error (exit 2) or a plain "no" (exit 1).
"""

from __future__ import annotations

from datetime import UTC, datetime

import click

from fumibako.faces.cli.terminal import Terminal, pass_terminal
from fumibako.model.ops import QueueAction
from fumibako.model.queue import QueueItem
from fumibako.services.texts import N_


@click.group()
def queue() -> None:
    """Mail that waits to be sent."""


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().isoformat(timespec="seconds") if ms else ""


def _recipients(item: QueueItem) -> list[dict[str, object]]:
    return [{"recipient": one.forward_path, "state": str(one.state), "attempts": one.attempts, "next_attempt": _time(one.due_ms),
             "status": one.last.status if one.last else "", "reply": (one.last.reply or one.last.text) if one.last else "",
             "remote": one.last.remote if one.last else ""} for one in item.recipients]


def _row(item: QueueItem) -> dict[str, object]:
    return {"id": item.id, "trace_id": item.trace_id.hex(), "from": item.envelope.reverse_path, "size_octets": item.size_octets,
            "accepted": _time(item.created_ms), "expires": _time(item.expires_ms), "recipients": _recipients(item)}


@queue.command("list")
@click.option("--domain", default="", help="Only mail for one domain.")
@pass_terminal
def list_(terminal: Terminal, domain: str) -> None:
    """What waits, oldest first."""
    found = [_row(one) for one in terminal.run(lambda desk: desk.admin.queue(domain))]
    if terminal.as_json:
        terminal.rows(found, (), "")
        return
    flat = [{**row, **recipient} for row in found for recipient in row["recipients"]]  # type: ignore[attr-defined]
    terminal.rows(flat, (("id", N_("Number")), ("accepted", N_("Accepted")), ("from", N_("From")), ("recipient", N_("To")),
                         ("state", N_("State")), ("attempts", N_("Attempts")), ("next_attempt", N_("Next attempt")),
                         ("reply", N_("Last answer"))), N_("the queue is empty"))


@queue.command()
@click.argument("number", type=int)
@pass_terminal
def show(terminal: Terminal, number: int) -> None:
    """One message with the remote servers' own words."""
    found = _row(terminal.run(lambda desk: desk.admin.queue_item(number)))
    lines: list[tuple[str, object]] = [
        (N_("Number"), found["id"]), (N_("Trace"), found["trace_id"]), (N_("From"), found["from"] or "<>"),
        (N_("Size"), found["size_octets"]), (N_("Accepted"), found["accepted"]), (N_("Expires"), found["expires"])]
    for one in found["recipients"]:  # type: ignore[attr-defined]
        lines.append((N_("To"), f"{one['recipient']}  {one['state']}  {one['next_attempt']}  {one['remote']}  {one['reply']}"))
    terminal.value(found, lines)


def _action(action: QueueAction, help_text: str) -> click.Command:
    @click.command(str(action), help=help_text)
    @click.argument("numbers", nargs=-1, type=int)
    @click.option("--all", "every", is_flag=True, help="Every message.")
    @pass_terminal
    def command(terminal: Terminal, numbers: tuple[int, ...], every: bool) -> None:
        if bool(numbers) == every:
            raise click.UsageError(terminal.words(N_("name messages by number, or --all")))
        count = terminal.run(lambda desk: desk.admin.change_queue(action, numbers, terminal.house.now_ms()))
        terminal.value({"changed": count}, ((N_("Messages changed"), count),))
        if numbers and count < len(numbers):
            terminal.fail(N_("not all of these numbers are in the queue"))
    return command


queue.add_command(_action(QueueAction.RETRY, "Try again now."))
queue.add_command(_action(QueueAction.HOLD, "Keep until released."))
queue.add_command(_action(QueueAction.RELEASE, "Let held or set-aside mail go on."))
queue.add_command(_action(QueueAction.DELETE, "Delete without telling the sender."))
