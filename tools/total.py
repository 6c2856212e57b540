"""What all proofs of a version come to: one file that every run is added to once, and the sentence of the READMEs.

Contract: bench/results/release-VERSION.json keeps the machine, commit and seed of each run; what is counted there stays when
    the file it came from goes. A run is known by its part, commit and seed (a power cut by work and file system, too): done
    again it counts once, with the larger figures, and one that had a fault is never replaced. Left out, with the reason: what has
    no commit or seed, or was made from a tree that was not committed. The sentence is made from that file alone.
Failure: `add_up` says False where a run has a fault; then the READMEs claim nothing but that. To begin again after a repair,
    remove that file and the results with the fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fumibako
from tests.crash.power_disk import FILE_SYSTEMS
from tools.power import MAIL
from tools.record import RESULTS, ROOT, replace, write_section

FIRST_SEED = 2025
BEGIN, END = "<!-- written by tools.prove --release -->\n", "<!-- end of the sum -->\n"
PATIENT = ("KeyboardInterrupt", "SystemExit")       # who waited ended it: no fault of the server
NUMBERS = {1: "one file system", 2: "two file systems", 3: "three file systems"}

Run = dict[str, Any]


def add_up(results: Path = RESULTS, readmes: Path = ROOT) -> bool:
    """Take in what is new, write the file and the sentence. True when there is no fault in any run."""
    path = results / f"release-{fumibako.__version__}.json"
    before = _read(path) if path.exists() else {"runs": []}
    runs: dict[str, Run] = {run["id"]: run for run in before["runs"]}
    left_out: dict[str, str] = {}
    for source in sorted(results.glob("proof-*.json")):
        for run in _runs_of(_read(source), source.name):
            if reason := _reason_against(run):
                left_out[source.name] = reason
            else:
                runs[run["id"]] = _larger(runs.get(run["id"]), run)
    found: dict[str, Any] = {
        "version": fumibako.__version__, "sum": summed(list(runs.values())), "left_out": left_out, "runs": list(runs.values())}
    replace(path, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    for name, words in READMES.items():
        write_section(readmes / name, BEGIN, f"{sentence(words, found, path.name)}\n", END)
    print(sentence(ENGLISH, found, path.name), flush=True)
    return bool(found["sum"]["faults"] == 0)


def next_seed(results: Path = RESULTS) -> int:
    """One above all that was ever used here; a date that was used as one doesn't count."""
    used = [run["seed"] for path in results.glob("proof-*.json") for run in _runs_of(_read(path), path.name)]
    used += [run["seed"] for path in results.glob("release-*.json") for run in _read(path)["runs"]]
    return max([FIRST_SEED - 1, *(seed for seed in used if isinstance(seed, int) and seed < 1_000_000)]) + 1


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def _runs_of(found: dict[str, Any], name: str) -> Iterator[Run]:
    if "parts" in found:
        yield from (_power_run(part, name) for part in found["parts"])
    elif "each" in found:
        yield _kills_run(found, name)


def _kills_run(found: dict[str, Any], name: str) -> Run:
    """messages of an older file: what was acknowledged, without every change by IMAP, which is too few rather than too many."""
    broke_off = found.get("cut_short_by", "")
    faults = len(found["faults"]) + len(found["store_faults"]) + bool(broke_off and not broke_off.startswith(PATIENT))
    return {
        "id": f"kills {found.get('commit')} {found.get('seed')}", "part": "kills", "file": name,
        "at": found.get("date", ""), "commit": found.get("commit", ""), "seed": found.get("seed"),
        "machine": found.get("machine") or f"{found.get('system')}, Python {found.get('python')}",
        "messages": found.get("messages", found["acknowledged"] - found["mailbox_changes"]),
        "kills": found["rounds"] + found.get("commands_killed", 0), "cuts": 0, "faults": faults,
    }


def _power_run(part: dict[str, Any], name: str) -> Run:
    faults = sum(part[one] for one in (*MAIL, "order_or_state", "findings", "not_mountable"))
    return {
        "id": f"power {part.get('commit')} {part.get('seed')} {part['work']} {part['file_system']}", "part": "power",
        "file": name, "at": part.get("at", ""), "commit": part.get("commit", ""), "seed": part.get("seed"),
        "machine": part.get("machine", ""), "work": part["work"], "file_system": part["file_system"],
        "messages": 0, "kills": 0, "cuts": part["states"], "faults": faults,
    }


def _reason_against(run: Run) -> str:
    if not run["commit"] or run["commit"] == "unknown" or run["seed"] is None:
        return "without commit or seed"
    # A fault is one, wherever it was seen.
    return "made from a tree that was not committed" if run["commit"].endswith("+") and not run["faults"] else ""


def _larger(known: Run | None, run: Run) -> Run:
    if known is None or (run["faults"] and not known["faults"]):
        return run
    if known["faults"]:
        return known
    return run if (run["messages"], run["kills"], run["cuts"]) > (known["messages"], known["kills"], known["cuts"]) else known


def summed(runs: list[Run]) -> dict[str, Any]:
    cuts = {kind: sum(run["cuts"] for run in runs if run.get("file_system") == kind) for kind in FILE_SYSTEMS}
    return {"messages": sum(run["messages"] for run in runs), "kills": sum(run["kills"] for run in runs),
            "cuts": sum(cuts.values()), "cuts_on": {kind: count for kind, count in cuts.items() if count},
            "faults": sum(run["faults"] for run in runs), "runs": len(runs),
            "commits": sorted({run["commit"] for run in runs}), "at": datetime.now(UTC).isoformat(timespec="seconds")}


# -- the sentence --


@dataclass(frozen=True, slots=True)
class Words:
    """One language: link is put into the others, what the sum holds into the last."""

    link: str
    faults: str
    unfinished: str
    whole: str


ENGLISH = Words(
    "[results](bench/results/{name}), `python -m tools.prove --release`; [how](docs/proof.md)",
    "**Proof:** {faults:,} faults were found in the runs of this version ({link}).",
    "**Proof:** not all of it has run for this version; [how](docs/proof.md).",
    "**Proof:** {messages:,} acknowledged messages, {kills:,} kills, {cuts:,} power cuts on {systems}: none lost, altered or "
    "doubled ({link}).")
JAPANESE = Words(
    "[結果](bench/results/{name})、`python -m tools.prove --release`、[方法](docs/proof.md)",
    "**実証:** この版の試験で {faults:,} 件の不具合が見つかっています ({link})。",
    "**実証:** この版の試験はまだ終わっていません。[方法](docs/proof.md)",
    "**実証:** 受領を応答したメール {messages:,} 通、強制終了 {kills:,} 回、{count} 種類のファイルシステムでの"
    "電源断 {cuts:,} 回。消失、改変、重複は 1 通もありません ({link})。")
READMES = {"README.md": ENGLISH, "README.ja.md": JAPANESE}


def sentence(words: Words, found: dict[str, Any], name: str) -> str:
    """name: of the file that it is made from."""
    of = found["sum"]
    text = words.faults if of["faults"] else words.whole if _is_whole(of) else words.unfinished
    count = len(of["cuts_on"])
    return text.format(**of, link=words.link.format(name=name), count=count, systems=NUMBERS.get(count, ""))


def _is_whole(of: dict[str, Any]) -> bool:
    return bool(of["messages"] and of["kills"] and of["cuts"])
