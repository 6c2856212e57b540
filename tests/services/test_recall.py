"""A part of a backup, back into a living account."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fumibako.model.ids import AccountId
from fumibako.model.mailbox import Mailbox
from fumibako.model.ops import Append, Appended, Expunge, RemoveAccount
from fumibako.net.clock import Clock
from fumibako.net.offload import Offload
from fumibako.services.admin import AdminError
from fumibako.services.recall import Recalled, Wanted, recall
from fumibako.store.base import INLINE_OCTETS
from fumibako.store.local import LocalStore
from fumibako.store.past import PastStore
from tests.contract.building import NOW_MS, add_account, append, body, deliver, mailbox_ids, trace
from tests.store.backing import back_up

ALICE = "alice@example.jp"


def letter(name: str, size: int = 0) -> bytes:
    return f"Message-ID: <{name}@x>\r\nSubject: {name}\r\n\r\n".encode() + b"x" * size


class House:
    """A store whose backup has three messages of alice: two in INBOX (uids 1 and 2), a large one in Archive."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = LocalStore(directory / "data", lambda: NOW_MS)
        self.offload = Offload()

    async def fill(self) -> None:
        self.alice = (await add_account(self.store)).id
        await deliver(self.store, 1, self.alice, octets=letter("one"))
        await append(self.store, self.alice, 1, 2, "\\Seen", "$Forwarded", octets=letter("two"))
        archive = (await mailbox_ids(self.store, self.alice))["Archive"]
        message = Appended(body(letter("large", INLINE_OCTETS - 1_000)), b"", ("\\Flagged",), NOW_MS - 86_400_000)
        await self.store.commit(Append(self.alice, archive, trace(3), (message,)))
        back_up(self.store.engine, self.directory / "b")

    async def lose(self, mailbox: str, *uids: int) -> None:
        ids = await mailbox_ids(self.store, self.alice)
        await self.store.commit(Expunge(self.alice, ids[mailbox], uids, only_deleted=False))

    async def recall(self, address: str = ALICE, into: str = "Restored", **chosen: object) -> Recalled:
        past = PastStore(self.directory / "b", self.offload.run)
        try:
            return await recall(past, self.store, Clock(), Wanted(address, into, **chosen), lambda done, total: None)
        finally:
            await past.close()

    async def boxes(self) -> dict[str, Mailbox]:
        return {box.name: box for box in await self.store.mailboxes(self.alice)}

    async def contents(self, mailbox: str) -> list[bytes]:
        box = (await self.boxes())[mailbox]
        view = await self.store.view(self.alice, box.id)
        assert view is not None
        entries = await self.store.entries(self.alice, box.id, list(view.uids))
        return [await self.store.read(self.alice, entry.email_id, 0, entry.size_octets) for entry in entries]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    await house.fill()
    yield house
    await house.store.close()
    house.offload.close()


async def test_what_is_lost_comes_back_and_what_is_there_does_not_come_twice(house: House) -> None:
    assert await house.recall() == Recalled(0, 3, 0, [])
    await house.lose("INBOX", 2)
    await house.lose("Archive", 1)
    found = await house.recall()
    assert (found.restored, found.present, found.mailboxes) == (2, 1, ["Restored/INBOX", "Restored/Archive"])
    assert await house.contents("Restored/INBOX") == [letter("two")]
    assert await house.contents("Restored/Archive") == [letter("large", INLINE_OCTETS - 1_000)]
    boxes = await house.boxes()
    view = await house.store.view(house.alice, boxes["Restored/INBOX"].id)
    keywords = await house.store.keywords(house.alice)
    assert view is not None and view.flags[0] & 1 and [name for bit, name in keywords.items() if view.flags[0] >> bit & 1] == [
        "$Forwarded"]
    entry, = await house.store.entries(house.alice, boxes["Restored/Archive"].id, [1])
    assert entry.internal_date == NOW_MS - 86_400_000
    assert set(found.mailboxes) <= set(await house.store.subscriptions(house.alice))
    # A second run knows them by their octets: their EMAILIDs are new.
    assert (await house.recall()).restored == 0
    assert (await house.recall(everything=True)).restored == 3


async def test_the_header_fields_we_added_come_along(house: House) -> None:
    await house.lose("INBOX", 1)
    await house.recall(mailbox="INBOX")
    assert await house.contents("Restored") == [b"X: 1\r\n" + letter("one")]


@pytest.mark.parametrize(("chosen", "restored", "box"), [
    ({"mailbox": "Archive"}, 1, "Restored"), ({"message": "<two@x>"}, 1, "Restored/INBOX"),
    ({"message": "two@x"}, 1, "Restored/INBOX"),
    ({"message": "1"}, 1, "Restored"), ({"message": "1", "mailbox": "Archive"}, 1, "Restored")])
async def test_a_choice(house: House, chosen: dict[str, object], restored: int, box: str) -> None:
    await house.lose("INBOX", 1, 2)
    await house.lose("Archive", 1)
    found = await house.recall(**chosen)
    assert (found.restored, found.mailboxes) == (restored, [box])


@pytest.mark.parametrize(("address", "chosen", "problem"), [
    ("nobody@example.jp", {}, "the backup has no account"), ("not an address", {}, "not an address"),
    (ALICE, {"mailbox": "Nowhere"}, "no mailbox Nowhere"), (ALICE, {"message": "<none@x>"}, "no message <none@x>"),
    (ALICE, {"message": "77"}, "no message 77"), (ALICE, {"into": "a//b", "everything": True}, "can't be made")])
async def test_a_no_is_said_plainly(house: House, address: str, chosen: dict[str, object], problem: str) -> None:
    with pytest.raises(AdminError, match=problem):
        await house.recall(address, **chosen)


async def test_an_account_that_is_gone_is_not_made(house: House) -> None:
    await house.store.commit(RemoveAccount(ALICE))
    with pytest.raises(AdminError, match="there is no account alice"):
        await house.recall()


async def test_quota_stops_it_and_says_where(house: House) -> None:
    await house.store.commit(RemoveAccount(ALICE))
    house.alice = AccountId((await add_account(house.store, quota=1_000)).id)
    with pytest.raises(AdminError, match="stopped after 0 messages: over quota"):
        await house.recall(mailbox="Archive")
    assert (await house.recall(mailbox="INBOX")).restored == 2
