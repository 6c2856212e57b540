"""fumibako.toml as values: what must be known before the store opens; everything else is a live `policy`.

Specification: DESIGN §10 (sections and keys are fixed).
Contract: `parse_config` gives a complete, checked Config or raises; every key is declared once, in SECTIONS, with its
    comment, its default and what is allowed; the template that `init` writes and docs/config.md are made from it.
Failure: `ConfigError` names file, key, value and what is allowed, in one line.
"""

from __future__ import annotations

import difflib
import ipaddress
import platform
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FILE_NAME = "fumibako.toml"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*{_LABEL}")
_ENDPOINT = re.compile(r"(?:(?P<host>[^:\[\]]*)|\[(?P<host6>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]{1,5})")


def N_(text: str) -> str:
    """Marks a text for the catalogues; the command line translates it."""
    return text


class ConfigError(Exception):
    """problem is a catalogue text with {named} fields; values fills them."""

    def __init__(self, problem: str, **values: object) -> None:
        super().__init__(problem.format(**values))
        self.problem, self.values = problem, values


@dataclass(frozen=True, slots=True)
class Server:
    hostname: str
    workers: int | str      # "auto": one for each processor; 0: everything in one process
    loop: str
    addresses: tuple[str, ...]
    user: str


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths are absolute."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Relay:
    smarthost: str
    mx_port: int
    source: str


@dataclass(frozen=True, slots=True)
class Config:
    """listen: listener name -> addresses, only those that are on; unix paths are absolute."""

    directory: Path
    server: Server
    listen: Mapping[str, tuple[str, ...]]
    tls: Tls
    resolver_servers: tuple[str, ...]
    relay: Relay
    engine: str
    allow_plaintext: bool


# -- what a value may be: each takes the TOML value and returns it checked, or raises ValueError --


def _hostname(value: object) -> str:
    if isinstance(value, str) and _HOSTNAME.fullmatch(value):
        return value.lower()
    raise ValueError


def _workers(value: object) -> int | str:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 256):
        return value
    raise ValueError


def _one_of(*allowed: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        raise ValueError
    return check


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError


def _port(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    raise ValueError


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ValueError


def _endpoint(value: object) -> str:
    """"host:port", "[v6]:port" or ":port"."""
    if isinstance(value, str) and (found := _ENDPOINT.fullmatch(value)) and 1 <= int(found["port"]) <= 65535:
        return value
    raise ValueError


def _address(value: object) -> str:
    return str(ipaddress.ip_address(_text(value)))


def _addresses(value: object) -> tuple[str, ...]:
    return tuple(_address(one) for one in _texts(value))


def _source(value: object) -> str:
    return "" if value == "" else _address(value)


def _endpoints(value: object) -> tuple[str, ...]:
    return tuple(_endpoint(one) for one in _texts(value))


def _resolvers(value: object) -> tuple[str, ...]:
    """Addresses: to look up the name of a resolver takes a resolver."""
    found = _endpoints(value)
    for one in found:
        _address(one.rpartition(":")[0].strip("[]"))
    return found


def _listeners(value: object) -> tuple[str, ...]:
    return tuple(one if one.startswith("unix:") and len(one) > len("unix:") else _endpoint(one) for one in _texts(value))


def _smarthost(value: object) -> str:
    return "" if value == "" else _endpoint(value)


# -- every key there is --


@dataclass(frozen=True, slots=True)
class Key:
    """default is written as TOML; shown False: commented out in the template."""

    check: Callable[[object], object]
    default: str
    allowed: str
    comment: str
    shown: bool = True


_LISTENERS_ALLOWED = N_('a list of "host:port", ":port" (IPv4 and IPv6) or "unix:path"')


def _listener(default: str, comment: str, *, shown: bool = True) -> Key:
    return Key(_listeners, default, _LISTENERS_ALLOWED, comment, shown)


SECTIONS: dict[str, dict[str, Key]] = {
    "server": {
        "hostname": Key(_hostname, '"mail.example.jp"', N_("a fully qualified host name"),
                        N_("the name this server calls itself; its address record and its reverse DNS should agree with it")),
        "workers": Key(_workers, '"auto"', N_('a number from 0 to 256, or "auto"'),
                       N_('worker processes; "auto": one for each processor; 0: everything in one process')),
        "loop": Key(_one_of("asyncio", "uvloop"), '"asyncio"', N_('"asyncio" or "uvloop"'),
                    N_('event loop; "uvloop" needs the package extra "speed"')),
        "addresses": Key(_addresses, "[]", N_("a list of IP addresses"),
                         N_("the addresses that DNS publishes for this server; empty: those of [listen] smtp")),
        "user": Key(_text, '""', N_("the name of a user of this system"),
                    N_("started as root: run as this user; empty: the owner of the data directory")),
    },
    "listen": {
        "smtp": _listener('["0.0.0.0:25"]', N_("mail from other servers")),
        "submission": _listener('[":587"]', N_("mail from users (STARTTLS and login)")),
        "submissions": _listener('[":465"]', N_("mail from users (TLS from the start and login)")),
        "lmtp": _listener('["unix:lmtp.sock"]', N_("mail from another server program on this machine"), shown=False),
        "imap": _listener('[":143"]', N_("IMAP (STARTTLS)")),
        "imaps": _listener('[":993"]', N_("IMAP (TLS from the start)")),
        "pop3": _listener('[":110"]', N_("POP3 (STLS)")),
        "pop3s": _listener('[":995"]', N_("POP3 (TLS from the start)")),
        "managesieve": _listener('[":4190"]', N_("filter rules"), shown=False),
        "dns": _listener('[":53"]', N_("DNS answers for the hosted domains")),
        "http": _listener('[":80"]', N_("web (redirects to https)"), shown=False),
        "https": _listener('[":443"]', N_("web"), shown=False),
        "metrics": _listener('["127.0.0.1:9090"]', N_("figures for monitoring"), shown=False),
    },
    "tls": {
        "certificate": Key(_text, '"tls/cert.pem"', N_("a path"), N_("certificate chain, PEM; init makes a self-signed one")),
        "key": Key(_text, '"tls/key.pem"', N_("a path"), N_("its private key, PEM")),
        "acme": Key(_flag, "false", N_("true or false"), N_("fetch and renew the certificate automatically"), shown=False),
    },
    "resolver": {
        "servers": Key(_resolvers, "[]", N_('a list of "address:port"'), N_("DNS resolvers to ask; empty: those of the system")),
    },
    "relay": {
        "smarthost": Key(_smarthost, '""', N_('"host:port" or ""'),
                         N_("send all outbound mail through this server; empty: straight to the recipients' servers")),
        "mx_port": Key(_port, "25", N_("a port number from 1 to 65535"),
                       N_("the port of the recipients' servers; other than 25 only for tests")),
        "source": Key(_source, '""', N_("an IP address of this machine"),
                      N_("send from this address; empty: that of [listen] smtp where it is one concrete address")),
    },
    "store": {
        "engine": Key(_one_of("sqlite"), '"sqlite"', N_('"sqlite"'), N_("where mail is kept")),
    },
    "login": {
        "allow_plaintext": Key(_flag, "false", N_("true or false"), N_("logins without TLS; true only for tests on loopback")),
    },
}
NOT_BUILT = ("managesieve", "http", "https", "metrics")
_HEADINGS = {
    "server": N_("This server"), "listen": N_("Where it listens; a line that is missing switches the listener off"),
    "tls": N_("Certificate"), "resolver": N_("DNS resolvers"), "relay": N_("Outbound mail"),
    "store": N_("Store"), "login": N_("Login"),
}


@dataclass(slots=True)
class _Values:
    """The checked values of one file; a key that isn't there has its default, a listener that isn't there is off."""

    tables: dict[str, dict[str, object]] = field(default_factory=dict)

    def value(self, section: str, key: str) -> object:
        table = self.tables.get(section, {})
        if key in table:
            return table[key]
        declared = SECTIONS[section][key]
        return declared.check(tomllib.loads(f"x = {declared.default}")["x"])


def load_config(directory: Path) -> Config:
    """Read DIR/fumibako.toml."""
    path = directory / FILE_NAME
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(N_("{file}: not found; make it with: fumibako init --data {directory} --hostname NAME"),
                          file=path, directory=directory) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(N_("{file}: cannot be read: {error}"), file=path, error=error) from None
    return parse_config(text, directory, str(path))


def parse_config(text: str, directory: Path, file: str = FILE_NAME) -> Config:
    """The text of a fumibako.toml -> Config; relative paths are relative to `directory`."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(N_("{file}: not valid TOML: {error}"), file=file, error=error) from None
    values = _Values({section: _check_section(file, section, table) for section, table in tables.items()})
    _refuse_unbuilt(file, values)
    return _build(values, directory.absolute())


def _check_section(file: str, section: str, table: object) -> dict[str, object]:
    if section not in SECTIONS:
        raise ConfigError(N_("{file}: [{section}] is unknown; known: {nearest}"), file=file, section=section,
                          nearest=_nearest(section, SECTIONS))
    if not isinstance(table, dict):
        raise ConfigError(N_("{file}: {section} must be a section: [{section}]"), file=file, section=section)
    return {key: _check_key(file, section, key, value) for key, value in table.items()}


def _check_key(file: str, section: str, key: str, value: object) -> object:
    declared = SECTIONS[section].get(key)
    if declared is None:
        raise ConfigError(N_("{file}: [{section}] {key} is unknown; known: {nearest}"), file=file, section=section, key=key,
                          nearest=_nearest(key, SECTIONS[section]))
    try:
        return declared.check(value)
    except ValueError:
        raise ConfigError(N_("{file}: [{section}] {key} = {value}: allowed is {allowed}"), file=file, section=section,
                          key=key, value=_shown(value), allowed=declared.allowed) from None


def _refuse_unbuilt(file: str, values: _Values) -> None:
    for name in NOT_BUILT:
        if values.tables.get("listen", {}).get(name):
            raise ConfigError(N_("{file}: [listen] {key}: this protocol is not built yet; remove the line"), file=file, key=name)
    if values.tables.get("tls", {}).get("acme"):
        raise ConfigError(N_("{file}: [tls] {key}: this is not built yet; remove the line"), file=file, key="acme")


def _build(values: _Values, directory: Path) -> Config:
    def path(text: object) -> Path:
        return directory / str(text)

    # A file without a host name speaks for the machine it lies on.
    values.tables.setdefault("server", {}).setdefault("hostname", platform.node().lower())
    listen = {
        name: tuple(f"unix:{path(one[5:])}" if one.startswith("unix:") else one for one in addresses)
        for name, addresses in values.tables.get("listen", {}).items() if isinstance(addresses, tuple) and addresses
    }
    return Config(
        directory=directory,
        server=Server(**{key: values.value("server", key) for key in SECTIONS["server"]}),  # type: ignore[arg-type]
        listen=listen,
        tls=Tls(path(values.value("tls", "certificate")), path(values.value("tls", "key"))),
        resolver_servers=values.value("resolver", "servers"),  # type: ignore[arg-type]
        relay=Relay(**{key: values.value("relay", key) for key in SECTIONS["relay"]}),  # type: ignore[arg-type]
        engine=str(values.value("store", "engine")),
        allow_plaintext=bool(values.value("login", "allow_plaintext")),
    )


def _nearest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'"{close[0]}"' if close else ", ".join(known)


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def config_template(hostname: str, translate: Callable[[str], str] = str) -> str:
    """The text of a new fumibako.toml: every key on a line of its own, each behind its comment."""
    lines = []
    for section, keys in SECTIONS.items():
        lines += [f"# {translate(_HEADINGS[section])}", f"[{section}]"]
        for name, key in keys.items():
            value = f'"{hostname}"' if (section, name) == ("server", "hostname") else key.default
            lines += [f"# {translate(key.comment)}", f"{'' if key.shown else '# '}{name} = {value}"]
        lines.append("")
    return "\n".join(lines)
