"""Login and what stands around it."""

from __future__ import annotations

import pytest

from fumibako.model.account import AccountStatus
from fumibako.model.ops import SetAccountStatus
from tests.support.imap_session import Client, House


async def test_login_brings_capabilities(house: House) -> None:
    client = house.connect()
    assert client.take().startswith("* OK [CAPABILITY IMAP4rev1 IMAP4rev2 ")
    reply = await client.run('LOGIN alice@example.jp "secret"')
    assert reply.ok and reply.code.startswith("CAPABILITY IMAP4rev1 IMAP4rev2 ")
    assert (await client.run("LOGIN alice@example.jp secret")).status == "BAD"


async def test_three_wrong_passwords_end_the_connection(house: House) -> None:
    client = house.connect()
    for user in ("alice@example.jp", "nobody@example.jp"):
        reply = await client.run(f"LOGIN {user} wrong")
        assert reply.completion.partition(" ")[2] == "NO [AUTHENTICATIONFAILED] Wrong user name or password"
    assert "* BYE Too many failed logins" in (await client.run("LOGIN x y")).untagged
    assert client.closed


async def test_authenticate_plain_with_and_without_initial_response(house: House) -> None:
    client = house.connect()
    assert (await client.run("AUTHENTICATE PLAIN AGFsaWNlQGV4YW1wbGUuanAAc2VjcmV0")).ok
    client = house.connect()
    client.take()
    await client.send("a AUTHENTICATE PLAIN\r\n")
    assert client.take() == "+ \r\n"
    await client.send("*\r\n")
    assert client.take().startswith("a BAD ")
    await client.send("b AUTHENTICATE PLAIN\r\n")
    client.take()
    await client.send("AGFsaWNlQGV4YW1wbGUuanAAc2VjcmV0\r\n")
    assert client.take().startswith("b OK [CAPABILITY ")


async def test_no_password_without_tls(house: House) -> None:
    client = house.connect(allow_plaintext_login=False, tls_available=True)
    greeting = client.take()
    assert "LOGINDISABLED" in greeting and "AUTH=PLAIN" not in greeting and "STARTTLS" in greeting
    assert (await client.run("LOGIN alice@example.jp secret")).code == "PRIVACYREQUIRED"
    assert (await client.run("STARTTLS")).ok
    assert client.session.wants_tls
    client.session.on_tls()
    assert (await client.run("LOGIN alice@example.jp secret")).ok


async def test_logout(client: Client) -> None:
    reply = await client.run("LOGOUT")
    assert reply.untagged == ["* BYE Good bye"] and reply.ok and client.closed


async def test_a_disabled_account_loses_its_sessions(house: House, client: Client) -> None:
    await house.store.commit(SetAccountStatus("alice@example.jp", AccountStatus.DISABLED))
    assert (await client.pushed())[0].startswith("* BYE [UNAVAILABLE]")
    assert client.closed


@pytest.mark.parametrize(("end", "said"), [
    ("on_stop", "* BYE [UNAVAILABLE]"), ("on_timeout", "* BYE "), ("on_failure", "* BYE [UNAVAILABLE]"),
])
async def test_what_the_server_says_unasked(client: Client, end: str, said: str) -> None:
    getattr(client.session, end)()
    assert client.closed and client.take().startswith(said)


async def test_id_namespace_enable(client: Client) -> None:
    assert (await client.run('ID ("name" "x")')).untagged[0].startswith('* ID ("name" "Fumibako"')
    assert (await client.run("NAMESPACE")).untagged == ['* NAMESPACE (("" "/")) NIL NIL']
    assert (await client.run("ENABLE CONDSTORE X-UNKNOWN")).untagged == ["* ENABLED CONDSTORE"]


async def test_quota(house: House, client: Client) -> None:
    assert (await client.run("GETQUOTAROOT INBOX")).untagged == ['* QUOTAROOT "INBOX" ""', '* QUOTA "" ()']
    assert (await client.run('SETQUOTA "" (STORAGE 5)')).code == "NOPERM"
    assert (await client.run('GETQUOTA "other"')).code == "NONEXISTENT"
