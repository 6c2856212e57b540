"""Looks names up: a caching stub that forwards to the configured servers and to nobody else.

Specification: RFC 1034 §5.3.1 (stub), RFC 2308 §5 (negative caching), RFC 6891 §6.2.2 (servers without EDNS),
    RFC 7766 §5 (TCP when truncated), RFC 9520 §3.2 (failures are remembered), RFC 6840 §5.7.
Contract: "there is no such name" and "no such record" are values; only "nobody could tell" is an exception.
    Each UDP query has a random id, a random port of its own, random letter case and one answer; octets that are not
    the answer never end the wait; one question is asked once however many wait for it. The AD bit counts only from
    a loopback server.
Failure: `ResolverFailure` names the question, each server asked and what became of it.
"""

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from fumibako.net.clock import Clock
from fumibako.net.endpoint import Endpoint, parse_endpoint
from fumibako.net.stream import open_stream
from fumibako.proto.dns.message import format_framed, parse_framed
from fumibako.proto.dns.records import InvalidDomain, Mx, Rcode, Rdata, ascii_domain, reverse_domain
from fumibako.proto.dns.stub import MAX_ALIASES, NearMiss, Question, Reply, format_question, mix_case, parse_reply
from fumibako.proto.reader import ProtocolError

RESOLV_CONF = "/etc/resolv.conf"
DEFAULT_SERVER = Endpoint("127.0.0.1", 53)      # what resolv.conf(5) says for an empty file
CACHE_OCTETS = 16 * 1024 * 1024
ENTRY_OCTETS = 300              # an entry without its data
FAILURE_TTL_S = 1
DATAGRAMS_KEPT = 16             # of one query; more than this unread is a flood
MAX_SERVERS = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one look-up. rdatas is empty for NXDOMAIN and where the name has no such record.

    canonical_name: where the aliases ended; ttl_s: how long it holds; from_server: who said so ("" for a name that cannot
    exist); authenticated: the server, on this host, vouches for DNSSEC.
    """

    name: str
    rrtype: str
    rcode: Rcode
    rdatas: tuple[Rdata, ...]
    ttl_s: int
    from_server: str
    authenticated: bool
    canonical_name: str


class ResolverFailure(Exception):
    """Nobody could tell: a temporary error for the question. servers: those asked; reason: what became of it."""

    def __init__(self, name: str, rrtype: str, servers: tuple[str, ...], reason: str) -> None:
        super().__init__(f"DNS look-up of {name} {rrtype} failed: {reason}")
        self.name, self.rrtype, self.servers, self.reason = name, rrtype, servers, reason


@dataclass(frozen=True, slots=True)
class ResolverOptions:
    """How hard to try. timeout_s: for the first round, doubled with each further round of all servers."""

    timeout_s: float = 2.5
    rounds: int = 2
    mixed_case: bool = True
    cache_octets: int = CACHE_OCTETS


def parse_resolv_conf(octets: bytes) -> tuple[Endpoint, ...]:
    """The servers of an /etc/resolv.conf; lines that make no sense are passed over, as resolv.conf(5) does."""
    servers: list[Endpoint] = []
    for line in octets.split(b"\n"):
        words = line.split()
        if len(words) >= 2 and words[0] == b"nameserver" and b"%" not in words[1]:     # a link's own address: not kept
            try:
                servers.append(parse_endpoint(words[1].decode("ascii", "replace"), 53))
            except ValueError:
                continue
    return tuple(servers[:MAX_SERVERS]) or (DEFAULT_SERVER,)


def system_servers(path: str = RESOLV_CONF) -> tuple[Endpoint, ...]:
    """The servers this machine is set up to ask."""
    try:
        with open(path, "rb") as file:
            return parse_resolv_conf(file.read())
    except OSError:
        return (DEFAULT_SERVER,)


class Resolver:
    """Look-ups for the whole process."""

    def __init__(self, clock: Clock, servers: Sequence[Endpoint] = (), options: ResolverOptions | None = None) -> None:
        """servers: asked in this order; none: those of /etc/resolv.conf."""
        self._clock = clock
        self._servers = tuple(servers) or system_servers()
        self._options = options or ResolverOptions()
        self._cache = _Cache(self._options.cache_octets)
        self._asking: dict[tuple[str, str], asyncio.Future[Answer]] = {}

    # Look-ups

    async def resolve(self, name: str, rrtype: str) -> Answer:
        """Looks up one name (also with U-labels) and type ("MX", "TXT", "TLSA", ...). Raises ResolverFailure."""
        try:
            name = ascii_domain(name)
        except InvalidDomain:
            return Answer(name, rrtype, Rcode.NXDOMAIN, (), 0, "", False, name)
        key = (name, rrtype)
        while (asking := self._asking.get(key)) is not None:
            await asyncio.wait([asking])
            if not asking.cancelled():
                return asking.result()
        kept = self._cache.find(key, self._clock.monotonic_s())
        if isinstance(kept, ResolverFailure):
            raise kept
        return kept or await self._lead(key)

    async def resolve_mx(self, domain: str) -> tuple[Mx, ...]:
        """The MX records, most preferred first."""
        answer = await self.resolve(domain, "MX")
        return tuple(sorted((rdata for rdata in answer.rdatas if isinstance(rdata, Mx)), key=lambda mx: mx.preference))

    async def resolve_addresses(self, host: str) -> tuple[str, ...]:
        """The IPv4, then the IPv6 addresses of a host; one family's failure counts only where the other has none."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._attempt(host, rrtype)) for rrtype in ("A", "AAAA")]
        results = [task.result() for task in tasks]
        answers = [result for result in results if isinstance(result, Answer)]
        found = tuple(rdata for answer in answers for rdata in answer.rdatas if isinstance(rdata, str))
        for result in results:
            if not found and isinstance(result, ResolverFailure):
                raise result
        return found

    async def _attempt(self, name: str, rrtype: str) -> Answer | ResolverFailure:
        """The failure as a value: one family's must not cancel the other's look-up."""
        try:
            return await self.resolve(name, rrtype)
        except ResolverFailure as failure:
            return failure

    async def resolve_txt(self, name: str) -> tuple[bytes, ...]:
        """The TXT records, the strings of each joined without a space (RFC 7208 §3.3)."""
        answer = await self.resolve(name, "TXT")
        return tuple(rdata for rdata in answer.rdatas if isinstance(rdata, bytes))

    async def resolve_ptr(self, address: str) -> tuple[str, ...]:
        """The names of an IP address."""
        answer = await self.resolve(reverse_domain(address), "PTR")
        return tuple(rdata for rdata in answer.rdatas if isinstance(rdata, str))

    # One question, asked once

    async def _lead(self, key: tuple[str, str]) -> Answer:
        """Asks for everybody who wants to know. Cancelled, it leaves the lead to one of those who wait."""
        future = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await self._chase(*key)
        except ResolverFailure as failure:
            self._cache.keep(key, failure, self._clock.monotonic_s() + FAILURE_TTL_S)
            future.set_exception(failure)
            future.exception()      # it counts as seen also where nobody else waits
            raise
        except BaseException:
            future.cancel()
            raise
        else:
            if answer.ttl_s:
                self._cache.keep(key, answer, self._clock.monotonic_s() + answer.ttl_s)
            future.set_result(answer)
            return answer
        finally:
            del self._asking[key]

    async def _chase(self, name: str, rrtype: str) -> Answer:
        """Asks, and asks on where a server gives an alias without its target (bounded)."""
        target, ttl_s, authenticated = name, None, True
        for _ in range(MAX_ALIASES):
            reply, server = await self._ask(target, rrtype)
            ttl_s = reply.ttl_s if ttl_s is None else min(ttl_s, reply.ttl_s)
            authenticated = authenticated and reply.authenticated and _is_loopback(server)
            if not reply.chain_only:
                return Answer(
                    name, rrtype, reply.rcode, reply.rdatas, ttl_s, str(server), authenticated, reply.canonical_name
                )
            target = reply.canonical_name
        raise ResolverFailure(name, rrtype, (str(server),), f"more than {MAX_ALIASES} aliases in a row")

    async def _ask(self, name: str, rrtype: str) -> tuple[Reply, Endpoint]:
        """Every server in turn, then all of them again with more patience."""
        reasons: dict[str, str] = {}
        for attempt in range(self._options.rounds):
            timeout_s = self._options.timeout_s * 2**attempt
            mixed = self._options.mixed_case and attempt == 0      # a few servers don't repeat the letter case
            for server in self._servers:
                try:
                    reply = await self._ask_server(server, self._question(name, rrtype, mixed), timeout_s)
                except TimeoutError:
                    reasons[str(server)] = f"{server} did not answer within {timeout_s:g} s"
                except (OSError, ProtocolError) as error:
                    reasons[str(server)] = f"{server}: {error}"
                else:
                    if reply.rcode in {Rcode.NOERROR, Rcode.NXDOMAIN} and not reply.is_referral:
                        return reply, server
                    reasons[str(server)] = f"{server} answered " + ("a referral" if reply.is_referral else reply.rcode.name)
        raise ResolverFailure(name, rrtype, tuple(reasons), "; ".join(reasons.values()))

    def _question(self, name: str, rrtype: str, mixed: bool) -> Question:
        if mixed:
            name = mix_case(name, self._clock.token(32))
        return Question(int.from_bytes(self._clock.token(2), "big"), name, rrtype)

    async def _ask_server(self, server: Endpoint, question: Question, timeout_s: float) -> Reply:
        """One server: UDP, TCP where the answer is too long for it, and once more without EDNS where it balks at that."""
        reply = await _ask_udp(server, question, timeout_s)
        if reply.rcode in {Rcode.FORMERR, Rcode.NOTIMP} and question.edns:
            question = Question(question.query_id ^ 1, question.name, question.rrtype, edns=False)
            reply = await _ask_udp(server, question, timeout_s)
        if reply.truncated:
            reply = await _ask_tcp(server, question, timeout_s)
        return reply


async def _ask_udp(server: Endpoint, question: Question, timeout_s: float) -> Reply:
    """Sends from a new connected socket and waits for the answer, passing over everything that is not it.

    A near miss may be an attacker's guess: TCP, which cannot be guessed into, is tried before UDP is trusted again.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        transport, inbox = await loop.create_datagram_endpoint(_Inbox, remote_addr=(server.host, server.port))
        tcp_tried = False
        try:
            transport.sendto(format_question(question))
            while True:
                datagram = await inbox.next()
                try:
                    return parse_reply(datagram, question)
                except NearMiss:
                    if not tcp_tried:
                        tcp_tried = True
                        reply = await _try_tcp(server, question, timeout_s / 2)
                        if reply is not None:
                            return reply
                except ProtocolError:
                    pass        # forged or broken: the true answer may still come
        finally:
            transport.abort()


async def _try_tcp(server: Endpoint, question: Question, timeout_s: float) -> Reply | None:
    try:
        return await _ask_tcp(server, question, timeout_s)
    except (OSError, ProtocolError):
        return None


class _Inbox(asyncio.DatagramProtocol):
    """Datagrams of one socket, in a bounded queue."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Exception] = asyncio.Queue(DATAGRAMS_KEPT)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._put(data)

    def error_received(self, exc: Exception) -> None:
        self._put(exc)      # "port unreachable": nobody is going to answer

    def _put(self, item: bytes | Exception) -> None:
        if not self._queue.full():
            self._queue.put_nowait(item)

    async def next(self) -> bytes:
        """The next datagram; raises the error the system reported instead."""
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item


async def _ask_tcp(server: Endpoint, question: Question, timeout_s: float) -> Reply:
    """One question over a TCP connection of its own."""
    async with asyncio.timeout(timeout_s):
        stream = await open_stream(server, timeout_s)
        try:
            await stream.write(format_framed(format_question(question)))
            received = bytearray()
            while (message := parse_framed(received)) is None:
                octets = await stream.read()
                if not octets:
                    raise ConnectionResetError("closed the TCP connection before its answer was whole")
                received += octets
        finally:
            stream.abort()
    return parse_reply(message, question, exact_case=False)


def _is_loopback(server: Endpoint) -> bool:
    return ipaddress.ip_address(server.host).is_loopback


class _Cache:
    """Least recently used entries go when the octets exceed the bound; expired ones when they are met."""

    def __init__(self, limit_octets: int) -> None:
        self._limit_octets = limit_octets
        self._octets = 0
        self._entries: OrderedDict[tuple[str, str], tuple[float, Answer | ResolverFailure]] = OrderedDict()

    def find(self, key: tuple[str, str], now_s: float) -> Answer | ResolverFailure | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= now_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def keep(self, key: tuple[str, str], kept: Answer | ResolverFailure, until_s: float) -> None:
        self._drop(key)
        self._entries[key] = (until_s, kept)
        self._octets += _size_octets(kept)
        while self._octets > self._limit_octets:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: tuple[str, str]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._octets -= _size_octets(entry[1])


def _size_octets(kept: Answer | ResolverFailure) -> int:
    """About what an entry occupies."""
    if isinstance(kept, ResolverFailure):
        return ENTRY_OCTETS + len(kept.reason)
    data = sum(len(rdata) if isinstance(rdata, (str, bytes)) else 64 for rdata in kept.rdatas)
    return ENTRY_OCTETS + 3 * len(kept.name) + 60 * len(kept.rdatas) + data
