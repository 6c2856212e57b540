"""Reliability D1 and D5: an answer to a login tells nothing but yes or no, and a storm of logins costs two hashes at a time."""

import asyncio
import threading
from base64 import b64encode
from collections.abc import Iterator

import pytest

from fumibako.model.account import Account, AccountStatus
from fumibako.model.ops import SetAccountStatus
from fumibako.net.offload import PASSWORD_QUEUE, PASSWORD_THREADS
from fumibako.proto.sasl.scram import ScramClient
from fumibako.services import login as login_module
from fumibako.services.login import Denied, Unavailable
from tests.attack.measure import MIB, measured
from tests.attack.wire import Wire, conversing
from tests.support.mailhouse import MailHouse

DORA, PASSWORD = "dora@example.jp", "secret words"
EXEMPT = "127.0.0.1"        # no rate limit hides what is looked at here
# Nobody, somebody, somebody whose account is off (with the right password too), and names that can't be.
STRANGERS = [("nobody@example.jp", "x"), (DORA, "x"), ("disabled@example.jp", "x"), ("disabled@example.jp", PASSWORD),
             ("nobody@elsewhere.example", "x"), ("alice@example.jp", "x"), ("@", "x"), (DORA, "secret words "),
             (DORA, "Secret words")]
REFUSALS = {
    "submission": b"535 5.7.8 Authentication credentials invalid\r\n",
    "imap": b"a NO [AUTHENTICATIONFAILED] Wrong user name or password\r\n",
    "pop3": b"-ERR [AUTH] Wrong user name or password\r\n",
}


def plain(authcid: str, password: str, authzid: str = "") -> bytes:
    return b64encode(f"{authzid}\0{authcid}\0{password}".encode())


async def log_in(wire: Wire, name: str, authcid: str, password: str, *, way: str = "plain") -> bytes:
    """The answer to one attempt. way: "plain" and "foreign" are SASL PLAIN, "own" is the protocol's own command."""
    octets = plain(authcid, password, "alice@example.jp" if way == "foreign" else "")
    if name == "submission" and way == "own":
        await wire.ask(b"AUTH LOGIN")
        await wire.ask(b64encode(authcid.encode()))
        return await wire.ask(b64encode(password.encode()))
    if name == "submission":
        return await wire.ask(b"AUTH PLAIN " + octets)
    if name == "imap":
        own = f'a LOGIN "{authcid}" "{password}"'.encode()
        return await wire.ask(own if way == "own" else b"a AUTHENTICATE PLAIN " + octets)
    if way == "own":
        await wire.ask(b"USER " + authcid.encode())
        return await wire.ask(b"PASS " + password.encode())
    return await wire.ask(b"AUTH PLAIN " + octets)


async def ready(wire: Wire, name: str) -> None:
    if name == "submission":
        await wire.ask(b"EHLO c", b"CHUNKING\r\n")


@pytest.fixture
async def people(house: MailHouse) -> MailHouse:
    await house.with_password(DORA, PASSWORD)
    await house.with_password("disabled@example.jp", PASSWORD)
    await house.store.commit(SetAccountStatus("disabled@example.jp", AccountStatus.DISABLED))
    return house


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The records that passwords were compared with; the comparison itself costs nothing here."""
    seen: list[str] = []

    def counted(secret: bytes, phc: str) -> bool:
        seen.append(phc)
        return secret == PASSWORD.encode() and "YWFh" in phc      # the salt of mailhouse's records

    monkeypatch.setattr(login_module, "_verify", counted)
    return seen


@pytest.mark.parametrize("way", ["plain", "own", "foreign"])
@pytest.mark.parametrize("name", REFUSALS)
async def test_one_answer_and_one_hash_for_whoever_is_refused(people: MailHouse, name: str, way: str, hashes: list[str]) -> None:
    """The same octets, after the same work. "foreign": an authzid of somebody else must not spare the hash."""
    for authcid, password in STRANGERS:
        before = len(hashes)
        async with conversing(people, name, peer=EXEMPT) as wire:
            await ready(wire, name)
            assert await log_in(wire, name, authcid, password, way=way) == REFUSALS[name], (authcid, password)
        assert len(hashes) - before == 1, (authcid, password)
    async with conversing(people, name, peer=EXEMPT) as wire:
        await ready(wire, name)
        answer = await log_in(wire, name, DORA, PASSWORD, way=way)
        assert answer.startswith((b"235", b"a OK", b"+OK")) != (way == "foreign")
        assert way != "foreign" or answer == REFUSALS[name]


async def test_one_wait_for_whoever_is_refused(people: MailHouse, hashes: list[str]) -> None:
    """From the fourth failure on the answer is held back, whoever was asked for and however."""
    waits = []
    for number, (authcid, password) in enumerate([(DORA, "x"), ("nobody@example.jp", "x"), ("disabled@example.jp", PASSWORD)]):
        address = f"203.0.113.{number}"
        held = []
        for _ in range(6):
            task = asyncio.ensure_future(people.login.check(authcid, password, address))
            began = people.clock.monotonic_s()
            while not task.done():
                await asyncio.sleep(0)
                if people.clock.next_wake_s is not None:
                    people.clock.advance(people.clock.next_wake_s)
            assert task.result() == Denied()
            held.append(people.clock.monotonic_s() - began)
        waits.append(held)
    assert waits == [[0, 0, 0, 1, 2, 3]] * 3


async def test_scram_answers_for_nobody_as_for_somebody(people: MailHouse) -> None:
    """The same salt at every attempt, as many iterations, and the refusal at the same step."""
    firsts = {}
    for authcid in (DORA, "nobody@example.jp", "nobody@elsewhere.example", "disabled@example.jp"):
        for attempt in range(2):
            exchange = people.login.exchange("SCRAM-SHA-256", EXEMPT)
            client = ScramClient("SCRAM-SHA-256", authcid, "x", b"fyko+d2lbbFgONRv9qkxdawL")
            first = await exchange.step(client.step(None))
            assert isinstance(first, bytes)
            salted = first.partition(b",")[2]
            assert firsts.setdefault(authcid, salted) == salted, attempt
            assert await exchange.step(client.step(first)) == Denied()
    assert len({(len(salted), salted.rpartition(b",")[2]) for salted in firsts.values()}) == 1


# D5


class Gate:
    """Hashes that wait until they are let go, and how many were under way at once."""

    def __init__(self) -> None:
        self.open, self.full = threading.Event(), threading.Event()
        self.running = self.most = self.done = 0
        self._lock = threading.Lock()

    def verify(self, secret: bytes, _: str) -> bool:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
            if self.running == PASSWORD_THREADS:
                self.full.set()
        self.open.wait(20)
        with self._lock:
            self.running -= 1
            self.done += 1
        return secret == PASSWORD.encode()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    monkeypatch.setattr(login_module, "_verify", made.verify)
    yield made
    made.open.set()


async def test_five_hundred_logins_at_once(people: MailHouse, gate: Gate) -> None:
    """Two are hashed, 64 wait, the rest hears at once that it should come back; nothing grows with the storm."""
    assert (PASSWORD_THREADS, PASSWORD_QUEUE) == (2, 64)
    with measured() as memory:
        tasks = [asyncio.ensure_future(people.login.check(f"user{number}@example.jp", "x", EXEMPT)) for number in range(500)]
        async with asyncio.timeout(20):
            while sum(task.done() for task in tasks) < 500 - 66:
                await asyncio.sleep(0)
        assert await asyncio.get_running_loop().run_in_executor(None, gate.full.wait, 10)
        answers = [task.result() for task in tasks if task.done()]
        assert answers == [Unavailable("too many logins at once")] * (500 - 66)
        gate.open.set()
        assert [await task for task in tasks if task not in answers].count(Denied()) == 66
    assert (gate.most, gate.done) == (2, 66)
    assert memory.peak_octets < 8 * MIB


async def test_what_a_login_beyond_the_queue_is_told(people: MailHouse, gate: Gate) -> None:
    """Come back later, in each protocol's words; the connection stays, no failure is counted, and the storm's end ends it."""
    gate.open.set()
    assert isinstance(await people.login.check(DORA, PASSWORD, EXEMPT), Account)
    gate.open.clear()
    storm = [asyncio.ensure_future(people.login.check(f"user{number}@example.jp", "x", EXEMPT)) for number in range(66)]
    assert await asyncio.get_running_loop().run_in_executor(None, gate.full.wait, 10)
    while people.offload._passwords._places._value:         # all of the storm is in
        await asyncio.sleep(0)
    told = {"submission": b"454 4.7.0 too many logins at once\r\n", "imap": b"a NO [UNAVAILABLE] too many logins at once\r\n",
            "pop3": b"-ERR [SYS/TEMP] too many logins at once\r\n"}
    for name, answer in told.items():
        async with conversing(people, name, peer=EXEMPT) as wire:
            await ready(wire, name)
            for _ in range(5):
                assert await log_in(wire, name, "carol@example.org", "x") == answer
            # Who was here a moment ago needs no hash, so no storm keeps them out.
            assert (await log_in(wire, name, DORA, PASSWORD)).startswith((b"235", b"a OK", b"+OK"))
    gate.open.set()
    assert [await task for task in storm] == [Denied()] * 66
    assert gate.most == 2
    assert await people.login.check("carol@example.org", "x", EXEMPT) == Denied()


async def test_malformed_messages_cost_no_hash_and_nobody_else(people: MailHouse, gate: Gate) -> None:
    """A12: bad base64 is one client's own problem, and is over before any work begins."""
    good = asyncio.ensure_future(people.login.check(DORA, PASSWORD, EXEMPT))
    junk = [b"!!!!", b"A", b"AA", b"AAA", b"AGRvcmE=x", b"====", b"A" * 10_001, b"AGE\0YQ==", "ａｂｃ＝".encode()]
    for name, verb in (("submission", b"AUTH PLAIN "), ("imap", b"a AUTHENTICATE PLAIN "), ("pop3", b"AUTH PLAIN ")):
        for octets in junk:
            async with conversing(people, name, peer=EXEMPT) as wire:
                await ready(wire, name)
                answer = await wire.ask(verb + octets)
                assert answer.startswith((b"501 5.5.", b"500 5.5.2", b"a BAD", b"* BAD", b"-ERR")), (name, octets)
    assert not good.done()
    gate.open.set()
    assert isinstance(await good, Account)
    assert gate.done == 1
