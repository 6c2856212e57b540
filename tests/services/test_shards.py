"""Mail for accounts of several shards: one mailbox each, whatever the sender and the services believe about shards."""

import msgspec
import pytest

from fumibako.model.envelope import Envelope, Recipient
from fumibako.model.ops import AddAccount, Deliver, RemoveAccount
from fumibako.services.directory import Local
from fumibako.services.intake import Accepted, Framing, Transaction
from fumibako.services.policy import Policy
from fumibako.store.sqlite import engine as engine_module
from tests.support.mailhouse import MESSAGE, NO_PASSWORD, STRANGER, MailHouse

ONE_EACH = ("alice@example.jp", "dave@example.jp", "eve@example.jp")


@pytest.fixture(autouse=True)
async def three_shards(house: MailHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """alice, bob and carol live in the first one, dave in the second, eve in the third."""
    for address in ONE_EACH[1:]:
        monkeypatch.setattr(engine_module, "SHARD_ACCOUNTS", 1)
        await house.store.commit(AddAccount(address, NO_PASSWORD))
    assert [(await house.account(one)).shard for one in ONE_EACH] == [1, 2, 3]


async def counts(house: MailHouse) -> list[int]:
    return [len(await house.mailbox(one)) for one in ONE_EACH]


def watched(house: MailHouse, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many recipients each Deliver has from here on."""
    seen: list[int] = []
    commit = house.store.commit

    async def watching(operation):
        if isinstance(operation, Deliver):
            seen.append(len(operation.recipients))
        return await commit(operation)
    monkeypatch.setattr(house.store, "commit", watching)
    return seen


async def test_one_mail_for_three_shards_goes_through_the_queue(house: MailHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    _, [end] = await house.receive(*ONE_EACH, "bob@example.jp")
    assert not end.refused and await counts(house) == [0, 0, 0]
    deliveries = watched(house, monkeypatch)
    await house.runner().step()
    assert await counts(house) == [1, 1, 1] and len(await house.mailbox("bob@example.jp")) == 1
    assert sorted(deliveries) == [1, 1, 2]
    assert await house.queued() == []


async def test_lmtp_says_yes_to_each(house: MailHouse) -> None:
    _, ends = await house.receive(*ONE_EACH, lmtp=True)
    assert [end.refused for end in ends] == [False] * 3
    await house.runner().step()
    assert await counts(house) == [1, 1, 1]


async def test_a_forward_beside_two_shards_is_sent_once(house: MailHouse) -> None:
    await house.alias("info@example.jp", *ONE_EACH, "friend@example.com")
    await house.receive("info@example.jp")
    for _ in range(2):
        await house.runner().step()
    assert await counts(house) == [1, 1, 1]
    assert house.relay.delivered == [("bob@example.net", ("friend@example.com",))]


# -- what the services believe is wrong by the time of the commit --


async def opened(house: MailHouse, *recipients: str, lmtp: bool = False, wrong: bool = True) -> Transaction:
    """A transaction up to the end of its message; wrong: it believes that everybody lives in the first shard."""
    transaction = house.receiver.open(Policy(), STRANGER, Envelope("bob@example.net", ()), one_reply_each=lmtp)
    await transaction.begin()
    for one in recipients:
        await transaction.add_recipient(Recipient(one))
    if wrong:
        transaction.accepted = [
            Accepted(one.recipient, tuple(Local(msgspec.structs.replace(target.account, shard=1), target.address)
                                          for target in one.targets if isinstance(target, Local)))
            for one in transaction.accepted]
    transaction.write(MESSAGE)
    return transaction


async def test_an_account_that_moved_after_its_rcpt_still_gets_its_mail(house: MailHouse) -> None:
    [end] = await (await opened(house, *ONE_EACH)).finish(Framing(len(MESSAGE)))
    assert not end.refused
    await house.runner().step()
    assert await counts(house) == [1, 1, 1]


async def test_an_account_that_moved_after_its_rcpt_gets_it_by_lmtp_at_once(house: MailHouse) -> None:
    ends = await (await opened(house, *ONE_EACH, lmtp=True)).finish(Framing(len(MESSAGE)))
    assert [end.refused for end in ends] == [False] * 3
    assert await counts(house) == [1, 1, 1] and await house.queued() == []


async def test_an_account_that_moved_while_its_mail_is_in_hand(house: MailHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.receive(*ONE_EACH)
    account = house.store.account

    async def stale(address: str):
        found = await account(address)
        return found and msgspec.structs.replace(found, shard=1)
    monkeypatch.setattr(house.store, "account", stale)
    deliveries = watched(house, monkeypatch)
    await house.runner().step()
    assert await counts(house) == [1, 1, 1] and deliveries == [3, 1, 1, 1]
    assert await house.queued() == []


async def test_an_account_made_anew_in_another_shard_gets_what_was_for_its_address(house: MailHouse) -> None:
    transaction = await opened(house, "alice@example.jp", "bob@example.jp", wrong=False)
    await house.store.commit(RemoveAccount("alice@example.jp"))
    await house.store.commit(AddAccount("alice@example.jp", NO_PASSWORD))
    assert (await house.account("alice@example.jp")).shard == 4
    [end] = await transaction.finish(Framing(len(MESSAGE)))
    assert not end.refused
    await house.runner().step()
    assert len(await house.mailbox("alice@example.jp")) == len(await house.mailbox("bob@example.jp")) == 1
