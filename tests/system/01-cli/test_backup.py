"""fumibako backup and restore as commands: words, JSON, exit codes, languages; a single account with the server up or down."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import arrived, hand_in, imap, letter, messages
from tests.support.server import LiveServer, Place, _environment, live_server

pytestmark = pytest.mark.system


@pytest.fixture(params=["up", "down"])
def server(request: pytest.FixtureRequest, tmp_path: Path, place: Place) -> Iterator[LiveServer]:
    """example.jp with alice, who has three messages; afterwards the server runs on, or doesn't."""
    with live_server(tmp_path / "data", place, accounts=("alice",)) as found:
        for subject in ("one", "two", "three"):
            hand_in(found.place.endpoint("smtp"), letter(subject), "bob@neighbour.example", "alice@example.jp")
            arrived(found, subject)
        if request.param == "down":
            found.stop()
        yield found


def test_an_account_gets_back_what_it_lost(server: LiveServer, tmp_path: Path) -> None:
    up = server.process is not None
    place = tmp_path / "b"
    said = server.run_cli("backup", str(place), "--keep", "2", "--verify")
    assert said.returncode == 0 and said.stdout.startswith(f"written: {place}/2") and "backup: 100 %" in said.stderr
    if not up:
        server.start()
    with imap(server) as client:
        assert len(messages(client)) == 3
        client.select("INBOX")
        client.store("1:2", "+FLAGS", "\\Deleted")
        client.expunge()
    if not up:
        server.stop()
    found = server.json("restore", str(place), "--account", "alice@example.jp", "--lang", "ja")
    assert (found["restored"], found["present"]) == (2, 1)
    name, = found["mailboxes"]
    assert re.fullmatch(r"復元 \d{4}-\d\d-\d\d/INBOX", name)
    assert server.json("restore", str(place), "--account", "alice@example.jp")["restored"] == 0
    said = server.run_cli("restore", str(place), "--account", "alice@example.jp", "--all", "--mailbox", "INBOX",
                          "--into", "Back {1}")
    assert said.returncode == 0 and "3 messages restored, 0 were there already\n  Back {1}\n" in said.stdout
    if not up:
        server.start()
    with imap(server) as client:
        assert len(messages(client)) == 1 and len(messages(client, '"Back {1}"')) == 3
        assert {b"Subject: one", b"Subject: two"} <= {
            line for message in messages(client, '"Back {1}"') for line in message.split(b"\r\n")}


def test_every_no_is_one_line(server: LiveServer, tmp_path: Path) -> None:
    server.cli("backup", str(tmp_path / "b"))
    inside = server.directory / "backup"
    for arguments, words in (
            (("backup", str(inside)), "lies in the data directory"), (("restore", str(tmp_path)), "is no backup"),
            (("restore", str(tmp_path / "b"), "--account", "carol@example.jp"), "has no account carol@example.jp"),
            (("restore", str(tmp_path / "b")), "is in use" if server.process else "holds accounts or mail already")):
        said = server.run_cli(*arguments)
        assert said.returncode == 1 and words in said.stderr.split("\n")[-2], (arguments, said)
        assert "Traceback" not in said.stderr
    said = server.run_cli("restore", str(tmp_path / "b"), "--all")
    assert said.returncode == 2 and "--account" in said.stderr
    assert not inside.exists() and "error" in json.loads(server.run_cli("backup", str(inside), "--json").stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_full_destination_is_left_as_it_was(tmp_path: Path, place: Place) -> None:
    server = LiveServer(tmp_path / "data", place)
    server.init()
    server.populate("example.jp", "alice")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], check=False, env=_environment())
    if mounted.returncode != 0:
        pytest.skip("mount is not allowed here")
    try:
        said = server.run_cli("backup", str(disk / "b"))
        assert said.returncode == 1 and "disk" in said.stderr.split("\n")[-2]
        assert {path.name for path in (disk / "b").iterdir()} == {".lock"}
    finally:
        subprocess.run(["umount", str(disk)], check=True, env=_environment())
