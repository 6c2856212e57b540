"""What the audience sees: numbered acts, a line for each thing that is shown, with the servers' own words as its proof.

Contract: a row is on the screen as soon as it is known: in columns and colours on a terminal, as one plain line elsewhere, and
    kept for `--json`. Words of a peer can neither move the cursor nor be read as mark-up.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from fumibako.services.texts import N_

WIDTH = 100         # of the picture, and the most of a terminal that is used
WHAT_WIDTH = 22

Words = Callable[..., str]      # (catalogue text, **values) -> the text in the user's language


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was shown. evidence: the server's or peer's own words."""

    act: str
    what: str
    passed: bool
    evidence: str


class Screen:
    """words: translates; picture: a console that records what is drawn, for --svg."""

    def __init__(self, words: Words, console: Console | None, picture: Console | None = None) -> None:
        self.words = words
        self.rows: list[Row] = []
        self._console = console
        self._drawn = [one for one in (console, picture) if one is not None]
        self._act, self._number = "", 0

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def title(self, text: str) -> None:
        """The first line."""
        self._draw(Text(self.words(text), "bold"), self.words(text))

    def act(self, title: str) -> None:
        """A new act begins."""
        self._act, self._number = self.words(title), self._number + 1
        heading = f"{self._number}  {self._act}"
        self._draw(Padding(Rule(Text(heading, "bold cyan"), align="left", style="cyan"), (1, 0, 0, 0)), f"\n{heading}")

    def row(self, what: str, evidence: str, *, passed: bool = True, **values: object) -> None:
        """what: catalogue text, filled with values."""
        row = Row(self._act, self.words(what, **values), passed, printable(evidence))
        self.rows.append(row)
        columns = Table.grid(padding=(0, 1, 0, 0), expand=True)
        columns.add_column(width=3)
        columns.add_column(width=WHAT_WIDTH, overflow="fold")
        columns.add_column(ratio=1, overflow="fold")
        proof = Text(row.evidence, "red" if not passed else "default")
        columns.add_row(_mark(passed, indent=2), Text(row.what), proof)
        self._draw(columns, f"{'ok' if passed else 'FAIL':<5}{row.what}: {row.evidence}")

    def fail(self, reason: BaseException) -> None:
        """Something went wrong in the act at hand."""
        text = str(reason) or (self.words(N_("no answer in time")) if isinstance(reason, TimeoutError) else type(reason).__name__)
        self.row(N_("this did not work"), text, passed=False)

    def table(self, columns: Sequence[tuple[str, int]], rows: Sequence[tuple[bool, Sequence[str]]]) -> None:
        """Rows that are shown side by side. columns: heading and share of the width, 0: as much as it needs.

        Each counts as a row: the first two cells say what, the others are its evidence. The last is how it should be: what
        differs from it beside it is red.
        """
        drawn = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim", expand=True)
        drawn.add_column(width=3)
        for heading, share in columns:
            drawn.add_column(self.words(heading), ratio=share or None, no_wrap=not share, overflow="fold")
        for passed, cells in rows:
            *what, compared, right = map(printable, cells)
            self.rows.append(Row(self._act, ": ".join(what), passed, f"{compared} | {right}"))
            styled = Text(compared, "default" if compared == right else "red")
            drawn.add_row(_mark(passed, indent=2), *map(Text, what), styled, Text(right, "bold"))
        plain = [f"{'ok' if passed else 'FAIL':<5}{' | '.join(map(printable, cells))}" for passed, cells in rows]
        self._draw(drawn, "\n".join(["     " + " | ".join(self.words(heading) for heading, _ in columns), *plain]))

    def lines(self, heading: str, lines: Sequence[str]) -> None:
        """Text to copy: never wrapped, so that it can be pasted; no part of the picture."""
        if self._console is not None:
            for text in (Text(), Text(self.words(heading), "bold"), *map(Text, lines)):
                self._console.print(text, soft_wrap=True)

    def verdict(self) -> None:
        """The last line."""
        failed = sum(not row.passed for row in self.rows)
        text = (self.words(N_("All {count} lines above are as they should be."), count=len(self.rows)) if not failed else
                self.words(N_("{failed} of {count} lines above are not as they should be."), failed=failed, count=len(self.rows)))
        self._draw(Padding(Text(text, "bold red" if failed else "bold green"), (1, 0, 0, 0)), f"\n{text}")

    @contextmanager
    def progress(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar while it lasts, on a terminal; gives the function that moves it to a number."""
        if self._console is None or not self._console.is_terminal:
            yield lambda count: None
            return
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(self.words(text), total=total)
            yield lambda count: bar.update(task, completed=count)

    def _draw(self, drawn: RenderableType, plain: str) -> None:
        for console in self._drawn:
            if console.is_terminal:
                console.print(drawn, width=min(console.width, WIDTH))
            else:
                console.print(Text(plain), soft_wrap=True)


def _mark(passed: bool, indent: int) -> Text:
    return Text(" " * indent + ("✓" if passed else "✗"), "green" if passed else "bold red")


def printable(text: str) -> str:
    """A control character, or a mark that turns the direction of writing, must not reach the terminal."""
    return "".join(one if one.isprintable() else " " if one in "\r\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)


def recording_console() -> Console:
    """A terminal that exists only to be drawn from."""
    return Console(file=io.StringIO(), record=True, force_terminal=True, width=WIDTH, color_system="truecolor", highlight=False)
