"""Postfix and Dovecot, each with a configuration of the bench's own on a loopback address of its own.

Contract: nothing of /etc is read or changed; both are as durable as they come (Postfix always syncs, Dovecot's mail_fsync
    stays `optimized`, which syncs every save), and both log every mail to a file, as Fumibako does. What only costs them
    time here is off: DNS look-ups and chroots.
Failure: RuntimeError; NotRoot, because both want to start as root.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.machine import wait_until
from bench.servers import DOMAIN, IMAP_PORT, IMAPS_PORT, PASSWORD, SMTP_PORT

_DELIVERY_AGENTS = 8        # on two processors fewer agents deliver more: the best of the peer is what counts
_OWNER = pwd.getpwnam("nobody")

_MAIN = """compatibility_level = 3.7
queue_directory = {place}/queue
data_directory = {place}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = peer.{domain}
mydestination =
local_recipient_maps =
alias_maps =
mynetworks = 127.0.0.0/8
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {place}/mail
virtual_mailbox_maps = inline:{{ {boxes} }}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_transport = {transport}
disable_dns_lookups = yes
smtpd_peername_lookup = no
notify_classes =
maillog_file = {place}/mail.log
maillog_file_prefixes = {place}
"""
_MASTER = """{host}:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - {agents} virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
scache unix - - n - 1 scache
"""
_DOVECOT = """base_dir = {place}/run
state_dir = {place}/state
log_path = {place}/log
protocols = imap lmtp
ssl = {ssl}
{certificate}
disable_plaintext_auth = no
mail_location = maildir:~/Maildir
mail_max_userip_connections = 0
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={place}/mail/%n
}}
service imap-login {{
  chroot =
  service_count = 0
  client_limit = 2000
  inet_listener imap {{
    address = {host}
    port = {imap}
  }}
  inet_listener imaps {{
    address = {host}
    port = {imaps}
  }}
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
}}
"""


class NotRoot(RuntimeError):
    """The peers cannot be started."""


class Dovecot:
    """IMAP and LMTP over Maildir. tls: directory with cert.pem and key.pem, for implicit TLS."""

    name = "Dovecot"

    def __init__(self, place: Path, host: str, tls: Path | None = None) -> None:
        _need_root()
        self.host, self._mail = host, place / "mail"
        for name in ("mail", "run", "state"):
            (place / name).mkdir(parents=True)
        os.chown(self._mail, _OWNER.pw_uid, _OWNER.pw_gid)
        certificate = f"ssl_cert = <{tls}/cert.pem\nssl_key = <{tls}/key.pem" if tls else ""
        (place / "dovecot.conf").write_text(_DOVECOT.format(
            place=place, host=host, imap=IMAP_PORT, imaps=IMAPS_PORT if tls else 0, ssl="yes" if tls else "no",
            certificate=certificate, password=PASSWORD, uid=_OWNER.pw_uid, gid=_OWNER.pw_gid))
        self.lmtp = place / "run" / "lmtp"
        self._process = subprocess.Popen(["dovecot", "-F", "-c", place / "dovecot.conf"])
        self.pid = self._process.pid
        wait_until(self.lmtp.exists, "dovecot")

    def delivered(self) -> int:
        return _count(self._mail.glob("*/Maildir"))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


class Postfix:
    """Takes mail by SMTP and delivers it to Maildirs of its own, or by LMTP to a Dovecot."""

    def __init__(self, place: Path, users: Sequence[str], host: str, dovecot: Dovecot | None = None) -> None:
        _need_root()
        self.name = "Postfix → Dovecot LMTP" if dovecot else "Postfix → Maildir"
        self.host, self._place, self._dovecot = host, place, dovecot
        for name in ("etc", "queue", "data", "mail"):
            (place / name).mkdir(parents=True)
        os.chown(place / "mail", _OWNER.pw_uid, _OWNER.pw_gid)
        os.chown(place / "data", pwd.getpwnam("postfix").pw_uid, -1)
        boxes = " ".join(f"{{ {user}@{DOMAIN} = {user}/ }}" for user in users)
        transport = f"lmtp:unix:{dovecot.lmtp}" if dovecot else "virtual"
        (place / "etc" / "main.cf").write_text(_MAIN.format(
            place=place, domain=DOMAIN, boxes=boxes, uid=_OWNER.pw_uid, gid=_OWNER.pw_gid, transport=transport))
        (place / "etc" / "master.cf").write_text(_MASTER.format(host=host, port=SMTP_PORT, agents=_DELIVERY_AGENTS))
        self._command("start")
        self.pid = int((place / "queue/pid/master.pid").read_text())

    @property
    def pids(self) -> tuple[int, ...]:
        """The roots of all processes that take part."""
        return (self.pid, self._dovecot.pid) if self._dovecot else (self.pid,)

    def _command(self, word: str) -> None:
        done = subprocess.run(["postfix", "-c", self._place / "etc", word], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"postfix {word}: {done.stdout}{done.stderr}")

    def delivered(self) -> int:
        return self._dovecot.delivered() if self._dovecot else _count((self._place / "mail").iterdir())

    def stop(self) -> None:
        self._command("stop")
        if self._dovecot:
            self._dovecot.stop()


def _count(maildirs: Iterable[Path]) -> int:
    """Files that are whole: Maildir renames them out of tmp."""
    total = 0
    for maildir in maildirs:
        for name in ("new", "cur"):
            if (maildir / name).is_dir():
                total += sum(1 for _ in os.scandir(maildir / name))
    return total


def _need_root() -> None:
    if os.geteuid():
        raise NotRoot("Postfix and Dovecot are started as root: sudo make bench")
