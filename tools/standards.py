"""Finds every RFC citation in the tree, checks it against docs/rfc, and writes docs/standards.md.

A citation is `RFC 5321 §4.5.2` (sections), `RFC 5321 §D.1` (appendix) or `RFC 5321` (the whole document).
A deliberate departure is a comment that starts `Deviation: RFC ...`.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
RFC = ROOT / "docs" / "rfc"
FOLDERS = ("src", "tests", "docs", "tools", "bench")
GENERATED = ("standards.md", "config.md", "cli.md")

SECTION = re.compile(r"§([0-9A-Z]+(?:\.[0-9]+)*)")
SECTIONS = rf"(?:(?:,|\s|#|and|to)*{SECTION.pattern})*"
CITATION = re.compile(rf"(?P<mark>Deviation: )?RFC (?P<rfc>[0-9]{{3,5}})(?P<sections>{SECTIONS})")
MISSPELT = re.compile(
    r"(?<![\"'])\bRFC[-_]?[0-9]{4,5}\b|\bRFC [0-9]{3,5},?\s+(?:[Ss]ection|[Ss]ec\.|[Aa]ppendix|App\.)\s*[0-9A-Z]"
)


@dataclass(frozen=True, slots=True)
class Citation:
    """One mention of an RFC: sections is empty when the whole document is meant."""

    rfc: str
    sections: tuple[str, ...]
    path: Path
    line: int
    deviation: bool


def index() -> dict[str, str]:
    """Returns RFC number -> title."""
    return tomllib.loads((RFC / "index.toml").read_text(encoding="utf-8"))


def known_sections(rfc: str) -> frozenset[str] | None:
    """Returns the section numbers of an RFC, or None where no list is kept and only the whole can be cited."""
    path = RFC / "sections" / f"{rfc}.txt"
    if not path.exists():
        return None
    return frozenset(line.split(" ", 1)[0] for line in path.read_text(encoding="utf-8").split("\n") if line)


def files() -> Iterator[Path]:
    """Yields the files whose citations count: code, tests and hand-written pages."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".txt") and path.name not in GENERATED and RFC not in path.parents:
                yield path


def citations(path: Path, text: str) -> Iterator[Citation]:
    """Yields each citation in a text."""
    for match in CITATION.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Citation(match["rfc"], tuple(SECTION.findall(match["sections"])), path, line, bool(match["mark"]))


def faults(path: Path, text: str) -> Iterator[str]:
    """Yields one sentence for each citation that does not hold."""
    for match in MISSPELT.finditer(text):
        yield f"{path}:{text.count(chr(10), 0, match.start()) + 1}: write `RFC 5321 §4.5.2`, not {match[0]!r}"
    titles = index()
    for citation in citations(path, text):
        where = f"{path}:{citation.line}: RFC {citation.rfc}"
        sections = known_sections(citation.rfc)
        if citation.rfc not in titles:
            yield f"{where} is not in docs/rfc/index.toml"
        elif sections is None and citation.sections:
            yield f"{where} has no list of sections: cite the whole document"
        else:
            yield from (f"{where} has no §{s}" for s in citation.sections if s not in (sections or ()))


def module(path: Path) -> str:
    """Returns the short name of a module: `proto.smtp.server`."""
    return ".".join(path.relative_to(ROOT / "src" / "fumibako").with_suffix("").parts).removesuffix(".__init__")


def page() -> str:
    """Returns docs/standards.md."""
    titles = index()
    code: dict[str, list[Citation]] = {}
    for path in files():
        if (ROOT / "src") in path.parents:
            for citation in citations(path, path.read_text(encoding="utf-8")):
                code.setdefault(citation.rfc, []).append(citation)
    lines = ["# Standards", "", "Made by `make docs` from the citations in the code and `docs/rfc/index.toml`: do not edit.", ""]
    lines += ["## Cited by the code", "", "| RFC | Title | Where | Deviations |", "|--:|---|---|---|"]
    for rfc, title in titles.items():
        if found := code.get(rfc):
            where = ", ".join(sorted({f"`{module(c.path)}`" for c in found}))
            deviations = ", ".join(sorted({f"`{module(c.path)}`" for c in found if c.deviation}))
            lines.append(f"| {rfc} | {title} | {where} | {deviations} |")
    lines += ["", "## Planned: no code cites them yet", "", "| RFC | Title |", "|--:|---|"]
    lines += [f"| {rfc} | {title} |" for rfc, title in titles.items() if rfc not in code]
    return "\n".join(lines) + "\n"
