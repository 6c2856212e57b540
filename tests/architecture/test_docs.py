"""Generated files are in step with the code, pages point at pages that exist, and nothing names one machine."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.source import ROOT, no_faults
from tools import docs

SKIPPED = set(".git .venv .hypothesis .pytest_cache .mypy_cache .ruff_cache __pycache__ dist build results".split())
BINARY = {".mo", ".gz", ".png", ".ico", ".woff2"}
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")
# Written in pieces, so that this file does not hold them.
PLACES = re.compile("|".join((r"(?<![\w.])/" + "work/", r"(?<![\w.])/" + "root/", r"(?<![\w.])/" + "home/[a-z]")))
REGISTRY_WORDS = ("pypi" + r"\.org", "python" + r"hosted\.org", "deb\\" + ".debian", "index" + "[-_]url", "trusted-" + "host")
REGISTRIES = re.compile("|".join(REGISTRY_WORDS))


def pages() -> Iterator[Path]:
    """Yields every text file of the repository."""
    for path in sorted(ROOT.rglob("*")):
        if path.is_file() and path.suffix not in BINARY and not SKIPPED.intersection(path.relative_to(ROOT).parts):
            yield path


def matches(rule: re.Pattern[str]) -> list[str]:
    """Returns `path:line: text` of every match in the repository."""
    found = []
    for path in pages():
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, m.start()) + 1}: {m[0]}" for m in rule.finditer(text)]
    return found


def test_generated_files_are_fresh() -> None:
    no_faults(docs.stale(), "run `make docs` and commit what it writes")


def test_no_path_of_one_machine() -> None:
    no_faults(matches(PLACES))


def test_no_package_registry() -> None:
    no_faults(matches(REGISTRIES))


def test_links_between_pages_hold() -> None:
    broken = []
    for page in (p for p in pages() if p.suffix == ".md"):
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    no_faults(broken)


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [path.name[:4] for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == [f"{n:04}" for n in range(1, len(numbers) + 1)]
