"""The services below IMAP and POP3, where a protocol would only be in the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.model.mailbox import Mailbox
from fumibako.model.ops import Refusal
from fumibako.proto.message.index import Summary
from fumibako.services.mailbox_names import ROLE_NAMES, resolve_name, role_of
from fumibako.services.mailboxes import StoreRefused
from fumibako.services.message_text import LUMP_OCTETS, _lumps, fold_text
from fumibako.services.threads import MAX_REFERENCES, base_subject, threading_of
from tests.support.imap_session import House

NAMES = ("INBOX", "Drafts", "Sent", "Junk", "Trash", "営業", "Old.Mail")
USES = {"Drafts": "\\Drafts", "Sent": "\\Sent", "Junk": "\\Junk", "Trash": "\\Trash"}
ROWS = [Mailbox(1, number, name, 1, 1, 1, 0, 0, 0, 0, USES.get(name, "")) for number, name in enumerate(NAMES, 1)]


@pytest.mark.parametrize(("name", "means"), [
    ("Sent", "Sent"), ("Sent Items", "Sent"), ("SENT MESSAGES", "Sent"), ("送信済みアイテム", "Sent"), ("送信済み", "Sent"),
    ("ごみ箱", "Trash"), ("ゴミ箱", "Trash"), ("ｺﾞﾐ箱", "Trash"), ("削除済みアイテム", "Trash"),
    ("迷惑メール", "Junk"), ("Spam", "Junk"),
    ("下書き", "Drafts"), ("Sent Items/2024", "Sent/2024"), ("アーカイブ", "アーカイブ"),      # nothing has that role here
    ("INBOX.Sent", "Sent"), ("inbox/Sent", "Sent"), ("INBOX.送信済み", "Sent"), ("INBOX.営業", "営業"),
    ("INBOX.nothing", "INBOX.nothing"), ("INBOX/new", "INBOX/new"), ("営業", "営業"),
    ("Old.Mail", "Old.Mail"), ("other", "other"),
])
def test_what_a_name_means(name: str, means: str) -> None:
    assert resolve_name(name, ROWS) == means


def test_every_role_has_its_own_names() -> None:
    names = [name for names in ROLE_NAMES.values() for name in names]
    assert len({fold_text(name) for name in names}) == len(names)
    assert all(role_of(name) == role for role, names in ROLE_NAMES.items() for name in names)


@given(st.text(max_size=40))
def test_a_name_that_exists_means_itself(name: str) -> None:
    row = Mailbox(1, 99, name, 1, 1, 1, 0, 0, 0, 0)
    assert resolve_name(name, [*ROWS, row]) == name


@pytest.mark.parametrize("subject", [
    "Re: 見積書", "RE: Re: 見積書", "Fwd: [list 12] Re: 見積書", "Re：見積書", "返信: 見積書", "[list]  見積書",
    "re[2]: 見積書 (fwd)", "転送：見積書",
])
def test_replies_have_the_base_subject_of_what_they_answer(subject: str) -> None:
    assert base_subject(subject) == "見積書"


def test_a_subject_that_is_only_a_label_stays() -> None:
    assert base_subject("[urgent]") == "[urgent]" and base_subject("Re:") == ""


def test_threading_takes_references_newest_first() -> None:
    key = b"k" * 32
    many = b" ".join(b"<%d@x>" % number for number in range(100))
    one = threading_of(Summary(message_id=b"<a@x>", references=many, subject=b"Re: x"), key)
    assert one.message_id and len(one.references) == MAX_REFERENCES
    parent = threading_of(Summary(message_id=b"<99@x>", subject=b"x"), key)
    assert one.references[0] == parent.message_id and one.subject == parent.subject
    assert threading_of(Summary(in_reply_to=b"<99@x>"), key).references == (parent.message_id,)
    assert threading_of(Summary(message_id=b"<a@x>"), b"other").message_id != one.message_id
    assert all(0 < value < 2**63 for value in (one.message_id, one.subject, *one.references))


@given(st.text(max_size=200))
def test_folding_is_stable(text: str) -> None:
    assert fold_text(fold_text(text)) == fold_text(text)


@given(st.lists(st.binary(max_size=50), max_size=20))
async def test_lumps_lose_nothing(pieces: list[bytes]) -> None:
    async def feed():
        for piece in pieces:
            yield piece * 1000

    lumps = [lump async for lump in _lumps(feed())]
    assert b"".join(lumps) == b"".join(piece * 1000 for piece in pieces)
    assert all(lump.endswith(b"\n") or len(lump) >= LUMP_OCTETS // 2 for lump in lumps[:-1])
    assert all(len(lump) < 2 * LUMP_OCTETS for lump in lumps)


@pytest.fixture
async def house(tmp_path: Path):
    house = await House.build(tmp_path / "data", "alice@example.jp", "bob@example.jp")
    yield house
    await house.close()


async def test_appending_is_all_or_nothing(house: House) -> None:
    visit = await house.mailboxes.visit(await house.account(), lambda: None)
    inbox = await visit.find("INBOX")
    appending = visit.append(inbox)
    for subject in (b"one", b"two"):
        appending.begin(("\\Seen",), None)
        appending.write(b"Subject: " + subject + b"\r\n\r\n")
        await appending.end()
    assert (await visit.find("INBOX")).total == 0
    placed = (await appending.commit()).placed
    assert [place.uid for place in placed] == [1, 2]
    assert (await visit.find("INBOX")).total == 2
    appending = visit.append(inbox)
    appending.begin((), 0)
    appending.write(b"x" * 600_000)
    appending.abandon()
    assert list((house.store.engine.directory / "spool").iterdir()) == []
    await visit.leave()


async def test_a_full_disk_refuses_the_append(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    visit = await house.mailboxes.visit(await house.account(), lambda: None)
    appending = visit.append(await visit.find("INBOX"))
    appending.begin((), 0)

    def full(_: bytes) -> None:
        raise StoreRefused(Refusal.DISK_FULL)

    monkeypatch.setattr(type(appending._writers[0]), "write", lambda self, octets: full(octets))
    appending.write(b"x")
    appending.write(b"y")
    with pytest.raises(StoreRefused) as caught:
        await appending.end()
    assert caught.value.refusal is Refusal.DISK_FULL


async def test_nobody_sees_anothers_mailboxes(house: House) -> None:
    alice = await house.mailboxes.visit(await house.account(), lambda: None)
    bob = await house.mailboxes.visit(await house.account("bob@example.jp"), lambda: None)
    await alice.create("secret")
    refusals = []
    for name in ("secret", "absent"):
        with pytest.raises(StoreRefused) as caught:
            await bob.find(name)
        refusals.append(str(caught.value))
    assert refusals[0] == refusals[1]
    assert "secret" not in [row.name for row in await bob.mailboxes()]
