r"""LIST, LSUB and NAMESPACE: which mailboxes there are.

Specification: RFC 9051 §6.3.9, §6.3.10, §7.3.1 (attributes); RFC 3501 §6.3.9 (LSUB); RFC 5258 §3, §3.5 (CHILDINFO); RFC 5819
    §2 (RETURN STATUS); RFC 6154 §2.
Contract: the account's mailboxes are read once; a subscription to a mailbox that is gone is listed as \NonExistent.
Failure: store failures pass through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass

from fumibako.faces.imap.conversation import Answer, Conversation
from fumibako.faces.imap.select import tell_status
from fumibako.model.mailbox import DELIMITER, Mailbox
from fumibako.proto.imap import commands as c
from fumibako.proto.imap.format import format_list, format_namespace
from fumibako.proto.imap.names import Pattern

NAMES_AT_ONCE = 16      # compared with all patterns between two turns of the event loop


@dataclass(frozen=True, slots=True)
class _Tree:
    """The mailboxes of an account by name, and what lies below and beside them."""

    rows: dict[str, Mailbox]
    parents: frozenset[str]         # names that have a mailbox below them
    subscribed: frozenset[str]

    def names(self) -> Iterator[str]:
        yield from self.rows
        yield from sorted(self.subscribed.difference(self.rows))


async def list_(talk: Conversation, command: c.List) -> Answer:
    if not command.extended and command.patterns == ("",):
        # RFC 9051 §6.3.9: an empty pattern asks for the hierarchy delimiter.
        talk.core.untagged(format_list("", ("\\Noselect",), utf8=talk.core.utf8))
        return Answer("LIST completed")
    tree = await _read_tree(talk)
    patterns = [_joined(command.reference, pattern) for pattern in command.patterns]
    async for name in _matching(patterns, tree.names()):
        if line := _line(talk, command, tree, name):
            talk.core.untagged(line)
            row = tree.rows.get(name)
            if "STATUS" in command.returns and row is not None and not row.no_select:
                await tell_status(talk, row, command.status_items, name=name)
    return Answer("LIST completed")


async def _matching(patterns: Iterable[str], names: Iterable[str]) -> AsyncIterator[str]:
    """The names that one of the patterns matches."""
    ready = [Pattern(pattern) for pattern in patterns]
    for number, name in enumerate(names, 1):
        if any(pattern.matches(name) for pattern in ready):
            yield name
        if not number % NAMES_AT_ONCE:
            await asyncio.sleep(0)


def _joined(reference: str, pattern: str) -> str:
    """RFC 9051 §6.3.9: a reference is what the pattern is relative to."""
    return reference + pattern


async def _read_tree(talk: Conversation) -> _Tree:
    rows = {row.name: row for row in await talk.visit.mailboxes()}
    return _Tree(rows, frozenset(_ancestors(rows)), frozenset(await talk.visit.subscriptions()))


def _ancestors(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        parts = name.split(DELIMITER)
        yield from (DELIMITER.join(parts[:depth]) for depth in range(1, len(parts)))


def _line(talk: Conversation, command: c.List, tree: _Tree, name: str) -> bytes:
    """The LIST response of one name that matches a pattern; b"" when the selection options leave it out."""
    child_info = _child_info(command, tree, name)
    if not _is_selected(command, tree, name) and not child_info:
        return b""
    return format_list(name, _attributes(command, tree, name), utf8=talk.core.utf8, child_info=child_info)


def _is_selected(command: c.List, tree: _Tree, name: str) -> bool:
    """RFC 5258 §3.1: SUBSCRIBED also selects names without a mailbox, the others only mailboxes."""
    row = tree.rows.get(name)
    if "SUBSCRIBED" in command.selection:
        return name in tree.subscribed and ("SPECIAL-USE" not in command.selection or bool(row and row.special_use))
    if "SPECIAL-USE" in command.selection:
        return row is not None and row.special_use != ""
    return row is not None


def _child_info(command: c.List, tree: _Tree, name: str) -> tuple[str, ...]:
    """RFC 5258 §3.5: with RECURSIVEMATCH, whether something below is what is looked for."""
    if "RECURSIVEMATCH" not in command.selection:
        return ()
    below = name + DELIMITER
    return ("SUBSCRIBED",) if any(other.startswith(below) for other in tree.subscribed) else ()


def _attributes(command: c.List, tree: _Tree, name: str) -> list[str]:
    row = tree.rows.get(name)
    attributes = []
    if row is None:
        attributes.append("\\NonExistent")
    elif row.no_select:
        attributes.append("\\Noselect")
    attributes.append("\\HasChildren" if name in tree.parents else "\\HasNoChildren")
    if name in tree.subscribed and "SUBSCRIBED" in command.selection | command.returns:
        attributes.append("\\Subscribed")
    if row is not None and row.special_use:
        attributes.append(row.special_use)
    return attributes


async def lsub(talk: Conversation, command: c.Lsub) -> Answer:
    r"""RFC 3501 §6.3.9: with "%", a name above a subscribed one is told as \Noselect."""
    tree = await _read_tree(talk)
    pattern = _joined(command.reference, command.pattern)
    implied = frozenset(_ancestors(tree.subscribed)) - tree.subscribed if pattern.endswith("%") else frozenset()
    async for name in _matching([pattern], sorted(tree.subscribed | implied)):
        row = tree.rows.get(name)
        hidden = name in implied or row is None or row.no_select
        attributes = ("\\Noselect",) if hidden else ()
        talk.core.untagged(format_list(name, attributes, utf8=talk.core.utf8, command=b"LSUB"))
    return Answer("LSUB completed")


async def namespace(talk: Conversation, _: c.Namespace) -> Answer:
    talk.core.untagged(format_namespace())
    return Answer("NAMESPACE completed")
