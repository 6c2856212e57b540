"""fumibako export and import as a person types them, with the server up and down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.server import LiveServer

pytestmark = pytest.mark.system
ALICE, BOB = "alice@example.jp", "bob@example.jp"
MAIL = b"Subject: hello\n\nFrom the start\nbody\n"


def test_in_out_and_in_again(server: LiveServer, tmp_path: Path) -> None:
    maildir = tmp_path / "Maildir"
    for name in ("cur", "new", "tmp", ".Work.2024/cur"):
        (maildir / name).mkdir(parents=True)
    for number in range(30):
        (maildir / "cur" / f"{number}.host:2,S").write_bytes(MAIL + b"%d\n" % number)
        (maildir / ".Work.2024" / "cur" / f"{number}.host:2,F").write_bytes(MAIL + b"%d\n" % number)
    (maildir / ".Work.2024" / "cur" / "big.host:2,").write_bytes(MAIL + b"x" * 400_000)

    came = json.loads(server.say("import", str(maildir), ALICE, "--json"))
    assert (came["format"], came["found"], came["imported"], came["mailboxes"]) == ("maildir", 61, 61, 2)
    code, _, errors = server.here("import", str(maildir), ALICE)
    assert (code, "--merge" in errors) == (1, True)
    assert json.loads(server.say("import", str(maildir), ALICE, "--merge", "--json"))["present"] == 61

    for store in ("maildir", "mbox"):
        went = json.loads(server.say("export", ALICE, str(tmp_path / store), "--format", store, "--json"))
        assert (went["messages"], went["unreadable"]) == (61, [])
        assert server.here("export", ALICE, str(tmp_path / store))[0] == 1
    assert "61" in server.say("import", str(tmp_path / "mbox"), BOB)
    into = json.loads(server.say("import", str(tmp_path / "maildir"), BOB, "--into", "以前のメール", "--json"))
    assert into["imported"] == 61
    shown = json.loads(server.say("account", "show", BOB, "--json"))
    sizes = {one["name"]: one["messages"] for one in shown["mailboxes"] if one["messages"]}
    assert sizes == {"INBOX": 30, "Work/2024": 31, "以前のメール/INBOX": 30, "以前のメール/Work/2024": 31}


def test_the_answer_is_no(server: LiveServer, tmp_path: Path) -> None:
    server.cli("export", expect=2)
    server.cli("import", str(tmp_path), ALICE, "--format", "pst", expect=2)
    for arguments in (("export", "nobody@example.jp", str(tmp_path / "x")), ("import", str(tmp_path / "none"), ALICE),
                      ("export", ALICE, str(tmp_path / "x"), "--mailbox", "none")):
        code, _, errors = server.here(*arguments)
        assert (code, "Traceback" in errors) == (1, False), errors
    server.say("policy", "set", "limits.message_size", "1K")
    from_line = b"From a@b Thu Nov 24 18:22:48 1986\n\n"
    (tmp_path / "mbox").write_bytes(from_line + b"x" * 2000 + b"\n\n" + from_line + b"y\n")
    code, out, _ = server.here("import", str(tmp_path / "mbox"), ALICE, "--json")
    assert (code, json.loads(out)["too_big"], json.loads(out)["imported"]) == (1, 1, 1)
