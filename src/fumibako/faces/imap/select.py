"""One mailbox as a whole: SELECT, EXAMINE, CLOSE, UNSELECT, CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, STATUS.

Specification: RFC 9051 §6.3.2-§6.3.8, §6.3.11, §6.4.1, §6.4.2; RFC 7162 §3.1.2 (HIGHESTMODSEQ); RFC 8474 §4 (MAILBOXID);
    RFC 6154 §3 (USE); RFC 9208 §4.1.4 (DELETED-STORAGE).
Contract: a SELECT that fails leaves no mailbox selected (RFC 9051 §6.3.2).
Failure: StoreRefused passes through to the session, which answers NO.
"""

from __future__ import annotations

from collections.abc import Callable

from fumibako.faces.imap.conversation import Answer, Conversation, Declined
from fumibako.model.mailbox import Mailbox
from fumibako.proto.imap import commands as c
from fumibako.proto.imap.format import format_list, format_status
from fumibako.proto.imap.select import SPECIAL_USES
from fumibako.services.mailboxes import Visit
from fumibako.services.message_ids import mailbox_id_of
from fumibako.services.selection import Selection

_STORABLE_USES = frozenset(SPECIAL_USES.values()) - {"\\All", "\\Flagged", "\\Important"}    # those that need no search


async def select(talk: Conversation, command: c.Select) -> Answer:
    if command.qresync is not None:
        raise Declined("QRESYNC is not offered", status="BAD")      # RFC 7162 §3.2.5: it would have to be enabled
    before, talk.selection = talk.selection, None
    talk.core.unselected()
    if before is not None and talk.core.rev2:
        talk.core.untagged(b"OK [CLOSED] Previous mailbox closed")      # RFC 9051 §7.1
    selection = await talk.visit.select(
        command.mailbox, read_only=command.read_only, wants_recent=not talk.core.rev2, before=before
    )
    talk.selection = selection
    _tell_mailbox(talk, selection)
    if talk.core.rev2:      # RFC 9051 §6.3.2: LIST tells how the mailbox is really called
        name = selection.mailbox.name
        old_name = command.mailbox if name != command.mailbox else ""
        talk.core.untagged(format_list(name, (), utf8=True, old_name=old_name))
    talk.core.selected(read_only=command.read_only)
    verb = "EXAMINE" if command.read_only else "SELECT"
    return Answer(f"{verb} completed", b"READ-ONLY" if command.read_only else b"READ-WRITE")


def _tell_mailbox(talk: Conversation, selection: Selection) -> None:
    core, view = talk.core, selection.view
    core.untagged(b"OK [MAILBOXID (%b)] Ok" % mailbox_id_of(selection.mailbox).encode("ascii"))
    talk.tell_flags()
    core.untagged(b"%d EXISTS" % selection.told)
    if not core.rev2:
        core.untagged(b"%d RECENT" % selection.recent_count)
    core.untagged(b"OK [UIDVALIDITY %d] UIDs valid" % view.uid_validity)
    if not core.rev2 and (unseen := selection.first_unseen()) >= 0:
        core.untagged(b"OK [UNSEEN %d] First unseen" % (unseen + 1))
    talk.tell_permanent_flags()
    core.untagged(b"OK [HIGHESTMODSEQ %d] Highest" % max(view.highest_modseq, 1))
    core.untagged(b"OK [UIDNEXT %d] Predicted next UID" % view.uid_next)


async def close(talk: Conversation, _: c.Close) -> Answer:
    """RFC 9051 §6.4.1: expunges what is marked, without a word; nothing after EXAMINE."""
    selection = talk.selected
    if not selection.read_only:
        await selection.expunge(selection.deleted())
    talk.unselect()
    talk.core.unselected()
    return Answer("CLOSE completed")


async def unselect(talk: Conversation, _: c.Unselect) -> Answer:
    talk.unselect()
    talk.core.unselected()
    return Answer("UNSELECT completed")


async def create(talk: Conversation, command: c.Create) -> Answer:
    if len(command.special_use) > 1 or not _STORABLE_USES.issuperset(command.special_use):
        raise Declined("A mailbox can't have that use here", b"USEATTR")      # RFC 6154 §3
    made = await talk.visit.create(command.mailbox, "".join(command.special_use))
    return Answer("CREATE completed", b"MAILBOXID (%b)" % mailbox_id_of(made).encode("ascii"))


async def delete(talk: Conversation, command: c.Delete) -> Answer:
    """Who deletes the mailbox they have selected is in no mailbox afterwards."""
    mailbox_id = await talk.visit.delete(command.mailbox)
    if talk.selection is not None and talk.selection.mailbox.id == mailbox_id:
        talk.unselect()
        talk.core.unselected()
    return Answer("DELETE completed")


async def rename(talk: Conversation, command: c.Rename) -> Answer:
    await talk.visit.rename(command.mailbox, command.new_name)
    return Answer("RENAME completed")


async def subscribe(talk: Conversation, command: c.Subscribe) -> Answer:
    await talk.visit.subscribe(command.mailbox, command.on)
    return Answer("SUBSCRIBE completed" if command.on else "UNSUBSCRIBE completed")


async def status(talk: Conversation, command: c.Status) -> Answer:
    mailbox = await talk.visit.find(command.mailbox)
    await tell_status(talk, mailbox, command.items, name=command.mailbox)
    return Answer("STATUS completed")


async def tell_status(talk: Conversation, mailbox: Mailbox, items: tuple[str, ...], *, name: str) -> None:
    values = {item: await _status_value(talk.visit, mailbox, item) for item in items}
    talk.core.untagged(format_status(name, values, utf8=talk.core.utf8))


async def _status_value(visit: Visit, mailbox: Mailbox, item: str) -> int | str:
    match item:
        case "MAILBOXID":
            return mailbox_id_of(mailbox)
        case "RECENT":
            return await visit.recent_count(mailbox)
        case "DELETED-STORAGE":
            return await visit.deleted_octets(mailbox)
    return _COUNTERS[item](mailbox)


_COUNTERS: dict[str, Callable[[Mailbox], int]] = {
    "MESSAGES": lambda mailbox: mailbox.total,
    "UIDNEXT": lambda mailbox: mailbox.uid_next,
    "UIDVALIDITY": lambda mailbox: mailbox.uid_validity,
    "UNSEEN": lambda mailbox: mailbox.unseen,
    "DELETED": lambda mailbox: mailbox.deleted,
    "SIZE": lambda mailbox: mailbox.size_octets,
    "HIGHESTMODSEQ": lambda mailbox: max(mailbox.highest_modseq, 1),
}
