"""Keeps the Japanese catalogue in step with the user texts in the code.

A user text is the literal in `_("...")` or `text(language, "...")` (fumibako.services.texts), `N_("...")` marks one
that is translated later, and the help of the commands is one too.
"""

import io
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from fumibako.faces.cli.main import fumibako, helped

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "fumibako"
CATALOGUE = SOURCE / "locale" / "ja" / "LC_MESSAGES" / "fumibako.po"
HEADER = "# The Japanese texts of Fumibako.  `make docs` adds new ones, without their Japanese, and compiles them."
KEYWORDS = {"_": None, "N_": None, "text": (2,)}


def texts() -> frozenset[str]:
    """Returns every user text in the code."""
    found = extract_from_dir(str(SOURCE), method_map=[("**.py", "python")], keywords=KEYWORDS)
    marked = frozenset(message for _, _, message, _, _ in found if isinstance(message, str))
    return marked | {str(one.help) for one in helped(fumibako)}


def catalogue() -> Catalog:
    """Returns the Japanese catalogue, empty where there is none yet."""
    if not CATALOGUE.exists():
        return Catalog(locale="ja", domain="fumibako", header_comment=HEADER, project="Fumibako", version="1", fuzzy=False)
    with CATALOGUE.open("rb") as file:
        return read_po(file, locale="ja", domain="fumibako")


def translations() -> dict[str, str]:
    """Returns text -> Japanese, empty where there is none yet or it is marked fuzzy."""
    return {str(m.id): "" if m.fuzzy else str(m.string or "") for m in catalogue() if m.id}


def compiled() -> bytes:
    """Returns the octets of fumibako.mo for the catalogue as it is now."""
    octets = io.BytesIO()
    write_mo(octets, catalogue())
    return octets.getvalue()


def refresh() -> None:
    """Adds new texts, untranslated, to fumibako.po and drops those the code no longer has."""
    wanted, kept, present = texts(), catalogue(), translations().keys()
    if wanted == present:
        return
    for new in wanted - present:
        kept.add(new)
    for old in present - wanted:
        kept.delete(old)
    CATALOGUE.parent.mkdir(parents=True, exist_ok=True)
    with CATALOGUE.open("wb") as file:
        write_po(file, kept, width=120, sort_output=True, no_location=True)
