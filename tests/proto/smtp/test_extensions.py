"""What EHLO offers: ours, and a peer's."""

import pytest

from fumibako.proto.smtp.extensions import ServerConfig, parse_capabilities
from fumibako.proto.smtp.reply import Reply, parse_reply


def test_a_peers_offer() -> None:
    reply = parse_reply(b"250-mx.example hi\r\n250-size 100\r\n250-AUTH plain LOGIN\r\n250-\r\n250 8bitmime\r\n")
    found = parse_capabilities(reply)
    assert found.size_limit_octets == 100 and found.auth_mechanisms == ("PLAIN", "LOGIN") and "8BITMIME" in found
    assert "MX.EXAMPLE" not in found and "" not in found


@pytest.mark.parametrize("text", ["SIZE", "SIZE 0", "SIZE x", "SIZE 1 2", "SIZE 1_0"])
def test_no_size_limit(text: str) -> None:
    assert parse_capabilities(Reply(250, None, ("mx", text))).size_limit_octets is None


@pytest.mark.parametrize(
    ("options", "offered"),
    [
        ({"auth_mechanisms": ("PLAIN",)}, False),
        ({"auth_mechanisms": ("PLAIN",), "tls_active": True}, True),
        ({"auth_mechanisms": ("PLAIN",), "auth_without_tls": True}, True),
        ({"tls_active": True}, False),
    ],
)
def test_auth_is_offered_under_tls_or_where_allowed(options: dict[str, object], offered: bool) -> None:
    config = ServerConfig("mx.example", **options)
    assert config.auth_offered == offered == ("AUTH PLAIN" in config.keywords()) == ("AUTH" in config.mail_parameters())


def test_starttls_is_offered_once() -> None:
    assert "STARTTLS" in ServerConfig("mx.example", tls_available=True).keywords()
    assert "STARTTLS" not in ServerConfig("mx.example", tls_available=True, tls_active=True).keywords()


@pytest.mark.parametrize("options", [{"max_size_octets": 0}, {"max_recipients": 0}, {"binarymime": True, "chunking": False}])
def test_what_can_not_be(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"positive|CHUNKING"):
        ServerConfig("mx.example", **options)
