"""smtplib, imaplib, poplib, IMAPClient and aiosmtplib: the libraries most scripts use."""

from __future__ import annotations

import imaplib
import poplib
import smtplib

import aiosmtplib
import imapclient
import pytest

from tests.support.clients import Imap, arrived, hand_in, imap, letter, messages, submit, trusting
from tests.support.server import PASSWORD, LiveServer

pytestmark = pytest.mark.system
ALICE, BOB = "alice@example.jp", "bob@example.jp"


def test_smtplib(house: LiveServer) -> None:
    submit(house, letter("smtplib", sender=ALICE, to=BOB), BOB)
    assert arrived(house, "smtplib", BOB)["From"] == ALICE


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_smtplib_mechanisms(house: LiveServer, mechanism: str) -> None:
    with smtplib.SMTP(*house.place.endpoint("submission"), local_hostname="client.example.jp", timeout=15) as client:
        client._host = house.hostname      # type: ignore[attr-defined]
        client.starttls(context=trusting(house))
        client.ehlo()
        client.user, client.password = ALICE, PASSWORD
        method = getattr(client, f"auth_{mechanism.lower()}")
        assert client.auth(mechanism, method)[0] == 235
        assert client.auth(mechanism, method)[0] == 503


async def test_aiosmtplib(house: LiveServer) -> None:
    host, port = house.place.endpoint("submissions")
    context = trusting(house)
    context.check_hostname = False      # it knows the server by address only
    client = aiosmtplib.SMTP(hostname=host, port=port, use_tls=True, tls_context=context, timeout=15)
    async with client:
        await client.login(ALICE, PASSWORD)
        errors, reply = await client.send_message(letter("aiosmtplib", sender=ALICE, to=BOB), recipients=[BOB])
    assert (errors, "Message accepted" in reply) == ({}, True)
    arrived(house, "aiosmtplib", BOB)


def test_imaplib(house: LiveServer) -> None:
    with imap(house) as client:
        assert client.create("Work/2025")[0] == "OK"
        assert client.append("Work/2025", "(\\Flagged)", '"01-Apr-2025 09:00:00 +0900"', letter("imaplib").as_bytes())[0] == "OK"
        assert client.select("Work/2025")[1] == [b"1"]
        flags, internal_date = client.fetch("1", "(FLAGS INTERNALDATE)")[1][0].split(b" INTERNALDATE ")
        assert b"\\Flagged" in flags and internal_date.startswith(b'" 1-Apr-2025 00:00:00 +0000"')
        assert client.copy("1", "Trash")[0] == "OK"
        assert client.store("1", "+FLAGS", "\\Deleted")[1][0].count(b"\\Deleted") == 1
        assert client.expunge()[1] == [b"1"]
        client.close()
        assert client.rename("Work/2025", "Work/2026")[0] == "OK"
        assert client.delete("Work/2026")[0] == "OK"
        assert len(messages(client, "Trash", search='SUBJECT "imaplib"')) == 1


def test_imaplib_authenticates_by_plain(house: LiveServer) -> None:
    with Imap(house) as client:
        assert client.authenticate("PLAIN", lambda _: f"\0{ALICE}\0{PASSWORD}".encode())[0] == "OK"
        assert client.noop()[0] == "OK"


def test_imaplib_cannot_log_in_without_tls(house: LiveServer) -> None:
    with imaplib.IMAP4(*house.place.endpoint("imap"), timeout=15) as client:
        assert "LOGINDISABLED" in client.capabilities
        with pytest.raises(client.error):
            client.login(ALICE, PASSWORD)
        with pytest.raises(client.error):
            client.authenticate("PLAIN", lambda _: f"\0{ALICE}\0{PASSWORD}".encode())


def test_poplib(house: LiveServer) -> None:
    hand_in(house.place.endpoint("smtp"), letter("for poplib", body=".\n..dots\n"), "bob@neighbour.example", "carol@example.jp")
    client = poplib.POP3(*house.place.endpoint("pop3"), timeout=15)
    context = trusting(house)
    context.check_hostname = False      # poplib has no way to tell it the name
    assert "STLS" in client.capa()
    client.stls(context)
    client.user("carol@example.jp")
    client.pass_(PASSWORD)
    count, size = client.stat()
    lines, octets = client.retr(count)[1:]
    assert (b"Subject: for poplib" in lines, b"..dots" in lines, size >= octets) == (True, True, True)
    assert client.top(count, 1)[1].count(b"") == 1
    unique_id = client.uidl(count).split()[2]
    assert unique_id in b" ".join(client.uidl()[1])
    client.dele(count)
    client.rset()
    assert client.stat()[0] == count
    client.dele(count)
    client.quit()
    again = poplib.POP3_SSL(*house.place.endpoint("pop3s"), context=context, timeout=15)
    again.user("carol@example.jp")
    again.pass_(PASSWORD)
    assert again.stat()[0] == count - 1
    again.quit()


def test_imapclient_idles_and_hears_of_a_mail_at_once(house: LiveServer) -> None:
    context = trusting(house)
    context.check_hostname = False
    host, port = house.place.endpoint("imaps")
    with imapclient.IMAPClient(host, port, ssl_context=context, timeout=15) as client:
        client.login(ALICE, PASSWORD)
        before = client.select_folder("INBOX")[b"EXISTS"]
        client.idle()
        hand_in(house.place.endpoint("smtp"), letter("wake up"), "bob@neighbour.example", ALICE)
        heard = client.idle_check(timeout=5)
        assert (before + 1, b"EXISTS") in heard, heard
        client.idle_done()
        [uid] = client.search(["SUBJECT", "wake up"])
        fetched = client.fetch([uid], ["ENVELOPE", "BODYSTRUCTURE", "FLAGS", "RFC822.SIZE"])[uid]
        assert fetched[b"ENVELOPE"].subject == b"wake up"
        assert fetched[b"BODYSTRUCTURE"][:2] == (b"text", b"plain")
        client.set_flags([uid], [imapclient.SEEN, "$Work"])
        assert set(client.get_flags([uid])[uid]) >= {b"\\Seen", b"$Work"}
        client.create_folder("予定")
        client.move([uid], "予定")
        assert client.folder_status("予定", ["MESSAGES"])[b"MESSAGES"] == 1
        assert ("予定" in [name for _, _, name in client.list_folders()]) is True
        client.delete_folder("予定")
        special = {flag: name for flags, _, name in client.list_folders() for flag in flags}
        assert special[b"\\Sent"] == "Sent" and special[b"\\Trash"] == "Trash"


def test_two_sessions_see_each_other(house: LiveServer) -> None:
    hand_in(house.place.endpoint("smtp"), letter("seen by two"), "bob@neighbour.example", ALICE)
    with imap(house) as one, imap(house) as two:
        one.select("INBOX")
        two.select("INBOX")
        number = one.search(None, 'SUBJECT "seen by two"')[1][0].split()[-1].decode()
        one.store(number, "+FLAGS", "(\\Answered)")
        two.noop()
        assert any(b"\\Answered" in line for line in two.response("FETCH")[1] if line)
        two.store(number, "+FLAGS", "(\\Deleted)")
        two.expunge()
        one.noop()
        assert number.encode() in one.response("EXPUNGE")[1]
