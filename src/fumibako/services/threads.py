"""What the store needs to put a message into its thread: keyed hashes of Message-ID, References and base subject.

Specification: RFC 5322 §3.6.4 (References, In-Reply-To), RFC 5256 §2.1 (base subject); DESIGN §3 Threads.
Contract: pure given the key (the store's secret "thread"); hashes have 63 bits, 0 stands for "none". References come
    newest first and at most MAX_REFERENCES of them.
Failure: none: what can't be read gives no hash.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from fumibako.model.ops import Threading
from fumibako.proto.message.index import Summary
from fumibako.proto.message.words import decode_words

MAX_REFERENCES = 32
MAX_SUBJECT = 1_000

_MSG_ID = re.compile(rb"<[^<>\s]{1,998}>")
# RFC 5256 §5 subj-leader and subj-trailer, with the colons and reply words of Japanese clients.
_REPLY = re.compile(r"(?:\[[^\[\]]*\]\s*)*(?:re|fwd?|返信|転送|答复|回复)\s*(?:\[[^\[\]]*\])?\s*:\s*", re.IGNORECASE)
_TRAILER = re.compile(r"(?:\s*\(fwd\))+\s*\Z", re.IGNORECASE)
_BLOB = re.compile(r"\[[^\[\]]*\]\s*(?=[^\s])")
_SPACES = re.compile(r"\s+")


def threading_of(summary: Summary, key: bytes) -> Threading:
    """What a message says of its place among others."""
    own = _MSG_ID.search(summary.message_id or b"")
    references = _MSG_ID.findall(summary.references or b"") or _MSG_ID.findall(summary.in_reply_to or b"")
    newest_first = dict.fromkeys(reversed(references[-MAX_REFERENCES:]))
    return Threading(
        _hash(key, own[0]) if own else 0,
        tuple(_hash(key, reference) for reference in newest_first),
        _subject_hash(decode_words(summary.subject or b""), key),
    )


def _subject_hash(subject: str, key: bytes) -> int:
    base = base_subject(subject)
    return _hash(key, b"subject\0" + base.encode("utf-8", "replace")) if base else 0


def _hash(key: bytes, octets: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(octets, digest_size=8, key=key[:64]).digest(), "big") >> 1 or 1


def base_subject(subject: str) -> str:
    """'Re: [list] Fwd: 見積　書' -> '見積 書', casefolded, so that a reply meets what it answers."""
    text = _SPACES.sub(" ", unicodedata.normalize("NFKC", subject[:MAX_SUBJECT])).strip()
    text = _TRAILER.sub("", text)
    while (leader := _REPLY.match(text) or _BLOB.match(text)) is not None:
        text = text[leader.end() :]
    return text.casefold()
