"""The little internet: root, TLD and resolver, and a neighbour domain with Postfix and Dovecot, all on loopback.

Needs root (`tests.support.server.own_network`). Every daemon runs in the foreground from a configuration of its own under
one temporary directory, bound to its own address, and is stopped by its process id.
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.support.clients import messages, tool
from tests.support.server import die_with_tests, eventually, find_program, own_network

AUTHORITY, RESOLVER = "127.0.53.1", "127.0.53.53"     # NSD for the root and below; Unbound
OURS = "127.0.3.1"                                     # Fumibako, which answers DNS for example.jp itself
MX, STORE = "127.0.25.2", "127.0.25.3"                 # the neighbour's Postfix and Dovecot
NOBODY = "127.0.99.1"                                  # an address where nothing listens
DOMAIN = "neighbour.example"
PEOPLE = ("bob", "carol", "grey", "full")
STOP_S = 15.0

ZONES = {
    ".": """
.                       SOA  ns.root. admin.root. 1 3600 600 86400 1
.                       NS   ns.root.
ns.root.                A    {authority}
example.                NS   ns.root.
jp.                     NS   ns.root.
""",
    "jp.": """
jp.                     SOA  ns.root. admin.root. 1 3600 600 86400 1
jp.                     NS   ns.root.
example.jp.             NS   mail.example.jp.
mail.example.jp.        A    {ours}
""",
    "example.": """
example.                SOA  ns.root. admin.root. 1 3600 600 86400 1
example.                NS   ns.root.
neighbour.example.      MX   10 mx.neighbour.example.
neighbour.example.      MX   5 away.neighbour.example.
mx.neighbour.example.   A    {mx}
away.neighbour.example. A    {nobody}
nullmx.example.         MX   0 .
away.example.           MX   10 away.neighbour.example.
bare.example.           A    {mx}
smarthost.example.      A    {mx}
mute.example.           NS   ns.mute.example.
ns.mute.example.        A    {nobody}
circle.example.         MX   10 mail.example.jp.
""",
}

NSD = """
server:
    ip-address: {authority}
    username: ""
    server-count: 1
    do-ip6: no
    zonesdir: "{home}"
    database: ""
    pidfile: ""
    zonelistfile: "{home}/zone.list"
    xfrdfile: "{home}/xfrd.state"
    xfrdir: "{home}"
    logfile: "{home}/log"
remote-control:
    control-enable: no
"""

UNBOUND = """
server:
    interface: {resolver}
    outgoing-interface: {resolver}
    access-control: 127.0.0.0/8 allow
    do-not-query-localhost: no
    do-ip6: no
    do-daemonize: no
    use-syslog: no
    logfile: "{home}/log"
    username: ""
    chroot: ""
    directory: "{home}"
    pidfile: ""
    root-hints: "{home}/root.hints"
    module-config: "iterator"
    num-threads: 1
    cache-max-ttl: 1
    cache-max-negative-ttl: 1
    infra-host-ttl: 1
remote-control:
    control-enable: no
"""

POSTFIX_MAIN = """
compatibility_level = 3.6
config_directory = {home}/etc
queue_directory = {home}/queue
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {home}/log
maillog_file_prefixes = /
myhostname = mx.neighbour.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_bind_address = {mx}
mynetworks = 127.0.25.0/24
local_recipient_maps =
alias_maps =
alias_database =
virtual_mailbox_domains = neighbour.example
virtual_mailbox_maps = inline:{{ {people} }}
virtual_transport = lmtp:inet:{store}:24
default_database_type = hash
smtpd_recipient_restrictions = check_recipient_access hash:{home}/etc/recipients, permit_mynetworks, reject_unauth_destination
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
smtpd_tls_chain_files = {home}/etc/chain.pem
smtp_tls_security_level = may
smtp_tls_CAfile = {home}/etc/authorities.pem
smtp_tls_loglevel = 1
smtputf8_enable = yes
message_size_limit = 52428800
mailbox_size_limit = 0
virtual_mailbox_limit = 0
minimal_backoff_time = 2s
queue_run_delay = 2s
smtp_connect_timeout = 5s
notify_classes =
"""

POSTFIX_MASTER = """
{mx}:25   inet  n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
lmtp      unix  - - n - - lmtp
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""

# What Postfix answers at RCPT: "grey@" is told to come back until `Neighbour.relent`.
RECIPIENTS = {
    "grey@neighbour.example": "450 4.7.1 Greylisted, come back later",
    "full@neighbour.example": "552 5.2.2 Mailbox full",
}

DOVECOT = """
protocols = imap lmtp
listen = {store}
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
ssl = yes
ssl_cert = <{home}/chain.pem
ssl_key = <{home}/chain.pem
default_internal_user = dovecot
default_login_user = dovenull
first_valid_uid = 1
mail_location = maildir:{home}/mail/%n
auth_mechanisms = plain login
disable_plaintext_auth = no
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={home}/mail/%n allow_all_users=yes
}}
service lmtp {{
  inet_listener lmtp {{
    address = {store}
    port = 24
  }}
}}
protocol lmtp {{
  postmaster_address = postmaster@neighbour.example
}}
mail_max_userip_connections = 50
"""


@dataclass(slots=True)
class Daemon:
    """A foreign server as a child in the foreground, in a process group of its own."""

    name: str
    command: list[str]
    probe: tuple[str, int]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, env=_daemon_environment(),
                preexec_fn=die_with_tests,      # noqa: PLW1509 (it takes no lock)
            )
        eventually(self._listens, f"{self.name} at {self.probe}")

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text('utf-8', 'replace')[-3000:]}"
        try:
            socket.create_connection(self.probe, 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """SIGTERM to the daemon; what is left of its process group after that is killed."""
        if self.process is None:
            return
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


def _daemon_environment() -> dict[str, str]:
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class Neighbour:
    """neighbour.example: Postfix takes its mail, Dovecot keeps it."""

    def __init__(self, home: Path, postfix: Daemon, dovecot: Daemon, authority: trustme.CA) -> None:
        self.home, self.postfix, self.dovecot, self.authority = home, postfix, dovecot, authority
        self.smtp = (MX, 25)
        self._started, self._written = int(home.stat().st_mtime) + 60, 0

    def imap(self, user: str = "bob") -> imaplib.IMAP4_SSL:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        context.check_hostname = False
        client = imaplib.IMAP4_SSL(STORE, 993, ssl_context=context, timeout=15)
        client.login(user, "secret")
        return client

    def inbox(self, user: str = "bob") -> list[bytes]:
        with self.imap(user) as client:
            return messages(client)

    def write_recipients(self, entries: dict[str, str]) -> None:
        path = self.home / "postfix" / "etc" / "recipients"
        path.write_text("".join(f"{address} {answer}\n" for address, answer in entries.items()))
        tool("postmap", "-c", path.parent, f"hash:{path}")
        # Postfix sees a change by whole seconds of the file's time only.
        self._written += 1
        os.utime(path.with_suffix(".db"), (self._started + self._written,) * 2)
        # A session that is open already goes on with the old table.
        eventually(lambda: not _connections(*self.smtp), "no connection to Postfix is left")

    def relent(self) -> None:
        """From the next connection on everybody is taken."""
        self.write_recipients({})

    def trust(self, certificate: Path) -> None:
        """A certificate that Postfix takes for proof of a name."""
        shutil.copy(certificate, self.home / "postfix" / "etc" / "authorities.pem")
        assert self.postfix.process is not None
        self.postfix.process.send_signal(signal.SIGHUP)     # its clients read the file when they start

    def log(self) -> str:
        return self.postfix.log.read_text("utf-8", "replace")

    def flush(self) -> None:
        tool("postqueue", "-c", self.home / "postfix" / "etc", "-f")


def _connections(address: str, port: int) -> list[str]:
    """Established connections of our network to a listener, as the kernel lists them."""
    local = f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:{port:04X}"
    rows = [line.split() for line in Path("/proc/thread-self/net/tcp").read_text().split("\n")[1:-1]]
    return [row[2] for row in rows if (row[1], row[3]) == (local, "01")]


@dataclass(frozen=True, slots=True)
class Internet:
    """resolver: "host:port" that everybody asks."""

    neighbour: Neighbour
    nsd: Daemon
    unbound: Daemon
    resolver: str = f"{RESOLVER}:53"


@contextmanager
def little_internet() -> Iterator[Internet]:
    """All of it, running."""
    home = Path(tempfile.mkdtemp(prefix="fumibako-internet-"))
    home.chmod(0o755)       # the daemons work under users of their own
    own_network(f"nameserver {RESOLVER}\noptions timeout:2 attempts:2\n")
    nsd, unbound = _nsd(home / "nsd"), _unbound(home / "unbound")
    authority = trustme.CA()
    neighbour = Neighbour(home, _postfix(home / "postfix", authority), _dovecot(home / "dovecot", authority), authority)
    neighbour.write_recipients(RECIPIENTS)
    daemons = [nsd, unbound, neighbour.dovecot, neighbour.postfix]
    try:
        for daemon in daemons:
            daemon.start()
        yield Internet(neighbour, nsd, unbound)
    finally:
        for daemon in reversed(daemons):
            daemon.stop()
        shutil.rmtree(home, ignore_errors=True)


def _facts(home: Path) -> dict[str, str]:
    people = ", ".join(f"{one}@{DOMAIN}=here" for one in PEOPLE)
    return {"home": str(home), "authority": AUTHORITY, "resolver": RESOLVER, "ours": OURS, "mx": MX, "store": STORE,
            "nobody": NOBODY, "people": people}


def _program(name: str) -> str:
    found = find_program(name)
    assert found is not None, name
    return found


def _nsd(home: Path) -> Daemon:
    home.mkdir()
    facts = _facts(home)
    text = NSD.format(**facts)
    for number, (zone, records) in enumerate(ZONES.items()):
        (home / f"{number}.zone").write_text("$TTL 60\n" + records.format(**facts))
        text += f'zone:\n    name: "{zone}"\n    zonefile: "{number}.zone"\n'
    (home / "conf").write_text(text)
    return Daemon("nsd", [_program("nsd"), "-d", "-c", str(home / "conf")], (AUTHORITY, 53), home / "out")


def _unbound(home: Path) -> Daemon:
    home.mkdir()
    (home / "root.hints").write_text(f".  60  NS  ns.root.\nns.root.  60  A  {AUTHORITY}\n")
    (home / "conf").write_text(UNBOUND.format(**_facts(home)))
    return Daemon("unbound", [_program("unbound"), "-d", "-c", str(home / "conf")], (RESOLVER, 53), home / "out")


def _postfix(home: Path, authority: trustme.CA) -> Daemon:
    etc = home / "etc"
    etc.mkdir(parents=True)
    (home / "queue").mkdir()
    (home / "data").mkdir()
    owner = pwd.getpwnam("postfix")
    os.chown(home / "data", owner.pw_uid, owner.pw_gid)
    (etc / "main.cf").write_text(POSTFIX_MAIN.format(**_facts(home)))
    (etc / "master.cf").write_text(POSTFIX_MASTER.format(**_facts(home)))
    authority.issue_cert("mx.neighbour.example").private_key_and_cert_chain_pem.write_to_path(str(etc / "chain.pem"))
    authority.cert_pem.write_to_path(str(etc / "authorities.pem"))
    tool("postfix", "-c", etc, "check")      # makes the directories of the queue
    return Daemon("postfix", [_program("master"), "-c", str(etc), "-d"], (MX, 25), home / "log")


def _dovecot(home: Path, authority: trustme.CA) -> Daemon:
    home.mkdir()
    nobody = pwd.getpwnam("nobody")
    (home / "mail").mkdir()
    os.chown(home / "mail", nobody.pw_uid, nobody.pw_gid)
    authority.issue_cert("imap.neighbour.example").private_key_and_cert_chain_pem.write_to_path(str(home / "chain.pem"))
    (home / "conf").write_text(DOVECOT.format(**_facts(home)))
    return Daemon("dovecot", [_program("dovecot"), "-F", "-c", str(home / "conf")], (STORE, 143), home / "out")
