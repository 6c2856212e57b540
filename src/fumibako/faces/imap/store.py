"""What changes messages or moves them about: STORE, COPY, MOVE, EXPUNGE and UID EXPUNGE.

Specification: RFC 9051 §6.4.3, §6.4.6-§6.4.9; RFC 7162 §3.1.3 (UNCHANGEDSINCE, MODIFIED); RFC 4315 §3 (COPYUID).
Contract: flags are told for every message named, changed or not; with .SILENT only where UNCHANGEDSINCE wants MODSEQ told.
Failure: StoreRefused passes through to the session; `Declined` for what can't be done.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from fumibako.faces.imap.conversation import Answer, Conversation, Declined, refused
from fumibako.model.ids import Uid
from fumibako.model.mailbox import Mailbox
from fumibako.model.ops import Copied, FlagMode
from fumibako.proto.imap import commands as c
from fumibako.proto.imap.format import code_copy_uid, code_modified
from fumibako.proto.imap.render import MODSEQ, UID, render_fetch
from fumibako.services.mailboxes import StoreRefused
from fumibako.services.selection import batches

_MODES = {"": FlagMode.REPLACE, "+": FlagMode.ADD, "-": FlagMode.REMOVE}


async def store(talk: Conversation, command: c.Store) -> Answer:
    selection = talk.writable
    modified: list[int] = []
    for positions in talk.pieces(command.numbers, uid=command.uid):
        modified += await _store_piece(talk, command, [selection.view.uids[at] for at in positions])
        await talk.drain()
    # RFC 7162 §3.1.3: of those that failed the client is told how they stand.
    talk.tell_flag_changes(modified, with_uid=command.uid)
    if not modified:
        return Answer("STORE completed", b"EXPUNGEISSUED" if selection.expunge_waits else b"")
    numbers = modified if command.uid else [selection.view.index(uid) + 1 for uid in modified]
    return Answer("STORE completed, but not for messages that others changed", code_modified(sorted(numbers)))


async def _store_piece(talk: Conversation, command: c.Store, uids: list[int]) -> Sequence[int]:
    """One operation, told before the next begins; the uids that UNCHANGEDSINCE kept as they were."""
    since = -1 if command.unchanged_since is None else command.unchanged_since
    outcome = await talk.selected.set_flags(uids, _MODES[command.mode], command.flags, since)
    talk.tell_new_keywords()
    modified = frozenset(outcome.modified)
    told = [uid for uid in uids if uid not in modified] if modified else uids
    if not command.silent:
        talk.tell_flag_changes(told, with_uid=command.uid)
    elif talk.core.condstore:
        _tell_modseqs(talk, told, with_uid=command.uid)
    return outcome.modified


def _tell_modseqs(talk: Conversation, uids: Sequence[int], *, with_uid: bool) -> None:
    """RFC 7162 §3.1.3: a silent STORE still tells the new modseqs."""
    view = talk.selected.view
    positions = [at for uid in uids if (at := view.index(uid)) >= 0]
    columns = [(MODSEQ, [view.modseqs[at] for at in positions])]
    if with_uid or talk.core.rev2:
        columns.insert(0, (UID, [view.uids[at] for at in positions]))
    for lines in render_fetch([at + 1 for at in positions], columns):
        talk.core.send(lines)


async def copy(talk: Conversation, command: c.Copy) -> Answer:
    selection = talk.selected
    uids = _uids(talk, command)
    target = await _target(talk, command.mailbox)
    if not uids:
        return Answer("COPY completed, nothing to copy")
    # Of messages that others have expunged COPYUID says nothing: what it names is there (RFC 4315 §3).
    return Answer("COPY completed", _copy_uid(await talk.visit.copy(selection, uids, target)))


async def move(talk: Conversation, command: c.Move) -> Answer:
    """RFC 9051 §6.4.8: COPYUID comes before the EXPUNGE responses, so not with the tagged answer."""
    selection = talk.writable
    uids = _uids(talk, command)
    target = await _target(talk, command.mailbox)
    moved = await selection.move(uids, target)
    if moved.source_uids:
        talk.core.untagged(b"OK [%b] Moved" % _copy_uid(moved))
    return Answer("MOVE completed")


def _uids(talk: Conversation, command: c.Copy | c.Move) -> tuple[Uid, ...]:
    view = talk.selected.view
    return tuple(Uid(view.uids[at]) for at in talk.positions(command.numbers, uid=command.uid))


async def _target(talk: Conversation, name: str) -> Mailbox:
    try:
        return await talk.visit.find(name)
    except StoreRefused as error:
        answer = refused(error.refusal, try_create=True)
        raise Declined(answer.text, answer.code) from None


def _copy_uid(copied: Copied) -> bytes:
    """code_copy_uid of uids that stand in order; b"" for none."""
    if not copied.source_uids:
        return b""
    return code_copy_uid(copied.uid_validity, zip(copied.source_uids, copied.target_uids, strict=True))


async def expunge(talk: Conversation, command: c.Expunge) -> Answer:
    r"""Whatever has \Deleted goes; UID EXPUNGE: of those named (RFC 4315 §2.1)."""
    selection = talk.writable
    uids = selection.deleted()
    if command.uids is not None:
        view = selection.view
        spans = talk.selected.spans(command.uids, uid=True)
        uids = [uids[place] for low, high in spans for place in _between(uids, view.uids[low], view.uids[high - 1])]
    for batch in batches(uids):
        await selection.expunge(batch)
        await talk.synchronize(expunge=True)    # told piece by piece, so that nobody waits for the sum of it
        await talk.drain()
        if talk.core.closed:
            break
    # RFC 7162 §3.1.8
    code = b"HIGHESTMODSEQ %d" % selection.tracker.live.view.highest_modseq if talk.core.condstore else b""
    return Answer("EXPUNGE completed", code)


def _between(uids: Sequence[int], first: int, last: int) -> range:
    """Places of the uids (ascending) from first to last."""
    return range(bisect_left(uids, first), bisect_right(uids, last))
