"""fumibako.json: what an export holds that Maildir and mbox can't say, written and read line by line.

Contract: the file is one JSON object, and every line of it but the brackets is a JSON object of its own, so that a manifest
    of a million messages is written and read in constant memory. First line: the account; then each mailbox in one line,
    its messages in the lines below; the last line says that nothing is missing.
Failure: ManifestError names the line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

FILE_NAME = "fumibako.json"
UNFINISHED_NAME = "fumibako.json.new"     # until everything else is there
FORMAT = "fumibako-export"
VERSION = 1
MAX_LINE_OCTETS = 16 * 1024 * 1024
MAX_INT = 1 << 63
END = b"]}\n"
_HEAD_END, _MAILBOX_END = b', "mailboxes": [\n', b', "messages": [\n'
# What the brackets do: the last mailbox has no comma behind it, and then the whole ends.
_TURNS = {("inside", b"]},\n"): "between", ("inside", END): "last", ("last", END): "end", ("between", END): "end"}

T = TypeVar("T")
_SHA256 = re.compile("[0-9a-f]{64}")


class ManifestError(ValueError):
    """line: counted from 1; what: English, for the log."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}")
        self.line, self.what = line, what


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """store: "maildir" or "mbox"; whole: every mailbox of the account is in it."""

    account: str
    store: str
    subscriptions: tuple[str, ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class ManifestMailbox:
    name: str
    special_use: str
    uid_validity: int
    uid_next: int
    path: str


@dataclass(frozen=True, slots=True)
class ManifestMessage:
    """file: below the export; offset, octets and line_ends ("lf" or "as is") only in mbox: where in the file it lies."""

    file: str
    uid: int
    flags: tuple[str, ...]
    internal_date: int
    saved_at: int
    size_octets: int
    sha256: str
    offset: int = 0
    octets: int = 0
    line_ends: str = ""


Record = ManifestHead | ManifestMailbox | ManifestMessage


class ManifestWriter:
    """The octets of a manifest, piece by piece."""

    def __init__(self) -> None:
        self._mailboxes = self._messages = 0

    def head(self, head: ManifestHead) -> bytes:
        told = {"format": FORMAT, "version": VERSION, "account": head.account, "store": head.store, "whole": head.whole,
                "subscriptions": list(head.subscriptions)}
        return _json(told)[:-1] + b', "mailboxes": [\n'

    def mailbox(self, mailbox: ManifestMailbox) -> bytes:
        before = b"\n]},\n" if self._mailboxes else b""
        self._mailboxes, self._messages = self._mailboxes + 1, 0
        told = {"name": mailbox.name, "special_use": mailbox.special_use, "uid_validity": mailbox.uid_validity,
                "uid_next": mailbox.uid_next, "path": mailbox.path}
        return before + _json(told)[:-1] + b', "messages": ['

    def message(self, message: ManifestMessage) -> bytes:
        before = b",\n" if self._messages else b"\n"
        self._messages += 1
        told: dict[str, object] = {
            "file": message.file, "uid": message.uid, "flags": list(message.flags), "internal_date": message.internal_date,
            "saved_at": message.saved_at, "size_octets": message.size_octets, "sha256": message.sha256}
        if message.line_ends:
            told |= {"offset": message.offset, "octets": message.octets, "line_ends": message.line_ends}
        return before + _json(told)

    def close(self) -> bytes:
        return (b"\n]}\n" if self._mailboxes else b"") + END


def parse_manifest(lines: Iterable[bytes]) -> Iterator[Record]:
    """lines: with their LF, of bounded length."""
    number, state = 0, "head"
    for number, line in enumerate(lines, 1):
        if state == "head":
            yield _head(_object(number, line, _HEAD_END, b"}"))
            state = "between"
        elif state == "between" and line.endswith(_MAILBOX_END):
            yield _mailbox(number, _object(number, line, _MAILBOX_END, b"}"))
            state = "inside"
        elif state == "inside" and line.startswith(b'{"file"'):
            yield _message(number, _object(number, line.removesuffix(b"\n").removesuffix(b",") + b"\n", b"\n", b""))
        elif (state, line) in _TURNS:
            state = _TURNS[state, line]
        else:
            raise ManifestError(number, "this line does not belong here")
    if state != "end":
        raise ManifestError(number + 1, "the rest is missing")


def _object(number: int, line: bytes, end: bytes, instead: bytes) -> _Fields:
    if not line.endswith(end):
        raise ManifestError(number, "the line is not whole")
    try:
        found = json.loads(line[: len(line) - len(end)] + instead)
    except (ValueError, RecursionError) as error:
        raise ManifestError(number, f"no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ManifestError(number, "no JSON object")
    return _Fields(number, found)


class _Fields:
    """An object of the file; what is asked of it is there and is of its kind, or the line is damaged."""

    def __init__(self, number: int, found: dict[str, Any]) -> None:
        self.number, self._found = number, found

    def text(self, name: str) -> str:
        return self._checked(name, _is_text, str)

    def number_of(self, name: str) -> int:
        return self._checked(name, lambda value: type(value) is int and 0 <= value < MAX_INT, int)

    def truth(self, name: str) -> bool:
        return self._checked(name, lambda value: isinstance(value, bool), bool)

    def texts(self, name: str) -> tuple[str, ...]:
        return self._checked(name, _are_texts, tuple)

    def has(self, name: str) -> bool:
        return name in self._found

    def _checked(self, name: str, is_right: Callable[[Any], bool], kind: Callable[[Any], T]) -> T:
        if name not in self._found or not is_right(self._found[name]):
            raise ManifestError(self.number, f"{name} is missing or wrong")
        return kind(self._found[name])


def _is_text(value: object) -> bool:
    """JSON can also say half a character."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(_is_text(one) for one in value)


def _head(found: _Fields) -> ManifestHead:
    if found.text("format") != FORMAT or found.number_of("version") != VERSION:
        raise ManifestError(1, f"not of format {FORMAT}, version {VERSION}")
    store = found.text("store")
    if store not in ("maildir", "mbox"):
        raise ManifestError(1, "store is neither maildir nor mbox")
    return ManifestHead(found.text("account"), store, found.texts("subscriptions"), found.truth("whole"))


def _mailbox(number: int, found: _Fields) -> ManifestMailbox:
    if not found.text("name"):
        raise ManifestError(number, "name is empty")
    return ManifestMailbox(found.text("name"), found.text("special_use"), found.number_of("uid_validity"),
                           found.number_of("uid_next"), found.text("path"))


def _message(number: int, found: _Fields) -> ManifestMessage:
    sha256 = found.text("sha256")
    if not _SHA256.fullmatch(sha256):
        raise ManifestError(number, "sha256 is not 64 hexadecimal digits")
    facts = (found.text("file"), found.number_of("uid"), found.texts("flags"), found.number_of("internal_date"),
             found.number_of("saved_at"), found.number_of("size_octets"), sha256)
    if not found.has("line_ends"):
        return ManifestMessage(*facts)
    if found.text("line_ends") not in ("lf", "as is"):
        raise ManifestError(number, "line_ends is neither lf nor as is")
    return ManifestMessage(*facts, found.number_of("offset"), found.number_of("octets"), found.text("line_ends"))


def _json(value: object) -> bytes:
    # In ASCII: json escapes what else could be taken for the end of a line.
    return json.dumps(value).encode("ascii")
