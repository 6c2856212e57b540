"""The parts of a message and where they lie, found in one pass while its octets go by.

Specification: RFC 2045 §5, §6; RFC 2046 §5.1 (multipart), §5.1.5 (digest), §5.2.1 (rfc822); RFC 6532 §3.7 (message/global);
    RFC 9051 §7.5.2 (what IMAP needs of a part).
Contract: `Indexer.feed` in any cuts, then `close()`, gives the same `MessageIndex`; time is linear, memory is the headers.
    CRLF and LF both end a line; offsets count octets as they are stored. Part 0 is the message itself.
Failure: never raises. What goes beyond a limit, or has no boundary, is a leaf with all its octets: nothing is dropped.
"""

import re
from collections.abc import Iterator

import msgspec

from fumibako.proto.message.address import is_internationalized
from fumibako.proto.message.header import fields, unfold
from fumibako.proto.message.params import Parameters, attachment_name, parse_parameters
from fumibako.proto.message.preview import preview

MAX_DEPTH = 100
MAX_PARTS = 10_000
MAX_HEADER_OCTETS = 256 * 1024  # of one header; its fields beyond are not looked at
MAX_HEADERS_OCTETS = 16 * 1024 * 1024  # of all headers; parts beyond are leaves
_DELIMITER_OCTETS = 1000  # a longer line is no delimiter
_BOUNDARY_OCTETS = 256  # RFC 2046 §5.1.1 allows 70
_SAMPLE_OCTETS = {"plain": 4096, "html": 32768}

_BLANK_LINE = re.compile(rb"\n\r?\n")
_BLANK_OR_DASHES = re.compile(rb"\n(?:\r?\n|--)")
_AFTER_BOUNDARY = (b"\n", b"\r", b" ", b"\t", b"-")
_TOKEN = re.compile(rb"[^\x00-\x20()<>@,;:\\\"/\[\]?=\x7f-\xff]+")
_IDENTITY = frozenset({"", "7bit", "8bit", "binary"})
_MESSAGES = frozenset({"message/rfc822", "message/global"})
# The fields of a Summary, in its order.
FIELD_NAMES = ("date", "subject", "from", "sender", "reply-to", "to", "cc", "bcc",
               "in-reply-to", "message-id", "references", "list-id")  # fmt: skip
_SUMMARY = {name.encode("ascii"): "from_" if name == "from" else name.replace("-", "_") for name in FIELD_NAMES}
_ADDRESS_FIELDS = frozenset({"from_", "sender", "reply_to", "to", "cc", "bcc"})
_MIME = frozenset(b"content-type content-transfer-encoding content-disposition content-id content-description "
                  b"content-language content-location content-md5".split())  # fmt: skip
_NO_FIELDS: dict[bytes, bytes] = {}


class Part(msgspec.Struct, frozen=True):
    """One part. Its header is `message[header_offset:body_offset]`, its body `message[body_offset:end_offset]`.

    `media_type` is `type/subtype` in lower case; `encoding` likewise, "" if not given; `disposition` None if not given.
    Parameters are raw (RFC 2231 pieces not joined). `lines` counts the LF of the body of text and message parts.
    A message/rfc822 part has one child, the message in it, and only such a message (and part 0) has `summary`.
    """

    media_type: str
    parameters: Parameters
    header_offset: int
    body_offset: int
    end_offset: int
    lines: int
    encoding: str = ""
    content_id: bytes | None = None
    description: bytes | None = None
    disposition: str | None = None
    disposition_parameters: Parameters = ()
    language: bytes | None = None
    location: bytes | None = None
    md5: bytes | None = None
    children: tuple["Part", ...] = ()
    summary: "Summary | None" = None

    @property
    def is_multipart(self) -> bool:
        return self.media_type.startswith("multipart/")

    @property
    def is_message(self) -> bool:
        return self.media_type in _MESSAGES

    @property
    def file_name(self) -> str | None:
        """A safe file name, or None when the part names none (the caller makes one up, in the reader's language)."""
        return attachment_name(self.disposition_parameters, self.parameters, self.description)

    @property
    def charset(self) -> str | None:
        """The charset parameter as written, or None."""
        return next((value.decode("latin-1") for name, value in self.parameters if name == b"charset"), None)

    def walk(self) -> Iterator["Part"]:
        """This part and all below it in the order of the message."""
        waiting = [self]
        while waiting:
            part = waiting.pop()
            yield part
            waiting.extend(reversed(part.children))


class Summary(msgspec.Struct, frozen=True):
    """The fields of a message header that lists, searches and ENVELOPE need: unfolded raw octets, None if absent.

    Of a repeated address field all values are joined by commas, of another the first counts.
    """

    date: bytes | None = None
    subject: bytes | None = None
    from_: bytes | None = None
    sender: bytes | None = None
    reply_to: bytes | None = None
    to: bytes | None = None
    cc: bytes | None = None
    bcc: bytes | None = None
    in_reply_to: bytes | None = None
    message_id: bytes | None = None
    references: bytes | None = None
    list_id: bytes | None = None

    def field(self, name: str) -> bytes:
        """One of FIELD_NAMES by its lower-case name; b"" if the message lacks it, or for any other name."""
        value = getattr(self, _SUMMARY[name.encode("ascii")]) if name in FIELD_NAMES else None
        return value or b""


class MessageIndex(msgspec.Struct, frozen=True):
    """What one pass over a message found. `preview` is at most 200 characters of its first text part, decoded.

    `international`: a header of the message or of a part holds an address that only RFC 6532 allows, or is too long to know.
    """

    root: Part
    summary: Summary
    preview: str
    size_octets: int
    international: bool

    def field(self, name: str) -> bytes:
        """The same as `summary.field`."""
        return self.summary.field(name)


class _Open:
    """A part whose end has not been seen."""

    __slots__ = (
        "body_offset", "boundary", "children", "depth", "fields", "header_offset", "lines_before", "media_type", "opaque",
        "parameters", "parent", "summary",
    )  # fmt: skip

    def __init__(self, parent: "_Open | None", header_offset: int) -> None:
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0
        self.header_offset = header_offset
        self.body_offset = header_offset
        self.lines_before = 0
        self.media_type = "text/plain"
        self.parameters: Parameters = ()
        self.fields = _NO_FIELDS
        self.summary: Summary | None = None
        self.boundary: bytes | None = None
        self.opaque = False
        self.children: list[Part] = []


class Indexer:
    """Feed it a message in chunks of any size, then `close()` it."""

    def __init__(self) -> None:
        # The window begins with a line end that is not there, so that every line follows one.
        self._window = bytearray(b"\n")
        self._base = -1  # the message offset of the window's first octet
        self._at = 0  # where in the window the search goes on
        self._counted = 1  # up to where lines are counted and the sample is taken
        self._lines = 0
        self._parts = 1
        self._headers_octets = 0
        self._international = False
        self._root = self._top = _Open(None, 0)
        self._in_header = True
        self._header: bytes | None = None  # the first octets of a header that is too long
        self._active: dict[bytes, _Open] = {}
        self._begin_octets = 0
        self._begins: frozenset[bytes] = frozenset()  # how a delimiter may begin, to tell others apart cheaply
        self._samples: dict[str, tuple[_Open, bytearray]] = {}
        self._closed_root: Part | None = None

    def feed(self, chunk: bytes) -> None:
        """The next octets of the message."""
        self._window += chunk
        self._scan(final=False)
        self._trim()

    def close(self) -> MessageIndex:
        """The index of all that was fed. Call once."""
        self._scan(final=True)
        while self._in_header:
            self._end_header(len(self._window), len(self._window))
        size = self._base + len(self._window)
        self._count_to(len(self._window))
        while self._closed_root is None:
            self._close_top(size)
        assert self._root.summary is not None  # a root always gets one
        return MessageIndex(self._closed_root, self._root.summary, self._preview(), size, self._international)

    def _scan(self, final: bool) -> None:
        while self._scan_header(final) if self._in_header else self._scan_body(final):
            pass

    def _trim(self) -> None:
        """Drops what has been looked at; one octet stays, it may be the CR before a delimiter."""
        keep = self._at - 1
        if self._in_header and self._header is None:
            keep = self._top.header_offset - 1 - self._base
            if len(self._window) - keep > MAX_HEADER_OCTETS:
                self._header = bytes(self._window[keep + 1 : keep + 1 + MAX_HEADER_OCTETS])
                keep = self._at - 1
        if keep > 0:
            self._count_to(keep)
            del self._window[:keep]
            self._base += keep
            self._at -= keep
            self._counted -= keep

    def _count_to(self, end: int) -> None:
        """Counts lines up to `end`, and takes the first octets of a text body for the preview."""
        if end <= self._counted:
            return
        self._lines += self._window.count(b"\n", self._counted, end)
        for kind, (part, sample) in self._samples.items():
            if part is self._top and not self._in_header and (room := _SAMPLE_OCTETS[kind] - len(sample)) > 0:
                sample += self._window[self._counted : min(end, self._counted + room)]
        self._counted = end

    def _scan_header(self, final: bool) -> bool:
        """Looks for the blank line, or a delimiter that ends the part before it. False: more octets are needed."""
        window = self._window
        header_end = _BLANK_OR_DASHES if self._active else _BLANK_LINE
        while match := header_end.search(window, self._at):
            at = match.start()
            if window[match.end() - 1] == 0x0A:
                self._end_header(at + 1, match.end())
                return True
            line_end, boundary = self._delimiter(at, final)
            if line_end < 0:
                self._at = at
                return False
            if boundary:
                self._end_header(at + 1, at + 1)
                self._at = at
                return True
            self._at = at + 1
        self._at = max(self._at, len(window) - 2)
        return False

    def _scan_body(self, final: bool) -> bool:
        """Looks for the next delimiter of a part around. False: more octets are needed."""
        window, begins, size = self._window, self._begins, self._begin_octets
        at = window.find(b"\n--", self._at) if self._active else -1
        while at >= 0:
            begin = bytes(window[at + 3 : at + 3 + size])
            if begin in begins or len(begin) < size:
                line_end, boundary = self._delimiter(at, final)
                if line_end < 0:
                    self._at = at
                    return False
                if boundary:
                    self._open_next(at, line_end, boundary)
                    return True
            at = window.find(b"\n--", at + 1)
        self._at = max(self._at, len(window) - 2)
        return False

    def _delimiter(self, at: int, final: bool) -> tuple[int, bytes]:
        """Where the line that begins behind `window[at]` ends, and the boundary (with `--` when it closes) if it is one.

        `delimiter := CRLF "--" boundary`, `close-delimiter := delimiter "--"`, then white space. -1: not to be told yet.
        """
        # Deviation: RFC 2046 §5.1.1 takes any line that begins with the boundary; a nested boundary may begin with this one.
        window = self._window
        end = window.find(b"\n", at + 3, at + _DELIMITER_OCTETS)
        if end < 0:
            if len(window) >= at + _DELIMITER_OCTETS:
                return at, b""
            if not final:
                return -1, b""
            end = len(window)
        line = bytes(window[at + 3 : end]).rstrip(b" \t\r")
        if line in self._active or (line.endswith(b"--") and line[:-2] in self._active):
            return end, line
        return end, b""

    def _open_next(self, at: int, line_end: int, line: bytes) -> None:
        """A delimiter at `window[at]`: ends the parts in it, and begins the next one unless it closes."""
        boundary = line if line in self._active else line[:-2]
        multipart = self._active[boundary]
        body_end = at - 1 if at and self._window[at - 1] == 0x0D else at
        self._count_to(at)
        while self._top is not multipart:
            self._close_top(self._base + body_end)
        if boundary == line:
            self._begin_part(multipart, line_end)
            return
        self._at = line_end
        multipart.boundary = None
        self._activate()

    def _begin_part(self, parent: _Open, line_end: int) -> None:
        """A part begins behind the line end at `window[line_end]`. The last one allowed takes all that follows."""
        self._parts += 1
        ancestor: _Open | None = parent if self._parts >= MAX_PARTS else None
        while ancestor is not None:
            ancestor.boundary, ancestor = None, ancestor.parent
            self._active = {}
        self._top = _Open(parent, min(self._base + line_end + 1, self._base + len(self._window)))
        self._in_header, self._header = True, None
        self._at = line_end

    def _end_header(self, header_end: int, body: int) -> None:
        """The header of the part at hand ends before `window[header_end]`, its body begins at `window[body]`."""
        top = self._top
        self._count_to(body)
        self._in_header = False
        start = top.header_offset - self._base
        overlong = header_end - start > MAX_HEADER_OCTETS
        block, self._header = self._header or bytes(self._window[start : min(header_end, start + MAX_HEADER_OCTETS)]), None
        self._headers_octets += len(block)
        self._international = self._international or overlong or is_internationalized(block)
        top.opaque = overlong or self._headers_octets > MAX_HEADERS_OCTETS
        top.body_offset = self._base + body
        top.lines_before = self._lines
        self._at = max(body - 1, 0)
        is_root = top.parent is None or top.parent.media_type in _MESSAGES
        top.fields, summary = _read_header(block, is_root)
        if is_root:
            top.summary = Summary(**summary)
        self._read_type(top)
        self._open_body(top)

    def _read_type(self, part: _Open) -> None:
        value = part.fields.get(b"content-type")
        if value is None:  # RFC 2045 §5.2, RFC 2046 §5.1.5
            digest = part.parent is not None and part.parent.media_type == "multipart/digest"
            part.media_type = "message/rfc822" if digest else "text/plain"
            part.parameters = () if digest else ((b"charset", b"us-ascii"),)
            return
        head, part.parameters = parse_parameters(value)
        kind, slash, subtype = head.partition(b"/")
        subtype = subtype.split(None, 1)[0] if subtype.strip() else b""
        if slash and _TOKEN.fullmatch(kind.strip()) and _TOKEN.fullmatch(subtype):
            part.media_type = f"{kind.strip().decode('ascii')}/{subtype.decode('ascii')}"
        else:  # RFC 2045 §5.2: what cannot be read is plain text
            part.media_type = "text/plain"

    def _open_body(self, part: _Open) -> None:
        """Decides what the body is: parts, a message, or octets."""
        main, _, kind = part.media_type.partition("/")
        if main == "text" and kind in _SAMPLE_OCTETS and kind not in self._samples and _is_inline(part):
            self._samples[kind] = part, bytearray()
        if main not in ("multipart", "message"):
            return
        part.opaque = part.opaque or part.depth >= MAX_DEPTH or self._parts >= MAX_PARTS
        if main == "multipart" and not part.opaque:
            boundary = next((value for name, value in part.parameters if name == b"boundary"), b"")
            part.boundary = boundary[:_BOUNDARY_OCTETS].rstrip(b" \t") or None
            self._activate()
        elif part.media_type in _MESSAGES and not part.opaque and _encoding(part) in _IDENTITY:
            self._begin_part(part, self._at)

    def _activate(self) -> None:
        """Recomputes which boundaries end something here; the innermost of equal ones wins."""
        active: dict[bytes, _Open] = {}
        part: _Open | None = self._top
        while part is not None:
            if part.boundary:
                active.setdefault(part.boundary, part)
            part = part.parent
        self._active = active
        size = self._begin_octets = min(map(len, active), default=0) + 1
        self._begins = frozenset(begin for name in active for begin in ((name + end)[:size] for end in _AFTER_BOUNDARY))

    def _close_top(self, end_offset: int) -> None:
        """The part at hand ends; it becomes a value among its parent's children."""
        top, parent = self._top, self._top.parent
        part = _build(top, max(end_offset, top.body_offset), self._lines - top.lines_before)
        if parent is None:
            self._closed_root = part
            return
        parent.children.append(part)
        self._top = parent
        if top.boundary is not None:
            self._activate()

    def _preview(self) -> str:
        for kind in ("plain", "html"):
            if kind in self._samples:
                part, sample = self._samples[kind]
                charset = next((value.decode("latin-1") for name, value in part.parameters if name == b"charset"), None)
                if text := preview(bytes(sample), _encoding(part), charset, kind == "html"):
                    return text
        return ""


def _read_header(block: bytes, is_root: bool) -> tuple[dict[bytes, bytes], dict[str, bytes]]:
    """(MIME fields by lower-case name, summary fields by attribute), values unfolded. The first of each counts."""
    mime: dict[bytes, bytes] = {}
    summary: dict[str, bytes] = {}
    for field in fields(block):
        name = field.name.lower()
        if name in _MIME:
            mime.setdefault(name, unfold(field.value_raw))
        elif is_root and name in _SUMMARY:
            key, value = _SUMMARY[name], unfold(field.value_raw)
            if key in summary and key in _ADDRESS_FIELDS:
                summary[key] += b", " + value
            else:
                summary.setdefault(key, value)
    return mime, summary


def _encoding(part: _Open) -> str:
    """`encoding := "Content-Transfer-Encoding" ":" mechanism`, RFC 2045 §6.1, lower case; "" if absent."""
    value = part.fields.get(b"content-transfer-encoding", b"").partition(b";")[0].partition(b"(")[0]
    return value.strip().lower().decode("latin-1")


def _is_inline(part: _Open) -> bool:
    return not part.fields.get(b"content-disposition", b"").lower().startswith(b"attachment")


def _build(part: _Open, end_offset: int, lines: int) -> Part:
    """The value of a part that has ended. What has no parts although its type says so is plain text or octets."""
    fields_ = part.fields
    media_type, parameters = part.media_type, part.parameters
    if not part.children and media_type.startswith("multipart/"):
        media_type, parameters = ("application/octet-stream", ()) if part.opaque else ("text/plain", ())
    elif not part.children and media_type in _MESSAGES:
        media_type, parameters = "application/octet-stream", ()
    main = media_type.partition("/")[0]
    built = Part(
        media_type, parameters, part.header_offset, part.body_offset, end_offset, lines if main in ("text", "message") else 0,
        _encoding(part) if fields_ else "", children=tuple(part.children), summary=part.summary,
    )  # fmt: skip
    return _with_rare_fields(built, fields_) if len(fields_) > 2 or not _COMMON.issuperset(fields_) else built


_COMMON = frozenset({b"content-type", b"content-transfer-encoding"})


def _with_rare_fields(part: Part, fields_: dict[bytes, bytes]) -> Part:
    disposition, parameters = parse_parameters(fields_.get(b"content-disposition", b""))
    return msgspec.structs.replace(
        part,
        content_id=fields_.get(b"content-id"),
        description=fields_.get(b"content-description"),
        disposition=disposition.decode("latin-1") or None,
        disposition_parameters=parameters if disposition else (),
        language=fields_.get(b"content-language"),
        location=fields_.get(b"content-location"),
        md5=fields_.get(b"content-md5"),
    )
