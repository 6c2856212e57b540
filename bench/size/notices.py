"""From the 250 of a delivery to the untagged EXISTS of IDLE sessions in another worker.

Contract: two workers, moderate load: a delivery every 20 ms. Which worker a connection is in is known from the files of the
    process; only pairs in different workers count. Time runs from the 250's arrival at the client; a notice that is there
    first counts as 0.
Failure: RuntimeError when no session is in another worker, or a notice does not come.
"""

from __future__ import annotations

import os
import smtplib
import socket
import threading
import time
from pathlib import Path

from bench.imap import ImapClient
from bench.servers import DOMAIN, SMTP_PORT
from bench.size.fill import message
from bench.size.place import Place, Serving, add_accounts
from bench.size.timing import load, spread

HOST = "127.78.0.5"
_SESSIONS, _MOST_SESSIONS, _PAUSE_S, _PATIENCE_S = 8, 50, 0.02, 10.0


def measure(directory: Path, samples: int) -> dict[str, object]:
    place = Place(directory, HOST)
    with place.engine() as engine:
        add_accounts(engine, ["idler"], opened=True)
    with place.serve() as serving, smtplib.SMTP(HOST, SMTP_PORT, "client.example.org") as smtp:
        assert smtp.sock
        home, clients, other = _worker(serving, smtp.sock), [], None
        while len(clients) < _SESSIONS or other is None:
            clients.append(place.client("idler", source=f"127.78.1.{len(clients) + 1}"))
            if _worker(serving, clients[-1].socket) != home:
                other = clients[-1]
            if len(clients) > _MOST_SESSIONS:
                raise RuntimeError(f"{len(clients)} sessions and the delivery are all in one worker")
        for client in clients:
            client.command("SELECT INBOX")
            client.idle()
        found = {"samples": samples, **spread(_delays_ms(smtp, other, samples)), "load": load()}
        print(f"  {found}", flush=True)
        return found


def _delays_ms(smtp: smtplib.SMTP, client: ImapClient, samples: int) -> list[float]:
    heard: list[float] = []

    def listen() -> None:
        while len(heard) < samples:
            octets = client.socket.recv(1 << 16)
            heard.extend([time.perf_counter()] * octets.count(b" EXISTS\r\n"))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    found = []
    for number in range(samples):
        smtp.sendmail("sender@example.org", [f"idler@{DOMAIN}"], message(number))
        accepted = time.perf_counter()
        while len(heard) <= number:
            if time.perf_counter() > accepted + _PATIENCE_S:
                raise RuntimeError(f"no notice of message {number + 1}")
            time.sleep(0.0002)
        found.append(max(0.0, heard[number] - accepted) * 1000)
        time.sleep(_PAUSE_S)
    return found


def _worker(serving: Serving, ours: socket.socket) -> int:
    """The process that has the other end."""
    host, port = ours.getsockname()[:2]
    there = f"{socket.inet_aton(host)[::-1].hex().upper()}:{port:04X}"
    inode = next(fields[9] for line in Path("/proc/net/tcp").read_text().splitlines()
                 if (fields := line.split())[2] == there)
    for role, pid in serving.roles.items():
        if role.startswith("worker") and any(
                os.readlink(entry) == f"socket:[{inode}]" for entry in Path(f"/proc/{pid}/fd").iterdir()):
            return pid
    raise RuntimeError(f"nobody serves {there}")
