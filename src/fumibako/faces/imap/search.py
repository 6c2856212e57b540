"""SEARCH and UID SEARCH: which messages match.

Specification: RFC 9051 §6.4.4; RFC 4731 §3 (RETURN); RFC 5182 §2 (SAVE and "$"); RFC 7162 §3.1.5, §3.1.6 (MODSEQ).
Contract: "$" is remembered as uids, so that it survives expunges by others.
Failure: NO [LIMIT] (RFC 9051 §7.1) for a search that takes too long, and where too many of the account wait;
    store failures pass through.
"""

from __future__ import annotations

from fumibako.faces.imap.conversation import Answer, Conversation, Declined
from fumibako.proto.imap import commands as c
from fumibako.proto.imap.format import format_esearch, format_search
from fumibako.proto.imap.search import names_modseq
from fumibako.services.pace import TookTooLong
from fumibako.services.search import Search, cost_of
from fumibako.services.search_places import Crowded


async def search(talk: Conversation, command: c.Search) -> Answer:
    selection = talk.selected
    returns = command.returns
    if returns is not None and "SAVE" in returns:
        selection.saved = []        # RFC 5182 §2.1: also when the search fails
    try:
        found = await _found(talk, command)
    except ValueError:
        raise Declined("There is no such sequence number", status="BAD") from None
    except TookTooLong:
        raise Declined("The search takes too long: ask for fewer messages, for instance with SINCE", b"LIMIT") from None
    except Crowded:
        raise Declined("Other searches of this account are still running: try again when they are done", b"LIMIT") from None
    uids = selection.view.uids
    numbers = [uids[at] for at in found] if command.uid else [at + 1 for at in found]
    if returns is None and talk.core.rev2:
        returns = frozenset({"ALL"})        # RFC 9051 §6.4.4: IMAP4rev2 knows no SEARCH response
    if returns is None:
        talk.core.untagged(format_search(numbers, _modseq(talk, command, found)))
    else:
        _return(talk, command, returns, found, numbers)
    return Answer("SEARCH completed", b"EXPUNGEISSUED" if selection.expunge_waits else b"")


async def _found(talk: Conversation, command: c.Search) -> list[int]:
    """What needs flags and numbers alone is quick; anything else waits for its turn."""
    def working() -> Search:
        return Search(talk.selected, talk.visit.messages, talk.services.clock, talk.visit.keywords)
    if cost_of(command.key) == 0:
        return await working().run(command.key)
    async with talk.services.mailboxes.searches.turn(talk.visit.account.id):
        return await working().run(command.key)


def _return(talk: Conversation, command: c.Search, returns: frozenset[str], found: list[int], numbers: list[int]) -> None:
    told = returns - {"SAVE"}
    extremes = found
    if "SAVE" in returns and not told & {"ALL", "COUNT"} and told:
        extremes = _extremes(found, told)   # RFC 5182 §2.4: then "$" holds what is returned
    if "SAVE" in returns:
        talk.selected.saved = [talk.selected.view.uids[at] for at in extremes]
    if told or "SAVE" not in returns:
        reach = found if "ALL" in told or "COUNT" in told else _extremes(found, told)
        modseq = _modseq(talk, command, reach)
        talk.core.untagged(format_esearch(talk.tag, numbers, told, uid=command.uid, modseq=modseq))


def _extremes(found: list[int], told: frozenset[str]) -> list[int]:
    """The first and last of the positions, as far as MIN and MAX ask for them."""
    ends = [*(found[:1] if "MIN" in told else ()), *(found[-1:] if "MAX" in told else ())]
    return sorted(set(ends))


def _modseq(talk: Conversation, command: c.Search, found: list[int]) -> int | None:
    """RFC 7162 §3.1.6: the highest modseq of what is returned, where the search asked for MODSEQ."""
    if not found or not names_modseq(command.key):
        return None
    modseqs = talk.selected.view.modseqs
    return max(modseqs[at] for at in found)
