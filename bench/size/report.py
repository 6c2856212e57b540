"""The results of a run of sizes: a JSON file, a section of docs/benchmarks.md between markers of its own, and docs/size.svg.

Contract: a measure that was not run keeps what the last run found: the newest file of results that has it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bench.chart import Line, growth_chart
from bench.report import DOCS, RESULTS, SIZE_BEGIN, SIZE_END, markdown_table

MB = 1024 * 1024
_PARTS = ("mailbox", "accounts", "bulk", "waiting", "notices", "small")


def write(results: dict[str, Any]) -> str:
    """Returns the section."""
    RESULTS.mkdir(exist_ok=True)
    stamp = results["begun"].replace(":", "").replace("-", "")
    (RESULTS / f"size-{stamp}-{os.getpid()}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return show()


def show() -> str:
    """The page and the chart from the results there are."""
    known = _newest()
    section = "\n".join([SIZE_BEGIN, *format_section(known), SIZE_END])
    page = DOCS / "benchmarks.md"
    kept = page.read_text().partition(SIZE_BEGIN)[0].rstrip("\n")
    page.write_text(f"{kept}\n\n{section}\n")
    (DOCS / "size.svg").write_text(_chart(known))
    return section


def _newest() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(Path(RESULTS).glob("size-*.json")):
        results = json.loads(path.read_text())
        found |= {"begun": results["begun"], "machine": results["machine"]}
        found |= {part: results[part] for part in _PARTS if results.get(part)}
    return found


def format_section(known: dict[str, Any]) -> list[str]:
    parts = {"mailbox": _mailbox, "accounts": _accounts, "bulk": _bulk, "waiting": _waiting, "notices": _notices, "small": _small}
    machine = known["machine"]
    lines = ["## Size", "", "Written by `python -m bench.size`: directories filled through the store's own operations, then",
             f"served by `fumibako serve` for real clients over loopback. {machine['processors']} × {machine['processor']}, "
             f"{machine['memory_gb']} GB; {known['begun'][:10]}.", "",
             "![From 1 to 1,000,000 messages in a mailbox, and from 1 to 100,000 accounts](size.svg)", ""]
    for part, shown in parts.items():
        if part in known:
            lines += shown(known[part])
    return lines


def _mailbox(rows: list[dict[str, Any]]) -> list[str]:
    head = ("messages in one mailbox", "filled, s", "SELECT cold, ms", "SELECT warm, ms", "FETCH of 50, ms",
            "UID FETCH of none, ms", "STATUS, ms", "worker's memory + MB, 1 session", "20 sessions", "load")
    return markdown_table(head, [(f"{row['messages']:,}", f"{row['fill_s']:.1f}", f"{row['cold_ms']:.0f}",
                         f"{row['warm_ms']:.1f}",
                         f"{row['window_ms']:.1f}", f"{row['newer_ms']:.1f}", f"{row['status_ms']:.1f}",
                         f"{(row['memory_one'] - row['memory_before']) / MB:.1f}",
                         f"{(row['memory_twenty'] - row['memory_before']) / MB:.1f}", f"{row['load']}") for row in rows])


def _accounts(rows: list[dict[str, Any]]) -> list[str]:
    head = ("accounts, unused", "shards", "added, µs each", "disk, MB", "start, s", "storage, MB", "a worker, MB",
            "CPU at rest, %", "login, ms", "RCPT, ms", "`account list`, s", "load")
    return markdown_table(head, [(f"{row['accounts']:,}", str(row["shards"]), f"{row['add_ms'] * 1000:.0f}",
                         f"{row['disk_octets'] / MB:.1f}", f"{row['start_s']:.2f}",
                         f"{row['storage_octets'] / MB:.0f}", f"{row['worker_octets'] / MB:.0f}",
                         f"{row['idle_cpu_share'] * 100:.1f}", f"{row['login_ms']:.0f}", f"{row['rcpt_ms']:.2f}",
                         f"{row['list_ms'] / 1000:.2f}", f"{row['load']}") for row in rows])


def _bulk(rows: list[dict[str, Any]]) -> list[str]:
    names = list(rows[0]["others"])
    head = (f"of {rows[-1]['count']:,.0f} in {rows[0]['messages']:,.0f}", "ms",
            *(f"{name}: p50 / p99 / max, ms" for name in names), "load")
    lines = markdown_table(head, [
        (row["command"], f"{row['elapsed_ms']:,.0f}", *(_spread(row["others"][name]) for name in names), f"{row['load']}")
        for row in rows])
    return ["What others notice of a STORE and an EXPUNGE, everybody in one worker; medians of the rounds:", "", *lines]


def _spread(found: dict[str, float]) -> str:
    return f"{found['p50_ms']:.1f} / {found['p99_ms']:.0f} / {found['max_ms']:.0f}"


def _waiting(rows: list[dict[str, Any]]) -> list[str]:
    head = ("IDLE over TLS", "connections", "KB each", "server, MB", "opened/s", "NOOP meanwhile: p50 / p99 / max, ms", "load")
    return markdown_table(head, [(row["loop"], f"{row['connections']:,}", f"{row['octets_each'] / 1024:.1f}",
                         f"{row['all_octets'] / MB:.0f}", f"{row['opened_per_s']:.0f}",
                         _spread(row["noop"]), f"{row['load']}") for row in rows])


def _notices(row: dict[str, Any]) -> list[str]:
    return [f"From 250 to the untagged EXISTS in another worker, {row['samples']} samples: p50 {row['p50_ms']:.1f} ms, "
            f"p95 {row['p95_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms (load {row['load']}).", ""]


def _small(row: dict[str, Any]) -> list[str]:
    peak = f"peak {row['peak_octets'] / MB:.0f} MB with page cache, {row['rss_octets'] / MB:.0f} MB without, " \
           f"{row['killed']} processes killed" if "peak_octets" in row else f"{row['pss_octets'] / MB:.0f} MB at the end"
    work = f"20 accounts, 100,000 messages; 20 sessions, {row['delivered']:,} deliveries in {row['seconds']:.0f} s, searches"
    return [f"1 processor and 512 MB ({row['cage']}), {work}: {peak}. Delivery {_spread(row['delivery'])} ms, a command "
            f"{_spread(row['session'])} ms, SEARCH BODY {_spread(row['search'])} ms (p50 / p99 / max; load {row['load']}).", ""]


def _chart(known: dict[str, Any]) -> str:
    boxes, houses = known.get("mailbox", ()), known.get("accounts", ())
    added, before, total_ms = [], 0, 0.0
    for row in houses:
        total_ms += row["add_ms"] * (row["accounts"] - before)
        before = row["accounts"]
        added.append((before, total_ms))
    return growth_chart("What it costs, in milliseconds", "messages in one mailbox, or accounts on one machine", [
        Line("messages: stored", [(row["messages"], row["fill_s"] * 1000) for row in boxes]),
        Line("messages: SELECT, cold", [(row["messages"], row["cold_ms"]) for row in boxes]),
        Line("accounts: added", added),
        Line("accounts: listed", [(row["accounts"], row["list_ms"]) for row in houses]),
    ])
