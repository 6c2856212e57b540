"""The first words of a message, for a list view.

Specification: RFC 8970 §3.2 (PREVIEW: at most 256 characters, 200 recommended).
Contract: `preview(sample, …)` takes the first octets of a text part and gives one line of text.
Failure: never raises; nothing readable is "".
"""

import html
import re

from fumibako.proto.message.charset import decode_text, html_charset
from fumibako.proto.message.transfer import decode_body

PREVIEW_CHARACTERS = 200
PREVIEW_OCTETS = 360  # in UTF-8: 120 kanji, which say as much as 200 letters
_BLANK = dict.fromkeys([*range(0x20), *range(0x200B, 0x2010), 0x2060, 0xFEFF], " ")     # what shows nothing
_SKIPPED = {"style": "</style", "script": "</script", "head": "</head", "title": "</title"}
_TAG_NAME = re.compile(r"</?([a-z0-9]+)", re.IGNORECASE)


def preview(sample: bytes, encoding: str, charset: str | None, is_html: bool) -> str:
    """At most 200 characters and 360 octets of `sample`: the first octets of a text body, in its transfer encoding."""
    octets = _whole_characters(decode_body(sample, encoding))
    if is_html:
        text = html_text(decode_text(octets, charset or html_charset(octets)))
    else:
        text = decode_text(octets, charset)
    line = " ".join(text[: 8 * PREVIEW_CHARACTERS].translate(_BLANK).split())[:PREVIEW_CHARACTERS]
    return line.encode("utf-8", "replace")[:PREVIEW_OCTETS].decode("utf-8", "ignore")


def _whole_characters(octets: bytes) -> bytes:
    """`octets` without the begin of a UTF-8 character that a cut left at the end."""
    for back in range(1, min(4, len(octets) + 1)):
        octet = octets[-back]
        if octet >= 0xC0:
            length = 2 if octet < 0xE0 else 3 if octet < 0xF0 else 4
            return octets[:-back] if length > back else octets
        if octet < 0x80:
            break
    return octets


def html_text(document: str) -> str:
    """The text of an HTML document: tags, comments, style and script out, entities in. One pass, no tree."""
    out: list[str] = []
    at = 0
    lower = document.lower()
    while (tag := document.find("<", at)) >= 0:
        out.append(document[at:tag])
        at = _after_tag(lower, tag)
        out.append("<" if at == tag + 1 else " ")
        if at < 0:
            return html.unescape("".join(out))
    return html.unescape("".join([*out, document[at:]]))


def _after_tag(lower: str, tag: int) -> int:
    """Where text goes on after the markup that begins at `tag`, or -1 if it never does."""
    if lower.startswith("<!--", tag):
        end = lower.find("-->", tag)
        return end + 3 if end >= 0 else -1
    name = _TAG_NAME.match(lower, tag)
    if name is None and not lower.startswith(("<!", "<?"), tag):
        return tag + 1  # a bare `<`
    if name and (closing := _SKIPPED.get(name[1])) and lower[tag + 1] != "/":
        tag = lower.find(closing, tag)
        if tag < 0:
            return -1
    end = lower.find(">", tag)
    return end + 1 if end >= 0 else -1
