"""Who an address is."""

import pytest

from fumibako.model.account import AccountStatus
from fumibako.model.ops import AddAccount, RemoveAccount, RemoveDomain, SetAccountStatus
from fumibako.services.directory import ALIAS_DEPTH, Absence, Hosted, Local, Nobody, Remote
from tests.support.mailhouse import NO_PASSWORD, MailHouse


async def targets(house: MailHouse, address: str) -> list[str] | str:
    """The targets' addresses, "elsewhere", or why nobody."""
    match await house.directory.resolve(address):
        case Hosted(found):
            return sorted(one.address if isinstance(one, Local) else f"->{one.address}" for one in found)
        case Remote():
            return "elsewhere"
        case Nobody(why):
            return str(why)


WHO: list[tuple[str, list[str] | str]] = [
    ("alice@example.jp", ["alice@example.jp"]),
    ("ALICE@EXAMPLE.JP", ["alice@example.jp"]),
    ('"alice"@example.jp', ["alice@example.jp"]),
    ("nobody@example.jp", "no such mailbox"),
    ("alice@example.com", "elsewhere"),
    ("alice@sub.example.jp", "elsewhere"),
    ("list@example.jp", ["alice@example.jp", "bob@example.jp", "->x@example.com"]),
    ("nested@example.jp", ["carol@example.org", "alice@example.jp", "bob@example.jp", "->x@example.com"]),
    ("partly@example.jp", ["bob@example.jp"]),
    ("dangling@example.jp", "no such mailbox"),
    ("loop1@example.jp", "alias loop"),
    ("anything@example.org", ["alice@example.jp"]),
    ("carol@example.org", ["carol@example.org"]),
    ("no-at-sign", "bad address"),
    ("", "bad address"),
    ("user%example.com@example.jp", "no such mailbox"),
    ("example.com!user@example.jp", "no such mailbox"),
    ('"user@example.com"@example.jp', "no such mailbox"),
    ("alice@[192.0.2.25]", "no such mailbox"),
    ("alice@[192.0.2.99]", "elsewhere"),
]


async def test_resolve(house: MailHouse) -> None:
    await house.alias("list@example.jp", "alice@example.jp", "Bob@example.jp", "x@example.com", "alice@example.jp")
    await house.alias("nested@example.jp", "carol@example.org", "list@example.jp", "nested@example.jp")
    await house.alias("partly@example.jp", "nobody@example.jp", "bob@example.jp")
    await house.alias("dangling@example.jp", "nobody@example.jp")
    await house.alias("loop1@example.jp", "loop2@example.jp")
    await house.alias("loop2@example.jp", "loop1@example.jp")
    await house.alias("@example.org", "alice@example.jp")
    found = [(address, await targets(house, address)) for address, _ in WHO]
    assert found == [(address, sorted(who) if isinstance(who, list) else who) for address, who in WHO]


async def test_aliases_are_followed_only_so_deep(house: MailHouse) -> None:
    for depth in range(ALIAS_DEPTH + 1):
        await house.alias(f"a{depth}@example.jp", f"a{depth + 1}@example.jp")
    await house.alias(f"a{ALIAS_DEPTH + 1}@example.jp", "alice@example.jp")
    assert await targets(house, "a0@example.jp") == str(Absence.ALIAS_LOOP)
    assert await targets(house, "a5@example.jp") == ["alice@example.jp"]


async def test_a_frozen_target_defers_the_whole_alias(house: MailHouse) -> None:
    await house.alias("both@example.jp", "alice@example.jp", "bob@example.jp")
    await house.store.commit(SetAccountStatus("bob@example.jp", AccountStatus.FROZEN))
    assert await targets(house, "both@example.jp") == str(Absence.FROZEN)
    await house.store.commit(SetAccountStatus("bob@example.jp", AccountStatus.DISABLED))
    assert await targets(house, "both@example.jp") == ["alice@example.jp"]


@pytest.mark.parametrize("address", ["postmaster", "Postmaster", "postmaster@example.jp", "PostMaster@example.jp",
                                     "abuse@example.jp", "postmaster@[192.0.2.25]"])
async def test_postmaster_always_reaches_somebody(house: MailHouse, address: str) -> None:
    """RFC 5321 §4.5.1, RFC 2142 §4."""
    assert await targets(house, address) == ["alice@example.jp"]
    await house.store.commit(SetAccountStatus("alice@example.jp", AccountStatus.DISABLED))
    assert await targets(house, address) == ["bob@example.jp"]
    await house.alias("postmaster@example.jp", "carol@example.org")
    await house.alias("abuse@example.jp", "carol@example.org")
    assert await targets(house, address) == ["carol@example.org"]


async def test_postmaster_of_another_domain_is_its_own(house: MailHouse) -> None:
    await house.alias("@example.org", "bob@example.jp")
    assert await targets(house, "postmaster@example.org") == ["carol@example.org"]
    assert await targets(house, "postmaster@example.com") == "elsewhere"


async def test_owns(house: MailHouse) -> None:
    await house.alias("list@example.jp", "bob@example.jp", "alice@example.jp")
    await house.alias("other@example.jp", "bob@example.jp")
    alice = await house.account("alice@example.jp")
    for address in ("alice@example.jp", "Alice@Example.jp", "list@example.jp"):
        assert await house.directory.owns(alice, address), address
    for address in ("bob@example.jp", "other@example.jp", "alice@example.com", "", "alice"):
        assert not await house.directory.owns(alice, address), address


async def test_a_bare_login_name_where_one_domain_is_hosted(house: MailHouse) -> None:
    assert await house.directory.account("alice") is None
    await house.store.commit(AddAccount("dave@example.jp", NO_PASSWORD))
    await house.store.commit(RemoveAccount("carol@example.org"))
    await house.store.commit(RemoveDomain("example.org"))
    found = await house.directory.account("dave")
    assert found is not None and found.address == "dave@example.jp"
    assert await house.directory.account("@") is None


async def test_the_server_may_be_called_otherwise_while_it_runs(house: MailHouse) -> None:
    house.directory.rename("Mail.Other.jp", frozenset({"198.51.100.1"}))
    assert await targets(house, "postmaster@[198.51.100.1]") == ["alice@example.jp"]
    assert await targets(house, "postmaster@[192.0.2.25]") != ["alice@example.jp"]
