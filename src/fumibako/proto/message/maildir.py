"""Maildir and Maildir++ as other programs keep them: names of directories and files, letters of flags, small text files.

Specification: RFC 3501 §5.1.3 (modified UTF-7 in the names of directories); Maildir++ and Dovecot's own files have no RFC.
Contract: pure. A directory's name says a mailbox's name as well as it can: "." inside a level becomes "_", what is too long
    is cut and told apart by a digest. Whatever octets a directory's name has, `mailbox_name` makes a name of it that a
    mailbox can have.
Failure: none: what is not understood is passed over.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fumibako.proto.imap.names import DELIMITER, INBOX, decode_utf7, encode_utf7
from fumibako.proto.reader import ProtocolError

FLAG_LETTERS: dict[str, str] = {"D": "\\Draft", "F": "\\Flagged", "R": "\\Answered", "S": "\\Seen", "T": "\\Deleted"}
MAX_KEYWORD_LETTERS = 26            # a..z, in each mailbox
MAX_DIRECTORY_OCTETS = 200          # of 255: other programs put something behind
MAX_NAME_OCTETS = 1000
MAX_DEPTH = 32
DIGEST_CHARACTERS = 12

_LETTER_OF = {name: letter for letter, name in FLAG_LETTERS.items()}
_NUMBER = re.compile(r"[0-9]{1,18}")
_KEYWORD = re.compile(r"[!#$&'+,\-./0-9:;<=>?@A-Z\[\^_`a-z|}~]{1,200}")
_UNSEEN_IN_NAMES = ("Cc", "Cs", "Zl", "Zp")


@dataclass(frozen=True, slots=True)
class MaildirFlags:
    """flags: system flags; keywords: positions in dovecot-keywords."""

    flags: tuple[str, ...]
    keywords: tuple[int, ...]


def parse_flags(file_name: str) -> MaildirFlags:
    """"1700000000.M1P2.host:2,FSa" -> \\Flagged, \\Seen and keyword 0; no letters without ":2,"."""
    letters = file_name.rpartition(":2,")[2] if ":2," in file_name else ""
    flags = tuple(FLAG_LETTERS[letter] for letter in letters if letter in FLAG_LETTERS)
    return MaildirFlags(flags, tuple(ord(letter) - ord("a") for letter in letters if "a" <= letter <= "z"))


def format_flags(flags: Iterable[str], keywords: Sequence[str] = ()) -> str:
    """The letters, in the order of ASCII as Maildir wants it; keywords: the mailbox's, of which the first 26 have letters."""
    held = set(flags)
    letters = {_LETTER_OF[name] for name in held if name in _LETTER_OF}
    letters |= {chr(ord("a") + at) for at, name in enumerate(keywords[:MAX_KEYWORD_LETTERS]) if name in held}
    return "".join(sorted(letters))


def is_keyword(name: str) -> bool:
    """Whether it can be a keyword in IMAP: an atom."""
    return bool(_KEYWORD.fullmatch(name))


def parse_keywords(octets: bytes) -> dict[int, str]:
    """dovecot-keywords: lines of a number and a keyword; what can be no keyword is left out."""
    found = {}
    for line in octets.decode("ascii", "replace").split("\n"):
        number, _, name = line.partition(" ")
        if _NUMBER.fullmatch(number) and int(number) < MAX_KEYWORD_LETTERS and is_keyword(name):
            found[int(number)] = name
    return found


def format_keywords(names: Sequence[str]) -> bytes:
    return "".join(f"{at} {name}\n" for at, name in enumerate(names[:MAX_KEYWORD_LETTERS])).encode("ascii", "replace")


def parse_subscriptions(octets: bytes) -> list[str]:
    """Dovecot's subscriptions file, of version 1 (levels parted by ".") or 2 (by TAB), as names of mailboxes."""
    lines = [line for line in octets.split(b"\n") if line]
    if lines[:1] == [b"V\t2"]:
        return [mailbox_name(line.split(b"\t")) for line in lines[1:]]
    return [mailbox_name(line.split(b".")) for line in lines]


def format_subscriptions(names: Iterable[str]) -> bytes:
    """Version 2: a line each, levels parted by TAB."""
    lines = (b"\t".join(encode_utf7(level) for level in name.split(DELIMITER)) for name in names)
    return b"V\t2\n\n" + b"".join(line + b"\n" for line in lines)


def parse_uid_list(octets: bytes) -> dict[str, int]:
    """dovecot-uidlist of version 3: file name up to ":2," -> uid; the order of a mailbox. Other versions: empty."""
    lines = octets.decode("utf-8", "surrogateescape").split("\n")
    if not lines[0].startswith("3 "):
        return {}
    found = {}
    for line in lines[1:]:
        uid, _, rest = line.partition(" ")
        if _NUMBER.fullmatch(uid) and ":" in rest:
            found[rest.partition(":")[2].partition(":2,")[0]] = int(uid)
    return found


def format_uid_list_head(uid_validity: int, uid_next: int) -> bytes:
    return f"3 V{uid_validity} N{uid_next}\n".encode()


def format_uid_list_line(uid: int, base_name: str) -> bytes:
    return f"{uid} :{base_name}\n".encode()


def file_order(file_name: str) -> tuple[int, str]:
    """The order of files nobody has given uids: the time in front, then the name."""
    number = _NUMBER.match(file_name)
    return (int(number[0]) if number else 0, file_name)


def format_directory(mailbox: str, taken: Iterable[str] = ()) -> str:
    """"Work/2024" -> ".Work.2024"; "" for INBOX. taken: names of directories that are in use already."""
    if mailbox == INBOX:
        return ""
    levels = [encode_utf7(level.replace(".", "_")).decode("ascii") for level in mailbox.split(DELIMITER)]
    name = "." + ".".join(levels)
    if len(name) > MAX_DIRECTORY_OCTETS or name in taken:
        # Cut outside a shifted run, or the rest would be no modified UTF-7.
        cut = name[: MAX_DIRECTORY_OCTETS - DIGEST_CHARACTERS - 1]
        if cut.rfind("&") > cut.rfind("-"):
            cut = cut[: cut.rfind("&")]
        name = f"{cut}_{digest(mailbox)}"
    return name


def digest(name: str) -> str:
    """A few characters that tell long names apart."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_CHARACTERS]


def mailbox_name(levels: Sequence[bytes]) -> str:
    """Names of directories, level by level, as the name of a mailbox; any octets give one that is allowed."""
    return safe_mailbox_name([_level(level) for level in levels])


def is_mailbox_name(name: str) -> bool:
    """Whether a mailbox can have this very name."""
    levels = name.split(DELIMITER)
    return ("" not in levels and len(levels) <= MAX_DEPTH and len(name.encode()) <= MAX_NAME_OCTETS
            and unicodedata.is_normalized("NFC", name)
            and not any(unicodedata.category(char) in _UNSEEN_IN_NAMES for char in name))


def safe_mailbox_name(levels: Sequence[str]) -> str:
    """Levels without what no mailbox may have: controls, nothing at all, "." and "..", too much, too deep."""
    kept = [_safe_level(level) for level in levels if level]
    if len(kept) > MAX_DEPTH:
        kept = [*kept[: MAX_DEPTH - 1], _safe_level("_".join(kept[MAX_DEPTH - 1 :]))]
    if kept and kept[0].upper() == INBOX and kept[0].isascii():
        kept[0] = INBOX
    name = DELIMITER.join(kept) or "_"
    if len(name.encode()) > MAX_NAME_OCTETS:
        name = _cut(name, MAX_NAME_OCTETS)
    return name


def _level(octets: bytes) -> str:
    """Modified UTF-7 as Dovecot writes it, or UTF-8 as it can be told to; else one character an octet."""
    try:
        return decode_utf7(octets)
    except ProtocolError:
        return octets.decode("utf-8") if _is_utf8(octets) else octets.decode("latin-1")


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _safe_level(level: str) -> str:
    level = unicodedata.normalize("NFC", level)
    level = "".join("_" if char == DELIMITER or unicodedata.category(char) in _UNSEEN_IN_NAMES else char for char in level)
    return "_" * len(level) if level.strip(". ") == "" else level


def _cut(name: str, octets: int) -> str:
    """As much of it as fits, and a digest of the whole; never an empty level at the cut."""
    kept = name.encode()[: octets - DIGEST_CHARACTERS - 1].decode("utf-8", "ignore").rstrip(DELIMITER)
    return f"{kept}_{digest(name)}"
