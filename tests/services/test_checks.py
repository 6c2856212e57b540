"""Checks, one by one: what each finds, and that it decides nothing."""

import pytest

from fumibako.model.envelope import Peer
from fumibako.model.ops import AddAccount
from fumibako.services.checks import Check, Facts, MessageFacts, framing, loop, rate, relaying, size
from fumibako.services.directory import Absence, Hosted, Local, Nobody, Remote
from fumibako.services.policy import Policy
from tests.support.mailhouse import NO_PASSWORD, MailHouse

STRANGER, LOGIN, EXEMPT = Peer("198.51.100.1"), Peer("198.51.100.1", account_id=3), Peer("127.0.0.1")


async def found(check: Check, house: MailHouse, **facts: object) -> str:
    """The finding's explanation, "" for none."""
    finding = await check(Facts(**{"peer": STRANGER, "policy": Policy(), "store": house.store, "clock": house.clock, **facts}))
    return finding.explanation if finding else ""


@pytest.mark.parametrize(("check", "facts", "explanation"), [
    (framing.line_ends, MessageFacts(1), ""),
    (framing.line_ends, MessageFacts(1, bare_newline=True, nul=True), "bare-newline"),
    (framing.line_ends, MessageFacts(1, nul=True), "nul-octet"),
    (framing.line_ends, None, ""),
    (loop.hops, MessageFacts(1, hops=49), ""),
    (loop.hops, MessageFacts(1, hops=50), "mail-loop"),
    (loop.hops, None, ""),
    (size.message_size, MessageFacts(50 * 1024 * 1024), ""),
    (size.message_size, MessageFacts(50 * 1024 * 1024 + 1), "message-too-big"),
    (size.message_size, MessageFacts(1, too_big=True), "message-too-big"),
    (size.message_size, MessageFacts(1, header_cut=True), "header-too-big"),
    (size.message_size, None, ""),
])
async def test_of_the_message(house: MailHouse, check: Check, facts: MessageFacts | None, explanation: str) -> None:
    assert await found(check, house, message=facts) == explanation


async def test_relaying(house: MailHouse) -> None:
    alice = Hosted((Local(await house.account("alice@example.jp"), "alice@example.jp"),))
    elsewhere = Remote("x@example.com")
    assert await found(relaying.recipient, house, recipient=alice) == ""
    assert await found(relaying.recipient, house, recipient=elsewhere) == "relaying-denied"
    assert await found(relaying.recipient, house, recipient=elsewhere, peer=EXEMPT) == "relaying-denied"
    assert await found(relaying.recipient, house, recipient=elsewhere, peer=LOGIN) == ""
    assert await found(relaying.recipient, house, recipient=Hosted((elsewhere,))) == ""      # an alias may lead out
    assert [await found(relaying.recipient, house, recipient=Nobody(why), peer=LOGIN) for why in Absence] == [
        "no-such-mailbox", "mailbox-disabled", "mailbox-frozen", "alias-loop", "bad-address"]


async def test_room_in_the_mailbox(house: MailHouse) -> None:
    await house.store.commit(AddAccount("small@example.jp", NO_PASSWORD, 1_000))
    small = Hosted((Local(await house.account("small@example.jp"), "small@example.jp"),))
    assert await found(size.mailbox_space, house, recipient=small, declared_octets=1_000) == ""
    assert await found(size.mailbox_space, house, recipient=small, declared_octets=1_001) == "mailbox-full"
    assert await found(size.mailbox_space, house, recipient=small) == ""
    assert await found(size.mailbox_space, house, recipient=Remote("x@example.com"), declared_octets=9_999) == ""


async def test_rates_leave_out_who_is_exempt(house: MailHouse) -> None:
    for check, peer in ((rate.messages, EXEMPT), (rate.messages, LOGIN), (rate.messages, Peer("")), (rate.recipients, STRANGER),
                        (rate.recipients, Peer("::1", account_id=3))):
        assert {await found(check, house, peer=peer) for _ in range(2_100)} == {""}, (check, peer)


@pytest.mark.parametrize(("address", "block"), [
    ("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::/64"), ("2001:db8:0:0:ffff::1", "2001:db8::/64"), ("", ""), ("x", "x"),
])
def test_what_counts_as_one_peer(address: str, block: str) -> None:
    assert rate.address_block(address) == block
