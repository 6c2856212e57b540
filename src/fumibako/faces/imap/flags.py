r"""Flag words as the names a client sees.

Specification: RFC 9051 §2.3.2; RFC 3501 §2.3.2 (\Recent).
Contract: system flags first, in alphabetical order, then keywords; bit 63 of a word, which no stored flag uses, is \Recent.
"""

from __future__ import annotations

from fumibako.model.mailbox import FIRST_KEYWORD_BIT, SYSTEM_FLAGS

RECENT = 1 << 63
SYSTEM_BITS = (1 << FIRST_KEYWORD_BIT) - 1
_NAMED = sorted([*SYSTEM_FLAGS.items(), ("\\Recent", RECENT)])


def flag_names(word: int, keywords: dict[int, str]) -> list[str]:
    r"""3 -> ["\Answered", "\Seen"]; keywords: bit -> name."""
    names = [name for name, bit in _NAMED if word & bit]
    if word & ~(SYSTEM_BITS | RECENT):
        names += sorted(name for bit, name in keywords.items() if word >> bit & 1)
    return names
