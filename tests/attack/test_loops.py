"""Reliability A19 and A20: mail that goes round comes to an end, and nobody is written to who has not written to us."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fumibako.model.account import Account
from fumibako.model.ops import AddAccount, AddDomain
from fumibako.model.queue import Outcome, OutcomeKind, QueuedRecipient, QueueItem
from fumibako.proto.smtp.reply import Reply
from fumibako.proto.smtp.transparency import DotWriter
from fumibako.services.checks.loop import HOPS_MAX
from tests.support.mailhouse import MESSAGE, NO_PASSWORD, MailHouse, mail_house

FORGED_AS = "victim@innocent.example"


class NextDoor:
    """A relay target that hands mail over the way two servers do: a session, a transaction, a reply."""

    def __init__(self, house: MailHouse) -> None:
        self.house, self.handed_over = house, 0
        self.other = house

    async def deliver(self, item: QueueItem, recipients: tuple[QueuedRecipient, ...]) -> dict[int, Outcome]:
        self.handed_over += 1
        async with self.other.connected(peer="198.51.100.25") as client:
            await client.ask("EHLO mail.example.jp")
            replies = [await client.ask(f"MAIL FROM:<{item.envelope.reverse_path}>")]
            replies += [await client.ask(f"RCPT TO:<{one.forward_path}>") for one in recipients]
            if all(reply.startswith("250") for reply in replies):
                await client.ask("DATA")
                writer = DotWriter()
                await client.send(writer.feed(await self.house.queued_octets(item)) + writer.close())
                replies.append(await client.reply())
        reply = Reply.of(replies[-1])
        kind = OutcomeKind.RELAYED if reply.is_positive else OutcomeKind.DEFERRED if reply.is_transient else OutcomeKind.FAILED
        return {one.id: Outcome(kind, str(reply.status), "", str(reply), "next.door") for one in recipients}

    async def close_idle(self) -> None: ...


@pytest.fixture
async def neighbours(tmp_path: Path) -> AsyncIterator[tuple[MailHouse, MailHouse]]:
    """Two houses, one hosting here.example, the other there.example; each relays to the other."""
    async with mail_house(tmp_path / "here") as here, mail_house(tmp_path / "there") as there:
        for house, other, domain in ((here, there, "here.example"), (there, here, "there.example")):
            await house.store.commit(AddDomain(domain))
            house.relay = NextDoor(house)
            house.relay.other = other
        yield here, there


async def until_quiet(*houses: MailHouse) -> int:
    """Lets all queues run until they are empty; how many rounds that took. Each takes a second of the clocks."""
    runners = [house.runner() for house in houses]
    for count in range(1, 200):
        for house, runner in zip(houses, runners, strict=True):
            await runner.step()
            house.clock.advance(1)
        if not any([await house.queued() for house in houses]):
            return count
    raise AssertionError("the queues never came to rest")


def hand_overs(*houses: MailHouse) -> int:
    return sum(house.relay.handed_over for house in houses)


@pytest.mark.parametrize(("reverse_path", "notices"), [("alice@example.jp", 1), ("", 0), ("ring@here.example", 0)])
async def test_two_houses_that_forward_to_each_other(
    neighbours: tuple[MailHouse, MailHouse], reverse_path: str, notices: int
) -> None:
    """At most 50 hops, at most one notice; a ring that is its own sender ends as well."""
    here, there = neighbours
    await here.alias("ring@here.example", "ring@there.example")
    await there.alias("ring@there.example", "ring@here.example")
    _, replies = await here.receive("ring@here.example", reverse_path=reverse_path)
    assert not replies[0].refused
    await until_quiet(here, there)
    mailed = [one for house in neighbours for one in await house.mailbox("alice@example.jp")]
    assert len(mailed) == notices
    assert all(b"5.4.6" in one for one in mailed)
    # The notice to ring@here.example goes round too, once, with the null reverse_path, and ends without another;
    # its first hop is the one that wrote it.
    assert hand_overs(here, there) <= (2 * HOPS_MAX + 1 if reverse_path.startswith("ring") else HOPS_MAX)
    assert hand_overs(here, there) >= HOPS_MAX - 2


async def test_a_ring_of_many_mouths_does_not_multiply(neighbours: tuple[MailHouse, MailHouse]) -> None:
    """Aliases that each name two addresses next door: recipients of one message stay one, however they fan out."""
    here, there = neighbours
    for house, domain, other in ((here, "here.example", "there.example"), (there, "there.example", "here.example")):
        for name in ("one", "two"):
            await house.alias(f"{name}@{domain}", f"one@{other}", f"two@{other}")
    await here.receive("one@here.example", "two@here.example", reverse_path="alice@example.jp")
    await until_quiet(here, there)
    assert hand_overs(here, there) <= HOPS_MAX
    assert len([one for house in neighbours for one in await house.mailbox("alice@example.jp")]) <= 1


async def test_an_alias_to_itself_takes_nothing(house: MailHouse) -> None:
    await house.alias("a@example.jp", "b@example.jp")
    await house.alias("b@example.jp", "a@example.jp")
    await house.alias("c@example.jp", "c@example.jp")
    for address in ("a@example.jp", "b@example.jp", "c@example.jp"):
        [verdict], done = await house.receive(address)
        assert verdict.refused and str(verdict.status) == "5.4.6" and not done
    assert await house.queued() == []


async def test_an_alias_named_again_and_again(house: MailHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """B12: a thousand RCPTs of an alias of many people are one expansion, one copy of the list, and one mail for each."""
    people = [f"p{number}@example.jp" for number in range(40)]
    for address in people:
        await house.store.commit(AddAccount(address, NO_PASSWORD))
    await house.alias("all@example.jp", *people)
    asked, account = [], house.store.account

    async def counted(address: str) -> Account | None:
        asked.append(address)
        return await account(address)

    monkeypatch.setattr(house.store, "account", counted)
    async with house.connected() as client:
        await client.ask("EHLO c")
        await client.ask("MAIL FROM:<>")
        for number in range(300):
            path = "all@example.jp" if number % 2 else "ALL@Example.JP"
            assert (await client.ask(f"RCPT TO:<{path}>")).startswith("250 2.1.5")
        assert len(asked) <= 2 * len(people)
        await client.ask("DATA")
        await client.send(MESSAGE + b".\r\n")
        assert (await client.reply()).startswith("250 2.0.0")
    assert [len(await house.mailbox(address)) for address in people] == [1] * len(people)


@pytest.mark.parametrize("field", [b"Received: from a by b;\r\n", b"RECEIVED:x\r\n", b"received: a\r\n b\r\n c\r\n"])
async def test_the_fiftieth_hop(house: MailHouse, field: bytes) -> None:
    """However the field is spelled; fields that only begin like it don't count."""
    for count, refused in ((HOPS_MAX - 1, False), (HOPS_MAX, True), (5 * HOPS_MAX, True)):
        _, [verdict] = await house.receive("alice@example.jp", message=field * count + MESSAGE)
        assert verdict.refused is refused and (not refused or str(verdict.status) == "5.4.6"), count
    _, [verdict] = await house.receive("alice@example.jp", message=b"Received-SPF: none\r\nX-Received: x\r\n" * 60 + MESSAGE)
    assert not verdict.refused
    assert len(await house.mailbox("alice@example.jp")) == 2


# A20


async def test_forged_senders_hear_nothing(house: MailHouse) -> None:
    """Unknown, elsewhere, disabled: refused at RCPT, while the true sender is on the line; so no notice is ever due."""
    unknown = ["nobody@example.jp", "alice+x@example.jp", "ALICE.@example.jp", "x@elsewhere.example", '"alice "@example.jp']
    for number in range(40):
        async with house.connected(peer=f"198.51.100.{number + 1}") as client:
            await client.ask("EHLO c")
            assert (await client.ask(f"MAIL FROM:<{FORGED_AS}>")).startswith("250")
            for recipient in unknown:
                assert (await client.ask(f"RCPT TO:<{recipient}>")).startswith(("550 5.1.1", "550 5.7.1")), recipient
            assert (await client.ask("DATA")).startswith("503")
    assert await house.queued() == []
    assert house.relay.delivered == []


BAD_MESSAGES = {
    "loop": b"Received: x\r\n" * 60 + MESSAGE, "bare": b"a\nb\r\n", "nul": b"a\0\r\n",
    "header": b"X: " + b"y" * 300_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("message", BAD_MESSAGES.values(), ids=BAD_MESSAGES)
async def test_a_refused_message_is_refused_to_its_face(house: MailHouse, message: bytes) -> None:
    async with house.connected() as client:
        await client.ask("EHLO c")
        assert (await client.mail("alice@example.jp", reverse_path=FORGED_AS, message=message))[-1].startswith("5")
    await house.runner().step()
    assert await house.queued() == [] and house.relay.delivered == []


async def test_mail_without_a_sender_is_never_answered(house: MailHouse) -> None:
    """What failed with the null reverse_path, a notice among them, is gone without a word."""
    gone = Outcome(OutcomeKind.FAILED, "5.1.1", "no such user", "550 5.1.1 no such user", "mx")
    await house.alias("away@example.jp", "gone@elsewhere.example")
    house.relay.outcomes = {"gone@elsewhere.example": [gone], FORGED_AS: [gone]}
    for reverse_path, handed_over in (("", 1), (FORGED_AS, 2)):
        house.relay.delivered.clear()
        await house.receive("away@example.jp", reverse_path=reverse_path)
        await until_quiet(house)
        # A sender elsewhere gets one notice; that it fails is told to nobody.
        assert len(house.relay.delivered) == handed_over
    assert house.relay.delivered[-1] == ("", (FORGED_AS,))
    assert await house.mailbox("alice@example.jp") == []
