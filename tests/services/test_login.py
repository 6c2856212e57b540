"""Who gets in, who does not, and how long guessing takes."""

import asyncio
import re

import pytest

from fumibako.model.account import Account, AccountStatus
from fumibako.model.ops import SetAccountStatus, SetPassword
from fumibako.proto.sasl.scram import ScramClient
from fumibako.services import login as login_module
from fumibako.services.login import Denied, Unavailable, make_password, make_password_record
from tests.support.mailhouse import MailHouse

OUTSIDE, EXEMPT = "203.0.113.5", "127.0.0.1"


@pytest.fixture
async def dora(house: MailHouse) -> Account:
    return await house.with_password("dora@example.jp", "correct horse")


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The PHC strings that passwords were compared with."""
    seen: list[str] = []
    verify = login_module._verify

    def counted(secret: bytes, phc: str) -> bool:
        seen.append(phc)
        return verify(secret, phc)

    monkeypatch.setattr(login_module, "_verify", counted)
    return seen


async def test_right_and_wrong(house: MailHouse, dora: Account) -> None:
    for authcid in ("dora@example.jp", "DORA@example.jp", " dora@example.jp ", "ｄｏｒａ＠example.jp"):
        assert await house.login.check(authcid, "correct horse", EXEMPT) == dora, authcid
    for authcid, password in (("dora@example.jp", "Correct horse"), ("dora@example.jp", ""), ("nobody@example.jp", "x"),
                              ("", "x"), ("dora", "correct horse"), ("dora@example.jp", "correct\0horse")):
        assert await house.login.check(authcid, password, EXEMPT) == Denied(), (authcid, password)


async def test_the_same_work_for_unknown_users_and_wrong_passwords(house: MailHouse, dora: Account, hashes: list[str]) -> None:
    """Reliability D1: no timing tells whether an address exists."""
    await house.login.check("nobody@example.jp", "x", EXEMPT)
    await house.login.check("dora@example.jp", "x", EXEMPT)
    assert len(hashes) == 2
    assert [re.sub(r"\$[^$]*\$[^$]*\Z", "", phc) for phc in hashes] == ["$argon2id$v=19$m=19456,t=2,p=1"] * 2
    assert [len(phc) for phc in hashes] == [len(hashes[0])] * 2


async def test_a_success_is_remembered_for_five_minutes(house: MailHouse, dora: Account, hashes: list[str]) -> None:
    for _ in range(3):
        assert await house.login.check("dora@example.jp", "correct horse", EXEMPT) == dora
    assert len(hashes) == 1
    assert await house.login.check("dora@example.jp", "wrong", EXEMPT) == Denied()
    house.clock.advance(301)
    await house.login.check("dora@example.jp", "correct horse", EXEMPT)
    assert len(hashes) == 3


async def test_passwd_and_disable_hold_at_once(house: MailHouse, dora: Account) -> None:
    await house.login.check("dora@example.jp", "correct horse", EXEMPT)
    await house.store.commit(SetPassword("dora@example.jp", make_password_record("new", b"s" * 16, b"t" * 16)))
    assert await house.login.check("dora@example.jp", "correct horse", EXEMPT) == Denied()
    assert isinstance(await house.login.check("dora@example.jp", "new", EXEMPT), Account)
    await house.store.commit(SetAccountStatus("dora@example.jp", AccountStatus.DISABLED))
    assert await house.login.check("dora@example.jp", "new", EXEMPT) == Denied()
    await house.store.commit(SetAccountStatus("dora@example.jp", AccountStatus.FROZEN))
    assert isinstance(await house.login.check("dora@example.jp", "new", EXEMPT), Unavailable)


async def guess(house: MailHouse, authcid: str, address: str = OUTSIDE) -> Account | Denied | Unavailable:
    """A wrong password, with time going on for as long as the answer is held back."""
    task = asyncio.ensure_future(house.login.check(authcid, "wrong", address))
    while not task.done():
        await asyncio.sleep(0)
        if house.clock.next_wake_s is not None:
            house.clock.advance(house.clock.next_wake_s)
    return task.result()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses that need no real hash."""
    monkeypatch.setattr(login_module, "_verify", lambda secret, phc: secret == b"correct horse" and "YWFh" in phc)


async def test_guessing_gets_slower(house: MailHouse, dora: Account, quick: None) -> None:
    """Reliability D2: a second more each time, from the 4th failure on."""
    waits = []
    for _ in range(20):
        began = house.clock.monotonic_s()
        assert await guess(house, "dora@example.jp") == Denied()
        waits.append(house.clock.monotonic_s() - began)
    assert waits == [0, 0, 0, *range(1, 16), 15, 15]


async def test_guesses_side_by_side_all_count(house: MailHouse, dora: Account, quick: None) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(house.login.check("dora@example.jp", f"x{number}", OUTSIDE)) for number in range(12)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            if house.clock.next_wake_s is not None:
                house.clock.advance(house.clock.next_wake_s)
    refused = Unavailable("too many failed logins, try again later")
    assert sorted(map(repr, (task.result() for task in tasks))) == sorted(map(repr, [Denied()] * 10 + [refused] * 2))
    assert isinstance(await house.login.check("dora@example.jp", "correct horse", "203.0.113.6"), Account)


async def test_the_known_device_is_not_held_up_by_a_spray(house: MailHouse, dora: Account, quick: None) -> None:
    assert await house.login.check("dora@example.jp", "correct horse", OUTSIDE) == dora
    house.clock.advance(301)
    answers = [await guess(house, "dora@example.jp", f"198.51.100.{number}") for number in range(40)]
    assert answers == [Denied()] * 30 + [Unavailable("too many failed logins, try again later")] * 10
    assert await house.login.check("dora@example.jp", "correct horse", OUTSIDE) == dora


async def test_logins_that_succeed_are_not_counted(house: MailHouse, dora: Account, quick: None) -> None:
    for _ in range(50):
        assert await house.login.check("dora@example.jp", "correct horse", OUTSIDE) == dora
        house.clock.advance(0.001)
        house.login._remembered._entries.clear()


async def test_a_storm_of_logins_is_bounded(house: MailHouse, dora: Account, quick: None) -> None:
    """Reliability D5: two hashes at a time, 64 wait, the rest is told to come back."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(house.login.check("dora@example.jp", f"x{number}", EXEMPT)) for number in range(200)]
    answers = [task.result() for task in tasks]
    assert set(answers) <= {Denied(), Unavailable("too many logins at once")}
    assert Denied() in answers


async def scram(house: MailHouse, authcid: str, password: str) -> object:
    exchange = house.login.exchange("SCRAM-SHA-256", EXEMPT)
    client = ScramClient("SCRAM-SHA-256", authcid, password, b"fyko+d2lbbFgONRv9qkxdawL")
    answer = await exchange.step(client.step(None))
    while isinstance(answer, bytes):
        answer = await exchange.step(client.step(answer))
    return answer


async def test_scram(house: MailHouse, dora: Account) -> None:
    assert await scram(house, "dora@example.jp", "correct horse") == dora
    assert await scram(house, "dora@example.jp", "wrong") == Denied()
    assert await scram(house, "nobody@example.jp", "wrong") == Denied()
    keys = await house.login.scram_keys("nobody@example.jp", EXEMPT)
    assert keys == await house.login.scram_keys("nobody@example.jp", EXEMPT)
    assert (keys.iterations, len(keys.salt)) == (dora_keys := (login_module.SCRAM_ITERATIONS, 16)), dora_keys


@pytest.mark.parametrize(("mechanism", "messages", "expected"), [
    ("PLAIN", [b"\0dora@example.jp\0correct horse"], "dora@example.jp"),
    ("PLAIN", [None, b"dora@example.jp\0dora@example.jp\0correct horse"], "dora@example.jp"),
    ("PLAIN", [b"alice@example.jp\0dora@example.jp\0correct horse"], Denied()),
    ("PLAIN", [b"\0dora@example.jp\0wrong"], Denied()),
    ("PLAIN", [b"nonsense"], Denied(malformed=True)),
    ("LOGIN", [None, b"dora@example.jp", b"correct horse"], "dora@example.jp"),
])
async def test_mechanisms(
    house: MailHouse, dora: Account, mechanism: str, messages: list[bytes | None], expected: object
) -> None:
    exchange = house.login.exchange(mechanism, EXEMPT)
    *earlier, last = messages
    for message in earlier:
        assert isinstance(await exchange.step(message), bytes)
    answer = await exchange.step(last)
    assert (answer.address if isinstance(answer, Account) else answer) == expected


async def test_a_record_is_made_whole(house: MailHouse) -> None:
    record = await make_password("pass word", house.offload, house.clock)
    assert record.argon2id.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert record.scram_iterations >= 4096 and len(record.scram_salt) == 16
    with pytest.raises(ValueError, match=r"\S"):
        await make_password("", house.offload, house.clock)
