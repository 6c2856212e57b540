"""What the processes of a server may do, what they leave behind, and what they show of themselves (reliability.md, check 41)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import smtplib
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.clients import imap, letter, messages, submit
from tests.support.nobody import handed_to_nobody, readable_program
from tests.support.server import PASSWORD, LiveServer, needs

pytestmark = pytest.mark.system
CALLS_OF_ROOT = {"chown", "fchown"}     # what root makes goes to the owner of its directory; an ordinary user makes none of them


def _status(process: int) -> dict[str, str]:
    return dict(re.findall(r"(?m)^(\w+):[ \t]*(.*)$", Path(f"/proc/{process}/status").read_text()))


def _demand_harmless(server: LiveServer, user: int) -> None:
    assert server.process is not None
    secrets = [PASSWORD, *(line for line in (server.directory / "tls" / "key.pem").read_text().split("\n") if len(line) > 30
                           and "-----" not in line)]
    for process in (server.process.pid, *server.children()):
        status = _status(process)
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(user)}, status
        for held in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert int(status[held], 16) == 0, (held, status)
        assert (status["NoNewPrivs"], status["Umask"], status["Groups"].strip()) == ("1", "0077", ""), status
        limits = Path(f"/proc/{process}/limits").read_text()
        assert re.search(r"(?m)^Max core file size\s+0\s+0\s", limits), limits
        shown = Path(f"/proc/{process}/cmdline").read_bytes() + Path(f"/proc/{process}/environ").read_bytes()
        assert not [secret for secret in secrets if secret.encode() in shown]


def _demand_private(directory: Path, user: int) -> None:
    for path in (directory, *directory.rglob("*")):
        found = path.lstat()
        assert found.st_uid == user, path
        assert stat.S_IMODE(found.st_mode) == (0o700 if path.is_dir() else 0o600), (path, oct(found.st_mode))


def _use(server: LiveServer) -> None:
    """Makes what a server makes: accounts, mail, a trace."""
    try:
        submit(server, letter("as nobody", sender="alice@example.jp", attachment=b"x" * 400_000), "alice@example.jp")
    except smtplib.SMTPException as refused:
        raise AssertionError(f"{refused}\n{server.errors_text()}") from refused
    with imap(server) as client:
        assert len(messages(client)) == 1


@pytest.mark.root
@pytest.mark.parametrize("workers", ["0", "2"])
def test_started_as_root_nothing_is_left_of_it(
    fresh: LiveServer, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    user = handed_to_nobody(fresh)
    fresh.configure(server__workers=workers)
    with readable_program(fresh, monkeypatch):
        fresh.populate("example.jp", "alice")
        fresh.start()
        _demand_harmless(fresh, user)
        _use(fresh)
        _demand_private(fresh.directory, user)
        fresh.stop()


@pytest.mark.root
def test_a_capability_that_the_unit_gave_is_given_up(
    fresh: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User= and AmbientCapabilities=CAP_NET_BIND_SERVICE, as in packaging/systemd/fumibako.service."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("not installed: setpriv")
    user = handed_to_nobody(fresh)
    with readable_program(fresh, monkeypatch):
        fresh.populate("example.jp", "alice")
        fresh.program = (setpriv, f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=+net_bind_service",
                         "--ambient-caps=+net_bind_service", "--", *fresh.program)
        fresh.start()
        _demand_harmless(fresh, user)
        _use(fresh)
        fresh.stop()


def test_the_log_names_no_password(fresh: LiveServer) -> None:
    fresh.init()
    fresh.populate("example.jp", "alice")
    fresh.start()
    _use(fresh)
    fresh.stop()
    written = fresh.errors_text() + (fresh.directory / "trace.jsonl").read_text()
    assert PASSWORD not in written


def test_the_calls_that_the_unit_forbids_are_never_made(fresh: LiveServer, tmp_path: Path) -> None:
    """SystemCallFilter= and MemoryDenyWriteExecute= of packaging/systemd/fumibako.service, see systemd.exec(5)."""
    needs("strace", "systemd-analyze")
    fresh.init()
    fresh.populate("example.jp", "alice")
    calls = tmp_path / "calls"
    fresh.program = ("strace", "-f", "-qq", "-s", "0", "-e", "signal=none", "-o", str(calls), *fresh.program)
    fresh.start()
    _use(fresh)
    os.kill(fresh.children()[0], signal.SIGTERM)        # strace's child
    assert fresh.process is not None
    assert fresh.process.wait(20) == 0
    lines = calls.read_text().split("\n")
    refused = [line for line in lines if "SHM_EXEC" in line
               or ("PROT_EXEC" in line and ("mprotect(" in line or "PROT_WRITE" in line))]
    assert len(lines) > 5000 and not refused, refused[:5]
    made = {found[1] for line in lines if (found := re.match(r"\d+ +(\w+)\(", line))}
    forbidden = made - (_call_set("@system-service") - _call_set("@privileged") | {"capset"}) - CALLS_OF_ROOT
    assert {"openat", "accept4", "fdatasync"} <= made and not forbidden, forbidden
    fresh.process.stdout.close()        # type: ignore[union-attr]
    fresh.process = None


def _call_set(name: str) -> set[str]:
    """What systemd understands by @name."""
    done = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", name], capture_output=True, text=True, check=True)
    words = {line.strip() for line in done.stdout.split("\n")[1:] if line.strip() and "#" not in line}
    return {call for word in words for call in (_call_set(word) if word.startswith("@") else {word})}
