"""What addresses this server has: where it listens, what DNS publishes, where mail is sent from.

Contract: a wildcard listener (":25", "0.0.0.0:25") stands for the address this machine would use to reach the outside;
    no packet is sent to find it.
Failure: none; a machine without a route has loopback only.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

from fumibako.config import Config
from fumibako.net.dial import OwnPlace
from fumibako.net.endpoint import parse_endpoint
from fumibako.services.zones import Listening, ZoneFacts

# Addresses for documentation: a route towards them is a route towards the outside.
_OUTSIDE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_PUBLISHED = ("smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s", "dns")


def listener_hosts(config: Config, name: str) -> list[str]:
    """The concrete addresses of a listener, wildcards resolved."""
    found: list[str] = []
    for text in config.listen.get(name, ()):
        if text.startswith("unix:"):
            continue
        host = parse_endpoint(text).host if not text.startswith(":") else ""
        found += [host] if host and not ipaddress.ip_address(host).is_unspecified else _outside_addresses(host)
    return list(dict.fromkeys(found))


def published_addresses(config: Config) -> tuple[str, ...]:
    """[server] addresses, or those of [listen] smtp."""
    return config.server.addresses or tuple(listener_hosts(config, "smtp"))


def own_place(config: Config) -> OwnPlace:
    """How the relay knows itself: an MX that is us is a loop, one in 127/8 is only for tests."""
    hosts = listener_hosts(config, "smtp")
    return OwnPlace(
        names=frozenset({config.server.hostname}),
        addresses=frozenset({*hosts, *config.server.addresses}),
        on_loopback=any(ipaddress.ip_address(host).is_loopback for host in hosts),
    )


def source_address(config: Config) -> str:
    """[relay] source, or the [listen] smtp address where it is one concrete address."""
    if config.relay.source:
        return config.relay.source
    texts = config.listen.get("smtp", ())
    if len(texts) != 1 or texts[0].startswith((":", "unix:")):
        return ""
    host = parse_endpoint(texts[0]).host
    return "" if ipaddress.ip_address(host).is_unspecified else host


def zone_facts(config: Config) -> ZoneFacts:
    """What the zones say about this server."""
    listening = tuple(Listening(name, port) for name in _PUBLISHED if (port := _port(config, name)))
    smarthost = config.relay.smarthost.rpartition(":")[0].strip("[]")
    return ZoneFacts(config.server.hostname, published_addresses(config), listening, smarthost)


def _port(config: Config, name: str) -> int:
    """The port of a listener, 0 where it is off or only a Unix socket."""
    return next((int(text.rpartition(":")[2]) for text in config.listen.get(name, ()) if not text.startswith("unix:")), 0)


def _outside_addresses(host: str) -> list[str]:
    wanted = {"": {socket.AF_INET, socket.AF_INET6}, "::": {socket.AF_INET6}}.get(host, {socket.AF_INET})
    return [address for family, outside in _OUTSIDE if family in wanted for address in _source_towards(family, outside)]


def _source_towards(family: socket.AddressFamily, outside: str) -> Iterator[str]:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((outside, 9))
        except OSError:
            return
        address = str(probe.getsockname()[0])
        if not ipaddress.ip_address(address).is_link_local:
            yield address
