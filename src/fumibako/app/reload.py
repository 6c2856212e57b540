"""fumibako.toml and the certificate read anew at SIGHUP.

Contract: what can change while the server runs is listed by `with_changes`; the rest stays as it runs and is named in one
    log line. A file that is wrong changes nothing at all.
Failure: none; the log says in one line what is wrong with which file.
"""

from __future__ import annotations

import logging
from dataclasses import fields, is_dataclass, replace

from fumibako.config import Config, ConfigError, load_config
from fumibako.net.tls import TlsFileError, read_pair

log = logging.getLogger("fumibako.reload")


def read_anew(running: Config, as_read: Config) -> tuple[Config, Config] | None:
    """What to run with from now on, and what the file says; None where it is wrong.

    as_read: what the file said at the start or the last reload. Where systemd handed over sockets, `running` listens elsewhere.
    """
    try:
        fresh = load_config(running.directory)
        read_pair(str(fresh.tls.certificate), str(fresh.tls.key))
    except ConfigError as error:
        log.error("the configuration is not reloaded: %s", error)
        return None
    except TlsFileError as error:
        log.error("the certificate is not reloaded: %s", error)
        return None
    changed = [name for name, value in _flat(fresh).items() if value != _flat(as_read).get(name)]
    changed += [name for name in _flat(as_read) if name not in _flat(fresh)]
    held = [name for name in changed if name in _held(fresh) | _held(as_read)]
    if held:
        log.warning("only a restart changes %s; left as it runs", ", ".join(held))
    taken = [name for name in changed if name not in held]
    log.info("reloaded: certificate%s", "".join(f", {name}" for name in taken))
    return with_changes(running, fresh), fresh


def with_changes(running: Config, fresh: Config) -> Config:
    """The fresh values, but for those that sockets, processes and databases were made from."""
    server = replace(fresh.server, workers=running.server.workers, loop=running.server.loop, user=running.server.user)
    return replace(fresh, server=server, listen=running.listen, engine=running.engine)


def _held(config: Config) -> set[str]:
    listeners = {f"[listen] {name}" for name in config.listen}
    return {"[server] workers", "[server] loop", "[server] user", "[store] engine"} | listeners


def _flat(config: Config) -> dict[str, object]:
    """Every value under the name it has in the file."""
    found: dict[str, object] = {f"[listen] {name}": addresses for name, addresses in config.listen.items()}
    for section in ("server", "tls", "relay"):
        values = getattr(config, section)
        assert is_dataclass(values)
        found |= {f"[{section}] {one.name}": getattr(values, one.name) for one in fields(values)}
    return found | {"[resolver] servers": config.resolver_servers, "[store] engine": config.engine,
                    "[login] allow_plaintext": config.allow_plaintext}
