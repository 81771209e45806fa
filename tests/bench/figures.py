"""What was measured, and the one table that shows it."""

import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


class BenchError(Exception):
    """Nothing was measured, because something is missing or did not do what it should. `str()` is for a person."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line. `ratio` is to the section's first line, or says to what."""

    name: str
    figure: str
    ratio: str = ""
    note: str = ""


@dataclass(slots=True)
class Section:
    """`load` is the machine's 1-minute load average when it began and when it ended: two cores are busy at 2."""

    title: str
    rows: list[Row] = field(default_factory=list)
    load: tuple[float, float] = (0.0, 0.0)


@dataclass(slots=True)
class Figures:
    sections: list[Section] = field(default_factory=list)

    @contextmanager
    def section(self, title: str) -> Iterator[list[Row]]:
        """Says on the terminal what is being measured; its rows are kept also when it ends by an exception."""
        print(f"measuring {title}", flush=True)
        one = Section(title)
        self.sections.append(one)
        began = os.getloadavg()[0]
        try:
            yield one.rows
        finally:
            one.load = (began, os.getloadavg()[0])

    def table(self) -> str:
        rows = [row for section in self.sections for row in section.rows]
        widths = [max((len(getattr(row, column)) for row in rows), default=0) for column in ("name", "figure", "ratio")]
        lines = []
        for section in self.sections:
            lines += ["", f"{section.title}   [load {section.load[0]:.1f} to {section.load[1]:.1f}]"]
            for row in section.rows:
                cells = f"  {row.name:<{widths[0]}}  {row.figure:>{widths[1]}}  {row.ratio:>{widths[2]}}"
                lines.append(f"{cells}  {row.note}".rstrip())
        return "\n".join(lines)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def seconds(value: float) -> str:
    """With as many digits as mean something."""
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def times(value: float, base: float) -> str:
    """`value` as a multiple of `base`."""
    ratio = value / base
    return f"x {ratio:.0f}" if ratio >= 20 else f"x {ratio:.1f}" if ratio >= 2 else f"x {ratio:.2f}"


def spread(values: Sequence[float]) -> str:
    """How much the runs differ, for the note; nothing of a single run."""
    if len(values) < 2:
        return "1 run"
    return f"{len(values)} runs, {seconds(min(values))} to {seconds(max(values))}"
