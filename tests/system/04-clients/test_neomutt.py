"""neomutt on a terminal: reads a Japanese mail from the screen, answers it, flags it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import arrived, hand_in, imap, letter, messages, tool
from tests.support.server import PASSWORD, LiveServer, eventually, needs

pytestmark = pytest.mark.system
CAROL, BOB = "carol@example.jp", "bob@example.jp"


class Screen:
    """A terminal of 100 x 30 with a program in it."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def _tmux(self, *arguments: str) -> str:
        return tool("tmux", "-S", self._socket, "-f", "/dev/null", *arguments, env={"SHELL": "/bin/sh"})

    def start(self, *command: str, home: Path) -> None:
        self._tmux("new-session", "-d", "-x", "100", "-y", "30", f"HOME={home} LANG=C.UTF-8 TERM=screen {' '.join(command)}")

    def text(self) -> str:
        return self._tmux("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def shows(self, words: str) -> str:
        return eventually(lambda: text if words in (text := self.text()) else "", f"{words!r} on the screen", 15)

    def stop(self) -> None:
        tool("tmux", "-S", self._socket, "kill-server", expect=None)


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    needs("tmux", "neomutt")
    found = Screen(Path("/tmp") / f"fumibako-{uuid.uuid4().hex[:8]}.tmux")
    yield found
    found.stop()


def test_reads_answers_and_flags(house: LiveServer, screen: Screen, tmp_path: Path) -> None:
    with imap(house, CAROL) as client:
        client.select("INBOX")
        client.store("1:*", "+FLAGS", "\\Deleted")
        client.expunge()
    invitation = letter("会議のお知らせ", sender=BOB, to=CAROL, body="来週の会議は①会議室です。\n")
    hand_in(house.place.endpoint("smtp"), invitation, BOB, CAROL, helo="client.example.jp")
    address, port = house.place.endpoint("imaps")
    sending, sending_port = house.place.endpoint("submissions")
    (tmp_path / "rc").write_text(f"""
set folder = "imaps://{address}:{port}/"
set spoolfile = "+INBOX"
set imap_user = "{CAROL}"
set imap_pass = "{PASSWORD}"
set smtp_url = "smtps://{CAROL}@{sending}:{sending_port}/"
set smtp_pass = "{PASSWORD}"
set smtp_authenticators = "plain"
set certificate_file = "{house.certificate}"
set ssl_verify_host = no
set from = "{CAROL}"
set hostname = "example.jp"
set record = "+Sent"
set use_envelope_from = yes
set editor = "{tmp_path}/editor"
set sleep_time = 0
set fast_reply = yes
set include = yes
set abort_unmodified = no
set header_cache = ""
set tmpdir = "{tmp_path}"
set wait_key = no
""")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "\\n承知しました。\\n" >>"$1"\n')
    editor.chmod(0o755)
    screen.start("neomutt", "-n", "-F", str(tmp_path / "rc"), home=tmp_path)
    screen.shows("会議のお知らせ")
    screen.press("F")
    screen.press("Enter")
    screen.shows("来週の会議は①会議室です。")
    screen.press("r")
    screen.shows("y:Send")
    screen.press("y")
    reply = arrived(house, "Re: 会議のお知らせ", BOB)
    assert "承知しました。" in reply.get_content()
    assert "> 来週の会議は①会議室です。" in reply.get_content()
    assert reply["In-Reply-To"]
    eventually(lambda: _in_sent(house), "the copy in Sent")
    screen.press("q")
    screen.press("q")
    with imap(house, CAROL) as client:
        client.select("INBOX")
        flags = eventually(lambda: _flags(client), "the flags are told")
    assert all(flag in flags for flag in (b"\\Flagged", b"\\Seen", b"\\Answered")), flags


def _in_sent(server: LiveServer) -> bool:
    with imap(server, CAROL) as client:
        return any("承知しました".encode() in one or b"5om/55+l" in one for one in messages(client, "Sent"))


def _flags(client: object) -> bytes:
    client.noop()       # type: ignore[attr-defined]
    flags: bytes = client.fetch("1", "(FLAGS)")[1][0]      # type: ignore[attr-defined]
    return flags if b"\\Answered" in flags and b"\\Flagged" in flags else b""
