"""The constructors: one process's parts, put together from the configuration and a store.

Contract: nothing here runs; `Parts` is everything that faces and background services of a process share.
Failure: TlsFileError for a certificate that can't be used.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from fumibako.app.journal import TraceFile
from fumibako.app.places import own_place, published_addresses, source_address, zone_facts
from fumibako.config import Config
from fumibako.net.clock import Clock
from fumibako.net.endpoint import parse_endpoint
from fumibako.net.offload import Offload
from fumibako.net.resolver import Resolver
from fumibako.net.tls import ServerTls, opportunistic_client, read_pair
from fumibako.services.admin import Admin
from fumibako.services.deliver import Deliverer
from fumibako.services.directory import Directory
from fumibako.services.dsn import Notifier
from fumibako.services.intake import House
from fumibako.services.login import Login, make_password
from fumibako.services.mailboxes import Mailboxes
from fumibako.services.queue import QueueRunner
from fumibako.services.receive import Receiver
from fumibako.services.relay import Relay, RelayConfig
from fumibako.services.submit import Submitter
from fumibako.services.survey import Survey
from fumibako.services.zones import Zones
from fumibako.store.base import Store


@dataclass(frozen=True, slots=True)
class Parts:
    """What one process has. The queue runner belongs to the jobs process alone."""

    config: Config
    clock: Clock
    store: Store
    tls: ServerTls
    house: House
    login: Login
    mailboxes: Mailboxes
    receiver: Receiver
    submitter: Submitter
    zones: Zones


def build_parts(config: Config, store: Store, clock: Clock, offload: Offload) -> Parts:
    """Everything a worker serves with."""
    directory = Directory(store, config.server.hostname, frozenset(published_addresses(config)))
    house = House(config.server.hostname, store, directory, clock, TraceFile(config.directory, clock), asyncio.Event())
    return Parts(
        config, clock, store,
        tls=server_tls(config),
        house=house,
        login=Login(store, directory, offload, clock),
        mailboxes=Mailboxes(store, clock),
        receiver=Receiver(house),
        submitter=Submitter(house),
        zones=build_zones(config, store),
    )


def changed_parts(parts: Parts, config: Config) -> Parts:
    """The same process with other settings: sessions that run keep what they began with. Raises TlsFileError, unchanged."""
    parts.tls.reload([read_pair(str(config.tls.certificate), str(config.tls.key))])
    parts.zones.change(zone_facts(config))
    parts.house.directory.rename(config.server.hostname, frozenset(published_addresses(config)))
    house = replace(parts.house, hostname=config.server.hostname)
    return replace(parts, config=config, house=house, receiver=Receiver(house), submitter=Submitter(house))


def server_tls(config: Config) -> ServerTls:
    """The configured certificate, read and checked."""
    return ServerTls([read_pair(str(config.tls.certificate), str(config.tls.key))])


def build_zones(config: Config, store: Store) -> Zones:
    return Zones(zone_facts(config), store)


def build_survey(config: Config, zones: Zones, clock: Clock) -> Survey:
    return Survey(zones, build_resolver(config, clock), config.server.hostname, published_addresses(config))


def build_resolver(config: Config, clock: Clock) -> Resolver:
    return Resolver(clock, [parse_endpoint(server) for server in config.resolver_servers])


def build_queue_runner(parts: Parts) -> QueueRunner:
    """The one that sends what waits."""
    house = parts.house
    return QueueRunner(house, build_notifier(parts), local=Deliverer(house.store, house.directory, house.clock),
                       relay=build_relay(parts))


def build_notifier(parts: Parts) -> Notifier:
    house = parts.house
    return Notifier(house.store, house.directory, house.clock, house.hostname)


def build_relay(parts: Parts) -> Relay:
    config, house = parts.config, parts.house
    relay = RelayConfig(config.server.hostname, own_place(config), config.relay.smarthost, config.relay.mx_port,
                        source_address(config))
    return Relay(relay, house.store, build_resolver(config, parts.clock), house.clock, opportunistic_client(), house.trace)


def build_admin(store: Store, clock: Clock, offload: Offload) -> Admin:
    return Admin(store, lambda password: make_password(password, offload, clock))
