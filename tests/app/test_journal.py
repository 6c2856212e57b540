"""Trace and log lines: one JSON object each, whatever a peer has said; a full file makes room."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from fumibako.app import journal
from fumibako.app.journal import JsonLines, TraceFile, read_trace
from fumibako.model.ids import TraceId
from fumibako.net.clock import Clock

ONE, TWO = TraceId(b"1" * 16), TraceId(b"2" * 16)


def test_a_query_finds_every_line_of_the_same_mail(tmp_path: Path) -> None:
    trace = TraceFile(tmp_path, Clock())
    trace.event(ONE, "received", sender="taro@a.example")
    trace.event(TWO, "received", sender="jiro@a.example")
    trace.event(ONE, "delivered", mailbox="INBOX")

    found = read_trace(tmp_path, "TARO@")

    assert [line["kind"] for line in found] == ["received", "delivered"]
    assert read_trace(tmp_path, "nobody") == []


def test_a_hostile_value_stays_inside_its_line(tmp_path: Path) -> None:
    trace = TraceFile(tmp_path, Clock())
    trace.event(ONE, "helo", helo='x"\r\n{"forged": 1}\x1b[2J\u202e\x85' + "y" * 5_000)

    lines = (tmp_path / journal.TRACE_FILE).read_bytes().split(b"\n")
    assert len(lines) == 2 and lines[1] == b""
    assert lines[0].isascii() and b"\x1b" not in lines[0]
    assert len(json.loads(lines[0])["helo"]) == journal.VALUE_CHARACTERS


def test_a_line_cut_by_a_crash_is_passed_over(tmp_path: Path) -> None:
    TraceFile(tmp_path, Clock()).event(ONE, "received")
    with (tmp_path / journal.TRACE_FILE).open("ab") as file:
        file.write(b'{"trace_id": "3131')

    assert len(read_trace(tmp_path, "received")) == 1


def test_a_full_file_is_renamed_and_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "TRACE_FILE_OCTETS", 2_000)
    monkeypatch.setattr(journal, "_LOOK_EVERY", 10)
    trace = TraceFile(tmp_path, Clock())
    for number in range(35):
        trace.event(ONE, "step", number=number, padding="x" * 60)

    assert (tmp_path / "trace.1.jsonl").exists()
    assert read_trace(tmp_path, "step")[-1]["number"] == 34


def test_a_log_record_is_one_json_object() -> None:
    record = logging.LogRecord("fumibako", logging.INFO, __file__, 1, "HELO %s", ("a\nb",), None)

    assert json.loads(JsonLines().format(record))["message"] == "HELO a\nb"
    assert "\n" not in JsonLines().format(record)
