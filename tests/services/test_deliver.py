"""The local target: each recipient's own outcome."""

from fumibako.model.account import AccountStatus
from fumibako.model.ops import AddAccount, RemoveAccount, SetAccountStatus
from fumibako.model.queue import OutcomeKind
from fumibako.store.sqlite import engine as engine_module
from tests.services.test_queue import enqueue
from tests.support.mailhouse import NO_PASSWORD, MailHouse


async def outcomes(house: MailHouse) -> dict[str, tuple[str, str]]:
    """What one round recorded, by recipient."""
    await house.runner().step()
    return {fields["recipient"]: (kind, fields["status"]) for _, kind, fields in house.trace.events if "recipient" in fields}


async def test_every_recipient_has_an_outcome_of_its_own(house: MailHouse) -> None:
    for address in ("small", "off", "moving", "gone"):
        await house.store.commit(AddAccount(f"{address}@example.jp", NO_PASSWORD, 50 if address == "small" else 0))
    await house.store.commit(SetAccountStatus("off@example.jp", AccountStatus.DISABLED))
    await house.store.commit(SetAccountStatus("moving@example.jp", AccountStatus.FROZEN))
    await enqueue(house, "alice@example.jp", "small@example.jp", "off@example.jp", "moving@example.jp", "gone@example.jp",
                  "carol@example.org", "postmaster", reverse_path="")
    await house.store.commit(RemoveAccount("gone@example.jp"))
    assert await outcomes(house) == {
        "alice@example.jp": (OutcomeKind.DELIVERED, "2.1.5"),
        "small@example.jp": (OutcomeKind.DEFERRED, "4.2.2"),
        "off@example.jp": (OutcomeKind.FAILED, "5.2.1"),
        "moving@example.jp": (OutcomeKind.DEFERRED, "4.2.1"),
        "gone@example.jp": (OutcomeKind.FAILED, "5.1.1"),
        "carol@example.org": (OutcomeKind.DELIVERED, "2.1.5"),
        "postmaster": (OutcomeKind.DELIVERED, "2.1.5"),
    }
    assert len(await house.mailbox("alice@example.jp")) == 1       # hers, and postmaster's: one key
    assert len(await house.mailbox("carol@example.org")) == 1


async def test_a_body_in_a_file(house: MailHouse, monkeypatch) -> None:
    import tests.services.test_queue as queue_tests
    message = queue_tests.MESSAGE + (b"0123456789" * 7 + b"\r\n") * 6000
    monkeypatch.setattr(queue_tests, "MESSAGE", message)
    await house.store.commit(AddAccount("small@example.jp", NO_PASSWORD, 50))
    await enqueue(house, "alice@example.jp", "bob@example.jp", "small@example.jp", reverse_path="")
    found = await outcomes(house)
    assert found["alice@example.jp"] == found["bob@example.jp"] == (OutcomeKind.DELIVERED, "2.1.5")
    assert found["small@example.jp"] == (OutcomeKind.DEFERRED, "4.2.2")
    assert (await house.mailbox("bob@example.jp"))[0].endswith(message)


async def test_a_body_in_a_file_for_two_shards(house: MailHouse, monkeypatch) -> None:
    """The second shard found the spooled body used up by the first, and its recipients waited for the end of the lease."""
    import tests.services.test_queue as queue_tests
    message = queue_tests.MESSAGE + (b"0123456789" * 7 + b"\r\n") * 6000
    monkeypatch.setattr(queue_tests, "MESSAGE", message)
    monkeypatch.setattr(engine_module, "SHARD_ACCOUNTS", 3)
    await house.store.commit(AddAccount("dave@example.jp", NO_PASSWORD))
    assert (await house.account("dave@example.jp")).shard > (await house.account("alice@example.jp")).shard
    await enqueue(house, "alice@example.jp", "dave@example.jp", reverse_path="")
    assert await outcomes(house) == dict.fromkeys(("alice@example.jp", "dave@example.jp"), (OutcomeKind.DELIVERED, "2.1.5"))
    assert (await house.mailbox("alice@example.jp"))[0].endswith(message)
    assert (await house.mailbox("dave@example.jp"))[0].endswith(message)
