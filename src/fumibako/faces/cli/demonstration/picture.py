"""The demonstration as a picture: rich's SVG export, with the Japanese at its full width.

Contract: one SVG file without scripts, fonts or addresses of third parties; it looks the same wherever the reader's system
    has any Japanese fixed-width font.
"""

from __future__ import annotations

import html
import re
import unicodedata
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.terminal_theme import TerminalTheme

FONTS = "'Noto Sans Mono CJK JP','BIZ UDGothic','Osaka-Mono','MS Gothic','IPAGothic',monospace"
THEME = TerminalTheme(
    (250, 250, 247), (40, 40, 40),
    [(40, 40, 40), (190, 30, 45), (30, 120, 60), (150, 100, 0), (30, 80, 160), (130, 50, 130), (0, 110, 130), (110, 110, 110)],
    [(120, 120, 120), (200, 30, 45), (20, 130, 60), (160, 110, 0), (40, 90, 180), (140, 60, 140), (0, 120, 140), (250, 250, 247)],
)
# {lines} and the rest are rich's names (Console.export_svg, code_format).
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: FONTS; font-size: 21px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
""".replace("FONTS", FONTS)

_TEXT = re.compile(r'<text class="([^"]*)" x="([0-9.]+)" y="([0-9.]+)" textLength="([0-9.]+)" clip-path="([^"]*)">([^<]*)</text>')


def draw(console: Console, title: str) -> str:
    """What a recording console has shown, as SVG."""
    svg = console.export_svg(title=title, theme=THEME, code_format=FORMAT, unique_id="fumibako")
    return _TEXT.sub(_widen, svg)


def _widen(found: re.Match[str]) -> str:
    """rich gives a wide character the length of a narrow one: runs of each kind get the place they need."""
    style, left, top, length, clip, escaped = found.groups()
    text = html.unescape(escaped)
    if text.isascii():
        return found[0]
    cell, x, pieces = float(length) / len(text), float(left), []
    for (_, fitted), run in groupby(text, key=_kind):
        piece = "".join(run)
        width = cell * cell_len(piece)
        # Fonts draw ① or → in one cell or in two: here it is one.
        adjust = ' lengthAdjust="spacingAndGlyphs"' if fitted else ""
        place = f'x="{x:g}" y="{top}" textLength="{width:g}"{adjust}'
        pieces.append(f'<text class="{style}" {place} clip-path="{clip}">{html.escape(piece, quote=False)}</text>')
        x += width
    return "".join(pieces)


def _kind(character: str) -> tuple[int, bool]:
    """(cells it takes, whether its glyph has to be fitted into them)"""
    return cell_len(character), unicodedata.east_asian_width(character) == "A"
