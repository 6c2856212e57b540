"""curl, swaks, openssl, fetchmail and mpop against the running server: what administrators type."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients import arrived, hand_in, imap, letter, messages, tool
from tests.support.server import PASSWORD, LiveServer, needs

pytestmark = pytest.mark.system
ALICE = "alice@example.jp"


def _deliver(server: LiveServer, subject: str, user: str = ALICE, **options: object) -> None:
    hand_in(server.place.endpoint("smtp"), letter(subject, **options), "bob@neighbour.example", user)  # type: ignore[arg-type]


def _curl(server: LiveServer, scheme: str, listener: str, path: str, *more: str | Path,
          user: str = ALICE, said: bytes = b"") -> str:
    needs("curl")
    address, port = server.place.endpoint(listener)
    return tool("curl", "-sS", "--ssl-reqd", "--cacert", server.certificate, "--resolve", f"mail.example.jp:{port}:{address}",
                "--user", f"{user}:{PASSWORD}", f"{scheme}://mail.example.jp:{port}/{path}", *more, said=said)


# -- curl --


@pytest.mark.parametrize(("scheme", "listener"), [("smtp", "submission"), ("smtps", "submissions")])
def test_curl_submits(house: LiveServer, scheme: str, listener: str) -> None:
    subject = f"curl by {listener}"
    _curl(house, scheme, listener, "client.example.jp", "--mail-from", ALICE, "--mail-rcpt", "bob@example.jp",
          "--upload-file", "-", said=letter(subject, sender=ALICE).as_bytes())
    assert "with ESMTPSA" in str(arrived(house, subject, "bob@example.jp")["Received"])


@pytest.mark.parametrize(("scheme", "listener"), [("imap", "imap"), ("imaps", "imaps")])
def test_curl_reads_imap(house: LiveServer, scheme: str, listener: str) -> None:
    _deliver(house, f"for curl {listener}")
    assert '"/" "INBOX"' in _curl(house, scheme, listener, "")
    number = _curl(house, scheme, listener, f"INBOX?SUBJECT%20%22for%20curl%20{listener}%22").split()[-1]
    assert f"Subject: for curl {listener}" in _curl(house, scheme, listener, f"INBOX;MAILINDEX={number}")
    assert _curl(house, scheme, listener, f"INBOX;MAILINDEX={number};SECTION=TEXT").startswith("Hello.")


def test_curl_appends(house: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(letter("appended by curl").as_bytes())
    _curl(house, "imaps", "imaps", "Drafts", "--upload-file", tmp_path / "mail")
    with imap(house) as client:
        assert len(messages(client, "Drafts", search='SUBJECT "appended by curl"')) == 1


@pytest.mark.parametrize(("scheme", "listener"), [("pop3", "pop3"), ("pop3s", "pop3s")])
def test_curl_reads_pop3(house: LiveServer, scheme: str, listener: str) -> None:
    _deliver(house, f"for curl {listener}", "carol@example.jp")
    last = _curl(house, scheme, listener, "", user="carol@example.jp").split("\n")[-2].split()[0]
    assert f"Subject: for curl {listener}" in _curl(house, scheme, listener, last, user="carol@example.jp")
    assert "." in _curl(house, scheme, listener, "", "--request", "UIDL", user="carol@example.jp")


# -- swaks --


def _swaks(server: LiveServer, listener: str, *more: str, expect: int = 0) -> str:
    needs("swaks")
    address, port = server.place.endpoint(listener)
    return tool("swaks", "--server", address, "--port", str(port), "--ehlo", "client.example.jp", "--timeout", "15", *more,
                expect=expect)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize(("listener", "tls"), [("submission", "--tls"), ("submissions", "--tls-on-connect")])
def test_swaks_logs_in(house: LiveServer, mechanism: str, listener: str, tls: str) -> None:
    subject = f"swaks {mechanism} {listener}"
    said = _swaks(house, listener, tls, "--auth", mechanism, "--auth-user", ALICE, "--auth-password", PASSWORD, "--from", ALICE,
                  "--to", "bob@example.jp", "--h-Subject", subject)
    assert "235 2.7.0" in said
    arrived(house, subject, "bob@example.jp")


def test_swaks_pipelines_eight_bit_mail(house: LiveServer) -> None:
    said = _swaks(house, "smtp", "--pipeline", "--tls-optional", "--from", "x@neighbour.example",
                  "--to", f"{ALICE},bob@example.jp", "--h-Subject", "swaks pipelined", "--body", "八ビットの本文",
                  "--add-header", "Content-Type: text/plain; charset=utf-8", "--add-header", "MIME-Version: 1.0",
                  "--add-header", "Content-Transfer-Encoding: 8bit")
    assert "250 2.0.0 Message accepted" in said
    for user in ALICE, "bob@example.jp":
        assert "八ビットの本文" in arrived(house, "swaks pipelined", user).get_content()


def test_swaks_with_a_wrong_password_is_refused(house: LiveServer) -> None:
    said = _swaks(house, "submission", "--tls", "--auth", "PLAIN", "--auth-user", ALICE, "--auth-password", "wrong",
                  "--from", ALICE, "--to", "bob@example.jp", expect=28)
    assert "535 5.7.8" in said


def test_swaks_finds_no_login_without_tls_and_no_relay_without_login(house: LiveServer) -> None:
    assert "AUTH" not in _swaks(house, "submission", "--quit-after", "EHLO")
    assert "550 5.7.1" in _swaks(house, "smtp", "--from", "x@neighbour.example", "--to", "y@elsewhere.example", expect=24)
    assert "530 5.7.0" in _swaks(house, "submission", "--tls", "--from", ALICE, "--to", "bob@example.jp", expect=23)


# -- openssl --


@pytest.mark.parametrize(("protocol", "listener"), [("smtp", "submission"), ("smtp", "smtp"), ("imap", "imap"), ("pop3", "pop3"),
                                                     ("", "imaps"), ("", "submissions"), ("", "pop3s")])
def test_openssl_verifies(house: LiveServer, protocol: str, listener: str) -> None:
    address, port = house.place.endpoint(listener)
    starttls = ("-starttls", protocol) if protocol else ()
    said = tool("openssl", "s_client", "-connect", f"{address}:{port}", *starttls, "-CAfile", house.certificate,
                "-verify_hostname", "mail.example.jp", "-verify_return_error", "-brief", said="QUIT\r\n", expect=None)
    assert "Verification: OK" in said, said
    assert "TLSv1.3" in said


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_openssl_cannot_use_old_tls(house: LiveServer, version: str) -> None:
    address, port = house.place.endpoint("imaps")
    said = tool("openssl", "s_client", "-connect", f"{address}:{port}", version, "-cipher", "DEFAULT@SECLEVEL=0",
                expect=None)
    assert "Cipher is (NONE)" in said or "error" in said, said


# -- fetchmail and mpop --


@pytest.mark.parametrize(("protocol", "listener"), [("POP3", "pop3s"), ("POP3", "pop3"), ("IMAP", "imaps"), ("IMAP", "imap")])
def test_fetchmail_fetches_and_deletes(house: LiveServer, tmp_path: Path, protocol: str, listener: str) -> None:
    needs("fetchmail")
    subject = f"for fetchmail {listener}"
    _deliver(house, subject, "carol@example.jp", body="本文\n")
    address, port = house.place.endpoint(listener)
    tls = "ssl" if listener.endswith("s") else "sslproto TLS1.2+"
    rc = tmp_path / "rc"
    rc.write_text(f'poll {address} service {port} proto {protocol} user "carol@example.jp" password "{PASSWORD}" {tls} '
                  f'sslcertfile {house.certificate} sslcommonname mail.example.jp no rewrite fetchall '
                  f'mda "cat >>{tmp_path}/fetched"\n')
    rc.chmod(0o600)
    tool("fetchmail", "-f", rc, "--pidfile", tmp_path / "pid", "-v", home=tmp_path)
    assert f"Subject: {subject}" in (tmp_path / "fetched").read_text()
    with imap(house, "carol@example.jp") as client:
        assert messages(client) == []


def test_mpop_keeps_what_it_is_told_to_keep(house: LiveServer, tmp_path: Path) -> None:
    needs("mpop")
    address, port = house.place.endpoint("pop3s")
    (tmp_path / "rc").write_text(
        f"account default\nhost {address}\nport {port}\ntls on\ntls_starttls off\ntls_trust_file {house.certificate}\n"
        f"tls_host_override mail.example.jp\nuser carol@example.jp\npassword {PASSWORD}\nauth plain\npipelining on\nkeep on\n"
        f"delivery mbox {tmp_path}/mbox\nuidls_file {tmp_path}/uidls\n")
    (tmp_path / "rc").chmod(0o600)
    for number in range(2):
        _deliver(house, f"for mpop {number}", "carol@example.jp")
        tool("mpop", "-C", tmp_path / "rc", home=tmp_path)
    fetched = (tmp_path / "mbox").read_text()
    assert fetched.count("Subject: for mpop 0") == 1      # the UIDL told what was fetched already
    assert fetched.count("Subject: for mpop 1") == 1
    with imap(house, "carol@example.jp") as client:
        assert len(messages(client, search='SUBJECT "for mpop"')) == 2
