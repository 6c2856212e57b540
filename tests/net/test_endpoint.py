"""Addresses and ports in text."""

import socket
from pathlib import Path

import pytest

from fumibako.net.endpoint import Endpoint, parse_endpoint, parse_port, plain_address, unix_path


@pytest.mark.parametrize(("text", "default", "expected"), [
    ("192.0.2.1:53", None, Endpoint("192.0.2.1", 53)),
    ("[2001:DB8:0::1]:5353", None, Endpoint("2001:db8::1", 5353)),
    ("192.0.2.1", 53, Endpoint("192.0.2.1", 53)),
    ("2001:db8::1", 53, Endpoint("2001:db8::1", 53)),
    ("[2001:db8::1]:53", 25, Endpoint("2001:db8::1", 53)),
    ("[::ffff:192.0.2.1]:53", None, Endpoint("192.0.2.1", 53)),
])
def test_endpoint(text, default, expected):
    assert parse_endpoint(text, default) == expected
    assert parse_endpoint(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["192.0.2.1", "mail.example.jp:53", "192.0.2.1:x", "192.0.2.1: 53", "192.0.2.1:99999", "127.1:53", "1:2:3", ""])
def test_no_endpoint(text):
    with pytest.raises(ValueError, match="IP address and port"):
        parse_endpoint(text)


@pytest.mark.parametrize("text", ["", "-1", "+5", "1_0", "١", "65536", "000025"])
def test_no_port(text):
    with pytest.raises(ValueError, match="not a port"):
        parse_port(text)


def test_plain_address():
    assert plain_address("fe80::1%eth0") == "fe80::1"
    for text in ("0x7f.1", "2130706433", "localhost"):
        with pytest.raises(ValueError):
            plain_address(text)


def test_a_long_path_of_a_unix_socket_gets_a_short_name(tmp_path: Path) -> None:
    place = tmp_path / ("d" * 100)
    place.mkdir()
    path = str(place / "a.sock")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as other:
        listening.bind(unix_path(path))
        listening.listen()
        other.connect(unix_path(path))

    assert Path(path).is_socket()
    assert unix_path("/run/a.sock") == "/run/a.sock"
