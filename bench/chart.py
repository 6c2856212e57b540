"""Charts as SVG, bars and lines: plain shapes and text, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

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


# -- growth --

_LEFT, _RIGHT, _TOP, _BOTTOM, _PLOT = 60, 200, 44, 44, 300
_NAME = 16      # a line of text
_LINES = ("#b4232a", "#0969da", "#8250df", "#1a7f37")


@dataclass(frozen=True, slots=True)
class Line:
    """points: (x, y), both above zero, x ascending."""

    label: str
    points: Sequence[tuple[float, float]]


def growth_chart(title: str, x_label: str, lines: Sequence[Line]) -> str:
    """The whole file: both axes logarithmic, a decade a step, so that what grows linearly is parallel to the dashed line."""
    xs, ys = ([point[at] for line in lines for point in line.points] for at in (0, 1))
    left, right, low, high = floor(log10(min(xs))), ceil(log10(max(xs))), floor(log10(min(ys))), ceil(log10(max(ys)))
    width = _WIDTH - _LEFT - _RIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        return (_LEFT + width * (log10(x) - left) / max(1, right - left),
                _TOP + _PLOT * (high - log10(y)) / max(1, high - low))
    grid = [_decade(place(10.0**at, 10.0**low), place(10.0**at, 10.0**high), 10.0**at, beneath=True)
            for at in range(left, right + 1)]
    grid += [_decade(place(10.0**left, 10.0**at), place(10.0**right, 10.0**at), 10.0**at, beneath=False)
             for at in range(low, high + 1)]
    steps = min(right - left, high - low)
    linear = _path([place(10.0 ** (right - steps), 10.0**low), place(10.0**right, 10.0 ** (low + steps))], "#8c959f", dashed=True)
    ends: list[float] = []
    drawn = "\n".join(_line(line, [place(*point) for point in line.points], colour, ends)
                      for line, colour in zip(lines, _LINES, strict=False))
    height = _TOP + _PLOT + _BOTTOM
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">\n'
            f'<style>{_STYLE}</style>\n<text class="title" x="0" y="20">{escape(title)}</text>\n' + "\n".join(grid) +
            f'\n{linear}\n{drawn}\n<text x="{_LEFT}" y="{height - 4}">{escape(x_label)}; dashed: linear growth</text>\n</svg>\n')


def _decade(begin: tuple[float, float], end: tuple[float, float], value: float, *, beneath: bool) -> str:
    rule = f'<path d="M{begin[0]:.1f} {begin[1]:.1f}L{end[0]:.1f} {end[1]:.1f}" stroke="#8c959f" stroke-opacity=".3"/>'
    x, y, anchor = (begin[0], begin[1] + 18, "middle") if beneath else (begin[0] - 8, begin[1] + 5, "end")
    shown = f"{value:,.{max(0, -floor(log10(value)))}f}"
    return f'{rule}<text class="figure" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown}</text>'


def _line(line: Line, places: Sequence[tuple[float, float]], colour: str, ends: list[float]) -> str:
    """ends: where the names of the others stand, so that no two are on one another."""
    y = places[-1][1]
    while any(abs(y - other) < _NAME for other in ends):
        y += 1
    ends.append(y)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
    name = f'<text x="{_WIDTH - _RIGHT + 12}" y="{y + 5:.1f}" style="fill:{colour}">{escape(line.label)}</text>'
    return f"{_path(places, colour)}{dots}{name}"


def _path(places: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> str:
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dashes = ' stroke-dasharray="5 5"' if dashed else ""
    return f'<path d="M{steps}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
