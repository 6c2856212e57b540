"""`fumibako demo` as a user runs it: everything shown holds, and nothing stays behind however it ends."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PATIENCE_S = 120


@contextmanager
def demo(tmp_path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A run in a session of its own, whose temporary files lie in tmp_path/world."""
    world = tmp_path / "world"
    world.mkdir()
    environment = {**os.environ, "TMPDIR": str(world), "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        [sys.executable, "-m", "fumibako", "demo", *options], env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE_S)
    assert list(world.iterdir()) == [], "its directory is gone"
    assert of_world(world) == [], "its servers are gone"


def of_world(world: Path) -> list[str]:
    """The command lines of processes that work below a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(world) in line:
            found.append(line)
    return found


def until(process: subprocess.Popen[str], text: str) -> list[str]:
    """The lines it prints up to the one that holds the text."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError("".join(lines))


def evidence(rows: list[dict[str, str]], what: str) -> str:
    return next(row["evidence"] for row in rows if row["what"] == what)


def test_every_line_holds_and_your_own_mail_comes_in(tmp_path: Path) -> None:
    maildir = tmp_path / "maildir"
    for place in ("cur", "new", ".Sent/cur"):
        (maildir / place).mkdir(parents=True)
    (maildir / "cur" / "1.host:2,FS").write_bytes("Subject: 日本\n\nbody\n".encode())
    (maildir / ".Sent" / "cur" / "2.host:2,S").write_bytes(b"Subject: two\n\nbody\n")
    picture = tmp_path / "demo.svg"
    with demo(tmp_path, "--json", "--lang", "en", "--maildir", str(maildir), "--svg", str(picture)) as process:
        out, complaints = process.communicate(timeout=PATIENCE_S)
    assert complaints == ""
    rows = json.loads(out)["rows"]
    assert [row for row in rows if row["result"] != "pass"] == []
    assert process.returncode == 0
    assert {tuple(row) for row in rows} == {("act", "what", "result", "evidence")}
    assert len({row["act"] for row in rows}) == 7
    assert evidence(rows, "SHA-256 of each") == "2 = 2"
    assert "235 2.7.0" in evidence(rows, "submission: login")
    assert "TLSv1.3" in evidence(rows, "SMTP with STARTTLS")
    assert "EXPUNGE" in evidence(rows, "gone for IMAP, too")
    assert evidence(rows, "b.example refuses").endswith("550 5.1.1 no such mailbox here")
    assert "0 doubled" in evidence(rows, "counted by IMAP")
    assert "①㈱髙﨑" in re.sub("<[^>]*>", "", picture.read_text("utf-8"))


def test_kept_servers_answer_until_they_are_told_to_end(tmp_path: Path) -> None:
    with demo(tmp_path, "--keep", "--lang", "ja") as process:
        lines = until(process, "Ctrl-C")
        assert not [line for line in lines if line.startswith("FAIL")]
        assert of_world(tmp_path / "world") != []
        if shutil.which("curl"):
            command = next(line for line in lines if line.startswith("curl"))
            fetched = subprocess.run(shlex.split(command), capture_output=True, timeout=PATIENCE_S, check=True)
            assert b"Subject: =?ISO-2022-JP?B?GyRCLSEtanxieXUbKEI=?=" in fetched.stdout
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path, "--lang", "en") as process:
        until(process, "server of b.example")
        assert of_world(tmp_path / "world") != []
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 1
