"""Writes every generated file of the repository: `make docs`.

A generator returns {path relative to the root: octets}.  A test fails when a file is not what its generator returns.
A new generated page is one more function in GENERATORS.
"""

from collections.abc import Callable
from pathlib import Path

from tools import pages, standards, texts

ROOT = Path(__file__).parent.parent

Files = dict[str, bytes]


def standards_page() -> Files:
    """The RFC table."""
    return {"docs/standards.md": standards.page().encode()}


def compiled_texts() -> Files:
    """The compiled Japanese catalogue, where there is a catalogue."""
    if not texts.CATALOGUE.exists():
        return {}
    return {str(texts.CATALOGUE.with_suffix(".mo").relative_to(ROOT)): texts.compiled()}


def reference_pages() -> Files:
    """The configuration and the command line, as the code declares them."""
    return {"docs/config.md": pages.config_page().encode(), "docs/cli.md": pages.cli_page().encode()}


GENERATORS: tuple[Callable[[], Files], ...] = (standards_page, compiled_texts, reference_pages)


def generated() -> Files:
    """Returns every generated file as it should be."""
    return {path: octets for generator in GENERATORS for path, octets in generator().items()}


def stale() -> list[str]:
    """Returns the paths whose octets on disk are not what their generator returns."""
    return [path for path, octets in generated().items() if not (ROOT / path).exists() or (ROOT / path).read_bytes() != octets]


def main() -> None:
    """Brings the catalogue up to date, then writes what is stale."""
    texts.refresh()
    for path in stale():
        print(f"writing {path}")
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_bytes(generated()[path])


if __name__ == "__main__":
    main()
