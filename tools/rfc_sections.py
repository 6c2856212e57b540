"""Lists the sections of every RFC in the index, from the RFC texts.

Usage: python tools/rfc_sections.py FOLDER   (FOLDER holds rfcNNNN.txt)

The lists let a test check citations without the texts.  A line is `number title`.  A heading is a numbered line at the
left margin or an entry of the table of contents; a number seen twice keeps its first title.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

RFC = Path(__file__).parent.parent / "docs" / "rfc"

NUMBER = r"(?P<number>\d{1,2}(?:\.\d{1,3})*|[A-Z](?:\.\d{1,3})+)"
HEADING = re.compile(rf"(?:Appendix )?{NUMBER}\.?\s+(?P<title>\S.*)")
APPENDIX = re.compile(r"\s{0,6}(?:APPENDIX|Appendix)\s+(?P<number>[A-Z])\b(?P<title>.*)")
LETTER = re.compile(r"(?P<number>[A-Z])\.\s+(?P<title>[A-Z\"].*)")
CONTENTS = re.compile(
    r"\s{1,12}(?:Appendix )?(?P<number>\d{1,2}(?:\.\d{1,3})*|[A-Z](?:\.\d{1,3})*)\.?\s+(?P<title>\S.*?)\s*\.[ .]*\d+"
)
PAGE_NUMBER = re.compile(r"[\s.]*(?:\.[\s.]*\d+)?\s*$")


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Yields (number, title) for each heading of an RFC's text, in order of appearance."""
    for line in text.split("\n"):
        for rule in (HEADING, APPENDIX, LETTER, CONTENTS):
            if match := rule.fullmatch(line.rstrip()):
                title = PAGE_NUMBER.sub("", match["title"]).lstrip(" .:-")
                yield match["number"], title or "(no title)"
                break


def order(number: str) -> tuple[bool, list[tuple[int, str]]]:
    """Sorts 9 before 10 and numbers before letters."""
    parts = number.split(".")
    return not parts[0].isdigit(), [(int(p) if p.isdigit() else 0, p) for p in parts]


def main(folder: Path) -> None:
    """Writes docs/rfc/sections/NNNN.txt for every indexed RFC whose text is in the folder; names those without."""
    index = tomllib.loads((RFC / "index.toml").read_text())
    for number in index:
        source = folder / f"rfc{number}.txt"
        if not source.exists():
            print(f"RFC {number}: no text; it can be cited only as a whole")
            continue
        found: dict[str, str] = {}
        for section, title in sections(source.read_text(encoding="utf-8", errors="replace")):
            found.setdefault(section, title)
        lines = [f"{section} {found[section]}\n" for section in sorted(found, key=order)]
        (RFC / "sections" / f"{number}.txt").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
