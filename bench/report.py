"""The results of a run: a JSON file for machines, docs/benchmarks.md and docs/bench.svg for people.

Contract: every figure of the page is a median of the run's own rounds, every ratio is between servers of that one run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.chart import Bar, bar_chart

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"
OWN = "Fumibako"

# What stands from here on is written by bench.size and kept.
SIZE_BEGIN, SIZE_END = "<!-- size: written by python -m bench.size -->", "<!-- /size -->"

Rows = list[dict[str, Any]]


def write(results: dict[str, Any]) -> str:
    """All three files; returns the page."""
    RESULTS.mkdir(exist_ok=True)
    stamp = results["begun"].replace(":", "").replace("-", "")
    (RESULTS / f"{stamp}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    page = format_page(results)
    place = DOCS / "benchmarks.md"
    _, marker, size = place.read_text().partition(SIZE_BEGIN) if place.exists() else ("", "", "")
    place.write_text(f"{page}\n{marker}{size}" if marker else page)
    (DOCS / "bench.svg").write_text(_chart(results))
    return page


def format_page(results: dict[str, Any]) -> str:
    machine = results["machine"]
    return "\n".join([
        "# Benchmarks",
        "",
        "Written by `make bench`; the servers take turns in one run on one machine, over loopback, without TLS where not said",
        "otherwise. Medians of the rounds. How: `bench/`; every round: `bench/results/`.",
        "",
        f"{machine['processors']} × {machine['processor']}, {machine['memory_gb']} GB, {machine['system']}, "
        f"Python {machine['python']}; {results['begun'][:10]}; load before the run {results['load']:.1f}.",
        "",
        "![Messages per second into the mailbox](bench.svg)",
        "",
        *_delivery(results), *_latency(results), *_fetch(results), *_idle(results),
    ])


def _delivery(results: dict[str, Any]) -> list[str]:
    lines = ["## Delivery", "",
             "smtp-source: 20 sessions, 4 KB a message, a connection each where not said otherwise; counted until every message",
             "is in its mailbox. Everybody syncs before 250.", ""]
    for title, rows in results["delivery"].items():
        rates = {name: _median(rows, name, "messages_per_s") for name in _names(rows)}
        table = [(name, f"{rate:,.0f}", f"{_median(rows, name, 'accepted_per_s'):,.0f}",
                  f"{_median(rows, name, 'cpu_ms'):.2f}", f"{rates[OWN] / rate:.2f}") for name, rate in rates.items()]
        lines += markdown_table((title, "messages/s", "accepted/s", "CPU ms/message", f"{OWN} is … times as fast"), table)
    return lines


def _latency(results: dict[str, Any]) -> list[str]:
    rows: Rows = results.get("latency", [])
    if not rows:
        return []
    lines = ["## Waiting for 250", "",
             "10 mailboxes; each session sends its next 4 KB message on its connection as soon as it has its 250. From the end",
             "of a message to its 250; how late the event loop of the worst worker is, and an answer of the storage process.", ""]
    head = ("", "messages/s", "p50, ms", "p99, ms", "max, ms", "loop: p99 / max, ms", "storage: p99 / max, ms")
    pairs = [(name, sessions) for name in _names(rows) for sessions in sorted({row["sessions"] for row in rows})]
    return lines + markdown_table(head, [
        _waited(f"{name}, {sessions} sessions", [row for row in rows if (row["server"], row["sessions"]) == (name, sessions)])
        for name, sessions in pairs])


def _waited(title: str, rows: Rows) -> tuple[str, ...]:
    def middle(*names: str) -> str:
        return f"{median(row[names[0]] if len(names) == 1 else row[names[0]][names[1]] for row in rows):,.0f}"
    return (title, middle("messages_per_s"), middle("reply", "p50_ms"), middle("reply", "p99_ms"), middle("reply", "max_ms"),
            f"{middle('loop_p99_ms')} / {middle('loop_max_ms')}",
            f"{middle('storage', 'p99_ms')} / {middle('storage', 'max_ms')}")


def _fetch(results: dict[str, Any]) -> list[str]:
    rows: Rows = results["fetch"]
    if not rows:
        return []
    later, first = [row for row in rows if not row["first"]], [row for row in rows if row["first"]]
    table = [(name, f"{_median(first, name, 'elapsed_ms'):,.0f}", f"{_median(later, name, 'elapsed_ms'):,.0f}",
              f"{_median(later, name, 'cpu_ms'):,.0f}",
              f"{_median(later, OWN, 'elapsed_ms') / _median(later, name, 'elapsed_ms'):.2f}") for name in _names(rows)]
    return ["## FETCH", "", f"`FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE)` over {results['fetch_messages']:,} messages.", "",
            *markdown_table(("", "first, ms", "warm, ms", "CPU ms", f"{OWN} takes … times as long"), table)]


def _idle(results: dict[str, Any]) -> list[str]:
    rows: Rows = results["idle"]
    if not rows:
        return []
    table = [(row["server"], f"{row['octets_each'] / 1024:,.0f}") for row in rows]
    waiting = f"{rows[0]['connections']} IMAP connections over TLS that wait in IDLE"
    return ["## Memory", "", f"{waiting}: growth of all processes together.", "", *markdown_table(("", "KB a connection"), table)]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown; the first column is text, the others are figures."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [*("| " + " | ".join(row) + " |" for row in (head, rule, *rows)), ""]


def _chart(results: dict[str, Any]) -> str:
    rows: Rows = next(iter(results["delivery"].values()))
    bars = [Bar(name, _median(rows, name, "messages_per_s"), emphasised=name == OWN) for name in _names(rows)]
    return bar_chart("4 KB messages per second into the mailbox, durable", bars)


def _names(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["server"] for row in rows))


def _median(rows: Rows, server: str, figure: str) -> float:
    return float(median(row[figure] for row in rows if row["server"] == server))
