"""FETCH lines of many messages: the same as one by one."""

from array import array

from fumibako.proto.imap.render import CHUNK_ROWS, SIZE, FlagLists, render_fetch, render_flags_fetch


def names(word: int) -> list[str]:
    return [name for bit, name in enumerate(("\\Seen", "\\Answered", "$Junk")) if word >> bit & 1]


def test_rows():
    uids, flags, modseqs = array("I", [10, 12]), array("Q", [0, 5]), array("Q", [7, 8])
    lines = render_flags_fetch([1, 3], flags, FlagLists(names), uids=uids, modseqs=modseqs)
    assert b"".join(lines) == b"* 1 FETCH (UID 10 FLAGS () MODSEQ (7))\r\n* 3 FETCH (UID 12 FLAGS (\\Seen $Junk) MODSEQ (8))\r\n"
    assert b"".join(render_flags_fetch([2], [1], FlagLists(names))) == b"* 2 FETCH (FLAGS (\\Seen))\r\n"


def test_nothing():
    assert list(render_fetch([], [(SIZE, [])])) == []


def test_chunks():
    count = 2 * CHUNK_ROWS + 1
    chunks = list(render_fetch(range(1, count + 1), [(SIZE, range(count)), ('INTERNALDATE "%s"', ["x"] * count)]))
    assert [chunk.count(b"\r\n") for chunk in chunks] == [CHUNK_ROWS, CHUNK_ROWS, 1]
    expected = b"".join(b'* %d FETCH (RFC822.SIZE %d INTERNALDATE "x")\r\n' % (i + 1, i) for i in range(count))
    assert b"".join(chunks) == expected


def test_a_flag_word_is_spelled_once():
    spelled = []
    lists = FlagLists(lambda word: spelled.append(word) or names(word))
    b"".join(render_flags_fetch(range(1, 1001), [1, 2] * 500, lists))
    assert spelled == [1, 2]
