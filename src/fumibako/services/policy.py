"""Live settings: every value an administrator changes while the server runs, declared once.

Contract: SETTINGS is the whole list; `parse_setting` checks a text before it is stored, `Policy` reads the stored
    texts as values, the narrower scope winning (account, then domain, then server, then the default).
Failure: SettingError says what is allowed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from fumibako.model.account import Setting
from fumibako.model.address import domain_of
from fumibako.services.texts import N_

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class SettingError(ValueError):
    """allowed: catalogue text."""

    def __init__(self, key: str, value: str, allowed: str) -> None:
        super().__init__(f"{key} = {value}: {allowed}")
        self.key, self.value, self.allowed = key, value, allowed


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text)
    raise ValueError


def _octets(text: str) -> int:
    """"50M" -> 52428800."""
    number, unit = (text[:-1], text[-1].upper()) if text and text[-1:].isalpha() else (text, "")
    if unit not in UNITS:
        raise ValueError
    return _count(number) * UNITS[unit]


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(one, strict=False) for one in text.replace(",", " ").split())


@dataclass(frozen=True, slots=True)
class Declared:
    parse: Callable[[str], object]
    default: str
    allowed: str
    comment: str


SETTINGS: dict[str, Declared] = {
    "account.quota": Declared(_octets, "0", N_('a size such as "10G"; 0: no limit'), N_("mail an account may keep")),
    "limits.connections": Declared(_count, "1000", N_("a number"), N_("connections of one listener")),
    "limits.connections_per_address": Declared(_count, "50", N_("a number"), N_("connections from one address to one listener")),
    "limits.exempt": Declared(_networks, "127.0.0.0/8 ::1", N_('networks such as "192.0.2.0/24 2001:db8::/32"'),
                              N_("networks that skip rate limits (never relay rights)")),
    "limits.logins_per_minute": Declared(_count, "10", N_("a number"),
                                         N_("failed logins from one address before they are slowed down")),
    "limits.message_size": Declared(_octets, "50M", N_('a size such as "50M"'), N_("the largest message accepted")),
    "limits.recipients": Declared(_count, "1000", N_("a number"), N_("recipients of one message")),
}


@lru_cache(maxsize=1024)        # every connection asks for the same few
def parse_setting(key: str, value: str) -> object:
    """The value a text stands for; SettingError when it is not allowed, KeyError for an unknown key."""
    declared = SETTINGS[key]
    try:
        return declared.parse(value)
    except ValueError:
        raise SettingError(key, value, declared.allowed) from None


class Policy:
    """The settings of one moment. Reading control.db is the caller's; this only finds the value that holds."""

    def __init__(self, settings: Iterable[Setting] = ()) -> None:
        self._stored = {(one.key, one.scope): one.value for one in settings}
        self._numbers: dict[str, int] = {}      # the server's own

    def text(self, key: str, address: str = "") -> str:
        """address: "" for the server's own value, else an account's address."""
        scopes = (f"account:{address}", f"domain:{domain_of(address)}", "") if address else ("",)
        for scope in scopes:
            if (key, scope) in self._stored:
                return self._stored[key, scope]
        return SETTINGS[key].default

    def number(self, key: str, address: str = "") -> int:
        if address:
            return self._number(key, address)
        if key not in self._numbers:
            self._numbers[key] = self._number(key, "")
        return self._numbers[key]

    def _number(self, key: str, address: str) -> int:
        value = parse_setting(key, self.text(key, address))
        assert isinstance(value, int)
        return value

    def networks(self, key: str) -> tuple[Network, ...]:
        return _networks(self.text(key))

    def exempt(self, peer_address: str) -> bool:
        """True for a peer that skips rate limits."""
        return _is_exempt(peer_address, self.text("limits.exempt"))


@lru_cache(maxsize=4096)        # asked for every message; a busy peer's answer is a dictionary look-up
def _is_exempt(peer_address: str, networks: str) -> bool:
    try:
        peer = ipaddress.ip_address(peer_address)
    except ValueError:
        return peer_address.startswith("unix:")
    return any(peer in network for network in _networks(networks))
