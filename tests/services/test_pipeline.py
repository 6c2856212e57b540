"""What follows from findings: the whole table, and that nothing decides twice."""

import dataclasses

import pytest

from fumibako.model.envelope import Peer
from fumibako.model.verdict import Action, Finding, Verdict
from fumibako.services.checks import Facts, MessageFacts
from fumibako.services.directory import Absence, Nobody, Remote
from fumibako.services.pipeline import PIPELINE, RULES, Stage, explain, look, refuse, verdict
from fumibako.services.policy import Policy
from tests.support.mailhouse import MailHouse

FACTS = {"limit": "10", "seconds": "3", "address": "a@b", "hops": "50"}

TABLE = {
    "message-too-big": ("reject", "5.3.4"),
    "header-too-big": ("reject", "5.3.4"),
    "too-fast": ("defer", "4.7.1"),
    "relaying-denied": ("reject", "5.7.1"),
    "no-such-mailbox": ("reject", "5.1.1"),
    "mailbox-disabled": ("reject", "5.2.1"),
    "mailbox-frozen": ("defer", "4.2.1"),
    "alias-loop": ("reject", "5.4.6"),
    "bad-address": ("reject", "5.1.3"),
    "mailbox-full": ("defer", "4.2.2"),
    "bare-newline": ("reject", "5.5.2"),
    "nul-octet": ("reject", "5.6.0"),
    "mail-loop": ("reject", "5.4.6"),
    "sender-not-owned": ("reject", "5.7.1"),
    "one-from-field": ("reject", "5.6.0"),
    "system-full": ("defer", "4.3.1"),
    "system-error": ("defer", "4.3.0"),
}


def finding(explanation: str) -> Finding:
    return Finding("test", explanation, tuple(FACTS.items()))


def test_every_finding_has_its_row() -> None:
    found = {}
    for explanation in RULES:
        one = verdict([finding(explanation)])
        found[explanation] = (str(one.action), str(one.status))
    assert found == TABLE


def test_nothing_found_is_accepted() -> None:
    assert verdict([]) == Verdict(Action.ACCEPT)
    assert not verdict([]).refused


def test_the_most_severe_decides_and_all_are_kept() -> None:
    both = verdict([finding("too-fast"), finding("no-such-mailbox")])
    assert str(both.status) == "5.1.1"
    assert [one.explanation for one in both.findings] == ["no-such-mailbox", "too-fast"]
    assert both == verdict([finding("no-such-mailbox"), finding("too-fast")])


def test_a_verdict_and_its_status_agree() -> None:
    with pytest.raises(ValueError, match="does not go with"):
        dataclasses.replace(Verdict(), action=Action.REJECT)


@pytest.mark.parametrize("explanation", sorted(RULES))
def test_every_finding_is_explained_in_both_languages(explanation: str) -> None:
    japanese, english = explain(finding(explanation), "ja"), explain(finding(explanation), "en")
    assert not japanese.isascii()
    assert english.isascii()
    assert "{" not in japanese + english


def test_refuse_fills_its_text() -> None:
    assert refuse("sender-not-owned", address="x@y").text == "you may not send as x@y"


async def test_stages_in_order(house: MailHouse) -> None:
    stranger = Facts(Peer("198.51.100.1"), Policy(), house.store, house.clock)
    assert not (await look(Stage.SENDER, stranger)).refused
    told = await look(Stage.RECIPIENT, dataclasses.replace(stranger, recipient=Remote("x@example.com")))
    assert str(told.status) == "5.7.1"
    login = dataclasses.replace(stranger, peer=Peer("198.51.100.1", account_id=1), recipient=Remote("x@example.com"))
    assert not (await look(Stage.RECIPIENT, login)).refused
    assert (await look(Stage.RECIPIENT, dataclasses.replace(login, recipient=Nobody(Absence.FROZEN)))).action is Action.DEFER
    message = MessageFacts(1, hops=99, bare_newline=True)
    first = await look(Stage.MESSAGE, dataclasses.replace(stranger, message=message))
    assert [one.explanation for one in first.findings] == ["bare-newline"]      # a refusal ends the look
    assert set(PIPELINE) == set(Stage)


async def test_a_declared_size_beyond_the_limit(house: MailHouse) -> None:
    await house.set("limits.message_size", "1M")
    facts = Facts(Peer("127.0.0.1"), await house.receiver.policy(), house.store, house.clock, declared_octets=1_048_577)
    assert str((await look(Stage.SENDER, facts)).status) == "5.3.4"
    assert not (await look(Stage.SENDER, dataclasses.replace(facts, declared_octets=1_048_576))).refused


async def test_a_flood_from_one_address_is_slowed_down(house: MailHouse) -> None:
    facts = Facts(Peer("2001:db8::1"), Policy(), house.store, house.clock)
    told = [await look(Stage.SENDER, facts) for _ in range(601)]
    assert [one.refused for one in told] == [False] * 600 + [True]
    neighbour = dataclasses.replace(facts, peer=Peer("2001:db8::ffff"))
    assert (await look(Stage.SENDER, neighbour)).text == "too much mail at once, try again in 1 seconds"
    assert not (await look(Stage.SENDER, dataclasses.replace(facts, peer=Peer("2001:db8:0:1::1")))).refused
    assert not (await look(Stage.SENDER, dataclasses.replace(facts, peer=Peer("127.0.0.1")))).refused
    house.clock.advance(60)
    assert not (await look(Stage.SENDER, facts)).refused


async def test_a_login_that_sends_to_thousands(house: MailHouse) -> None:
    facts = Facts(Peer("203.0.113.1", account_id=7), Policy(), house.store, house.clock, recipient=Remote("x@example.com"))
    told = [(await look(Stage.RECIPIENT, facts)).refused for _ in range(2_001)]
    assert told == [False] * 2_000 + [True]
