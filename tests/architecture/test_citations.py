"""Every RFC citation names an RFC of the index and a section that exists."""

from pathlib import Path

import pytest

from tests.architecture.source import no_faults
from tools import standards

MARK = "RFC"  # written apart, so that the wrong citations below are not found in this file


def faults(text: str) -> list[str]:
    return list(standards.faults(Path("x.py"), text))


def test_every_citation_holds() -> None:
    no_faults(f for path in standards.files() for f in standards.faults(path, path.read_text(encoding="utf-8")))


def test_every_list_of_sections_has_its_line_in_the_index() -> None:
    assert {path.stem for path in (standards.RFC / "sections").glob("*.txt")} <= set(standards.index())


@pytest.mark.parametrize(
    "text",
    [
        f"{MARK} 99999 is unknown",
        f"{MARK} 5321 §4.5.99",
        f"{MARK} 5321 §4.5.2, §9.9",
        f"{MARK} 5321 §4.5.2 and §9.9",
        f"{MARK} 5321\n    §4.5.99",
        f"{MARK} 5321 §Z",
        f"{MARK}5321 §4.5.2",
        f"{MARK}-5321",
        f"{MARK} 5321 section 4.5.2",
        f"{MARK} 5321, Appendix D",
    ],
)
def test_wrong_citation_is_caught(text: str) -> None:
    assert faults(text) != []


@pytest.mark.parametrize(
    "text",
    [
        f"{MARK} 5321 §4.5.2",
        f"({MARK} 5321 §4.5.2, {MARK} 1939 §3)",
        f"{MARK} 5321 §4.1.1.2, §4.1.1.3",
        f"{MARK} 5321 §D.1 and §F",
        f"# Deviation: {MARK} 5321 §4.5.3.1.4: longer lines are taken",
        f"{MARK} 5321.",
        f'b"{MARK}8482" is an octet string',
        f"{MARK}822.SIZE is an item of FETCH, message/rfc822 a type",
    ],
)
def test_right_citation_passes(text: str) -> None:
    assert faults(text) == []


def test_a_deviation_is_known_by_its_mark() -> None:
    first, second = standards.citations(Path("x.py"), f"# Deviation: {MARK} 5321 §3: why\n# {MARK} 5321 §3\n")
    assert (first.deviation, first.sections, second.deviation, second.line) == (True, ("3",), False, 2)
