"""A horizontal bar chart as SVG: plain shapes and text, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LABELS, _FIGURES, _ROW, _BAR, _HEAD = 720, 200, 70, 34, 22, 44
_STYLE = ("text{font:14px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}.figure{font-variant-numeric:tabular-nums}"
          ".bar{fill:#8c959f}.own{fill:#b4232a}"
          "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.bar{fill:#6e7681}.own{fill:#f0605f}}")


@dataclass(frozen=True, slots=True)
class Bar:
    """value: zero or more."""

    label: str
    value: float
    emphasised: bool = False


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """The whole file; bars begin at zero."""
    height = _HEAD + _ROW * len(bars)
    most = max((bar.value for bar in bars), default=0) or 1
    rows = "\n".join(_row(_HEAD + _ROW * number, bar, most) for number, bar in enumerate(bars))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">\n'
            f'<style>{_STYLE}</style>\n<text class="title" x="0" y="20">{escape(title)}</text>\n{rows}\n</svg>\n')


def _row(top: int, bar: Bar, most: float) -> str:
    length = (_WIDTH - _LABELS - _FIGURES) * bar.value / most
    middle = top + _BAR * 0.72
    kind = "bar own" if bar.emphasised else "bar"
    return (f'<text x="0" y="{middle:.0f}">{escape(bar.label)}</text>'
            f'<rect class="{kind}" x="{_LABELS}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="2"/>'
            f'<text class="figure" x="{_LABELS + length + 8:.1f}" y="{middle:.0f}">{bar.value:,.0f}</text>')
