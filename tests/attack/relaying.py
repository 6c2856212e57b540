"""Our relay, aimed at a server on loopback, and the mail it is to carry."""

import ssl

from fumibako.model.envelope import Envelope, Recipient
from fumibako.model.ops import Enqueue, Lease, Leased
from fumibako.model.queue import QueueItem
from fumibako.net.dial import OwnPlace
from fumibako.proto.dns.records import Mx
from fumibako.services.relay import Relay, RelayConfig
from fumibako.store.base import expect
from tests.support.mailhouse import HOSTNAME, MESSAGE, MailHouse
from tests.support.resolver import FakeResolver

ZONE = {("example.com", "MX"): [Mx(10, "mx.example.com")], ("mx.example.com", "A"): ["127.0.0.1"]}


async def queued(house: MailHouse, *recipients: str, message: bytes = MESSAGE, reverse_path: str = "alice@example.jp",
                 **options: object) -> QueueItem:
    """A message in the queue, leased."""
    trace_id = house.clock.trace_id()
    writer = house.store.body_writer()
    writer.write(message)
    body = await writer.finish(trace_id)
    envelope = Envelope(reverse_path, tuple(Recipient(one) for one in recipients), **options)
    await house.store.commit(Enqueue(trace_id, envelope, b"Received: here\r\n", body, house.clock.now_ms()))
    [item] = expect(await house.store.commit(Lease(house.clock.now_ms(), 1, 1)), Leased).items
    house.clock.advance(1)
    return item


def relay_to(house: MailHouse, port: int, zone: object = ZONE, tls: ssl.SSLContext | None = None, **config: object) -> Relay:
    """A relay that lives on loopback itself, at 127.0.0.25, and finds mail servers in `zone`."""
    own = OwnPlace(frozenset({HOSTNAME}), frozenset({"127.0.0.25"}), on_loopback=True)
    settings = RelayConfig(**{"hostname": HOSTNAME, "own": own, "port": port, **config})
    return Relay(settings, house.store, FakeResolver(zone), house.clock, tls)
