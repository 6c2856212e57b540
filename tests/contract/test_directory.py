"""Domains, accounts, aliases, settings, secrets."""

import pytest

from fumibako.model.account import AccountStatus, Alias, Setting
from fumibako.model.change import Revoked
from fumibako.model.ops import (
    AddAccount,
    AddAlias,
    AddDomain,
    OpenAccount,
    Refusal,
    RemoveAccount,
    RemoveAlias,
    RemoveDomain,
    SetAccountStatus,
    SetPassword,
    SetSetting,
    UnsetSetting,
)
from fumibako.store.base import Store, StoreRefused
from tests.contract.building import PASSWORD, add_account, deliver


async def refusal(store: Store, operation: object) -> Refusal:
    with pytest.raises(StoreRefused) as refused:
        await store.commit(operation)
    return refused.value.refusal


CHANGES = [
    AddDomain("example.jp"), AddAccount("alice@example.jp", PASSWORD), SetPassword("alice@example.jp", PASSWORD),
    SetAccountStatus("alice@example.jp", AccountStatus.DISABLED), AddAlias("info@example.jp", ("alice@example.jp",)),
    RemoveAlias("info@example.jp"), RemoveAccount("alice@example.jp"), SetSetting("a.key", "", "1"), UnsetSetting("a.key", ""),
    RemoveDomain("example.jp"),
]


async def test_the_version_rises_with_each_change_and_else_stays(store: Store) -> None:
    versions = [store.directory_version()]
    for operation in CHANGES:
        await store.commit(operation)
        versions.append(store.directory_version())
        await store.domains(), await store.settings()
        assert store.directory_version() == versions[-1]
    assert versions == sorted(set(versions)), [type(operation).__name__ for operation in CHANGES]
    await store.secret("thread")
    assert store.directory_version() > versions[-1]


async def test_what_leaves_the_directory_alone_leaves_its_version(store: Store) -> None:
    alice = await add_account(store)
    version = store.directory_version()
    await deliver(store, 1, alice.id)
    await refusal(store, RemoveDomain("nowhere.example"))
    await store.commit(OpenAccount(alice.id))
    assert store.directory_version() == version


async def test_domains(store: Store) -> None:
    await store.commit(AddDomain("Example.JP"))
    await store.commit(AddDomain("a.example"))
    assert [domain.name for domain in await store.domains()] == ["a.example", "example.jp"]
    assert await refusal(store, AddDomain("example.jp")) is Refusal.EXISTS
    assert await refusal(store, RemoveDomain("nowhere.example")) is Refusal.NO_SUCH_DOMAIN
    before = await store.domain("example.jp")
    await add_account(store)
    after = await store.domain("EXAMPLE.jp")
    assert before is not None and after is not None
    assert after.modseq > before.modseq and (after.accounts, after.aliases) == (1, 0)
    assert await refusal(store, RemoveDomain("example.jp")) is Refusal.IN_USE
    await store.commit(RemoveDomain("a.example"))
    assert await store.domain("a.example") is None


@pytest.mark.parametrize("name", ["", ".", "a b", "x@y", "例.jp", "a.example.", "a\nb"])
async def test_domains_that_cannot_be(store: Store, name: str) -> None:
    assert await refusal(store, AddDomain(name)) is Refusal.BAD_NAME


async def test_accounts(store: Store) -> None:
    made = await add_account(store, "Alice@Example.jp", quota=1000)
    assert made.address == "Alice@Example.jp" and made.quota_limit_octets == 1000
    assert await store.account("alice@example.jp") == made == await store.account_by_id(made.id)
    assert await store.accounts() == await store.accounts("example.jp") == [made]
    assert await store.accounts("other.example") == []
    assert await store.password(made.id) == PASSWORD
    assert await store.account("bob@example.jp") is None and await store.password(99) is None
    assert await refusal(store, AddAccount("aLICE@example.jp", PASSWORD)) is Refusal.EXISTS
    assert await refusal(store, AddAccount("bob@other.example", PASSWORD)) is Refusal.NO_SUCH_DOMAIN
    for address in ("bob", "@example.jp", "bob@", ""):
        assert await refusal(store, AddAccount(address, PASSWORD)) in (Refusal.BAD_NAME, Refusal.NO_SUCH_DOMAIN)


async def test_a_removed_account_gives_its_address_back_but_never_its_id(store: Store) -> None:
    first = await add_account(store)
    await deliver(store, 1, first.id)
    await store.commit(RemoveAccount("alice@example.jp"))
    assert await store.account_by_id(first.id) is None
    assert await refusal(store, OpenAccount(first.id)) is Refusal.NO_SUCH_ACCOUNT
    second = await add_account(store)
    assert second.id > first.id
    assert await store.mailboxes(second.id) == []
    assert await refusal(store, RemoveAccount("bob@example.jp")) is Refusal.NO_SUCH_ADDRESS


async def test_password_and_status_close_sessions(store: Store) -> None:
    alice = await add_account(store)
    told = []
    store.listen(told.append)
    new = PASSWORD.__class__("new", b"s", 4096, b"a", b"b")
    await store.commit(SetPassword("alice@example.jp", new))
    assert await store.password(alice.id) == new and told == [Revoked(alice.id)]
    await store.commit(SetAccountStatus("alice@example.jp", AccountStatus.DISABLED))
    changed = await store.account("alice@example.jp")
    assert changed is not None and changed.status is AccountStatus.DISABLED and changed.modseq > alice.modseq
    await store.commit(SetAccountStatus("alice@example.jp", AccountStatus.ACTIVE))
    assert told == [Revoked(alice.id)] * 2
    assert await refusal(store, SetPassword("bob@example.jp", new)) is Refusal.NO_SUCH_ADDRESS


async def test_a_frozen_account_takes_nothing(store: Store) -> None:
    alice = await add_account(store)
    await deliver(store, 1, alice.id)
    await store.commit(SetAccountStatus("alice@example.jp", AccountStatus.FROZEN))
    assert await refusal(store, OpenAccount(alice.id)) is Refusal.FROZEN
    await store.commit(SetAccountStatus("alice@example.jp", AccountStatus.ACTIVE))
    await deliver(store, 2, alice.id)


async def test_aliases(store: Store) -> None:
    await add_account(store)
    await store.commit(AddAlias("Info@example.jp", ("b@x.example", "a@x.example")))
    await store.commit(AddAlias("info@example.jp", ("c@x.example", "a@x.example")))
    await store.commit(AddAlias("@Example.jp", ("alice@example.jp",)))
    info = Alias("info@example.jp", ("a@x.example", "b@x.example", "c@x.example"))
    assert await store.alias("INFO@example.jp") == info
    assert await store.alias("@example.jp") == Alias("@example.jp", ("alice@example.jp",))
    assert await store.aliases() == await store.aliases("example.jp") == [Alias("@example.jp", ("alice@example.jp",)), info]
    domain = await store.domain("example.jp")
    assert domain is not None and domain.aliases == 2
    await store.commit(RemoveAlias("info@example.jp", ("a@x.example",)))
    assert (await store.alias("info@example.jp") or info).targets == ("b@x.example", "c@x.example")
    await store.commit(RemoveAlias("info@example.jp"))
    assert await store.alias("info@example.jp") is None
    assert await refusal(store, RemoveAlias("info@example.jp")) is Refusal.NO_SUCH_ADDRESS
    assert await refusal(store, AddAlias("alice@example.jp", ("x@y.example",))) is Refusal.EXISTS
    assert await refusal(store, AddAlias("x@other.example", ("x@y.example",))) is Refusal.NO_SUCH_DOMAIN
    assert await refusal(store, AddAlias("x@example.jp", ("nobody",))) is Refusal.BAD_NAME


async def test_settings(store: Store) -> None:
    await store.commit(SetSetting("b.key", "", "1"))
    await store.commit(SetSetting("a.key", "domain:example.jp", "2"))
    await store.commit(SetSetting("b.key", "", "3"))
    assert await store.settings() == [Setting("a.key", "domain:example.jp", "2"), Setting("b.key", "", "3")]
    assert await store.settings("") == [Setting("b.key", "", "3")]
    await store.commit(UnsetSetting("b.key", ""))
    assert await refusal(store, UnsetSetting("b.key", "")) is Refusal.NO_SUCH_SETTING


async def test_secrets_are_made_once(store: Store) -> None:
    first = await store.secret("thread")
    assert len(first) == 32 and await store.secret("thread") == first
    assert await store.secret("other") != first
