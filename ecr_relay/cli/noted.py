"""A table of rich's whose rows may have something to say below them, as wide as the screen."""

from itertools import pairwise
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.style import Style, StyleType
from rich.table import Table
from rich.text import Text

_NARROW: Final = 80
_INDENT: Final = (0, 0, 0, 2)


class Noted(Text):
    """A cell that has more to say than its column has room for: `note` goes below its row."""

    def __init__(self, text: str, note: str) -> None:
        super().__init__(text)
        self.note = note


class NotedTable(Table):
    """As rich's, but for cells that are Noted. On less than 80 columns all of it wraps, so that no column vanishes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._notes: dict[int, str] = {}

    def add_row(
        self, *renderables: RenderableType | None, style: StyleType | None = None, end_section: bool = False
    ) -> None:
        """At most one of the cells is Noted, and `style` is not for such a row."""
        for cell in renderables:
            if isinstance(cell, Noted):
                # Rich does not say which lines are a row's. Its style, which they have, does.
                style = Style(meta={"row": self.row_count})
                self._notes[self.row_count] = cell.note
        super().add_row(*renderables, style=style, end_section=end_section)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < _NARROW:
            for column in self.columns:
                column.no_wrap = False
        segments = (part for part in super().__rich_console__(console, options) if isinstance(part, Segment))
        for line, following in pairwise([*Segment.split_lines(segments), []]):
            yield from line
            yield Segment.line()
            row = _row(line)
            if row is not None and row != _row(following):
                yield Padding(Text(self._notes[row], style="dim", overflow="fold"), _INDENT)


def _row(line: list[Segment]) -> int | None:
    return next((part.style.meta["row"] for part in line if part.style and "row" in part.style.meta), None)
