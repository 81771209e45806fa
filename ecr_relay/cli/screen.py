"""What an operator sees: tables that fit 80 columns, colours on a terminal only (and never with NO_COLOR), JSON."""

import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from ecr_relay.cli import options

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from ecr_relay.operate.log import Line
    from ecr_relay.operate.sync import Step

WIDTH: Final = 80
TOLD_S: Final = 10.0
"""Between two lines that say how far something is, where no bar can."""
_TO: Final = "to"
_TO_WIDTH: Final = 16
STYLES: Final = {
    "copied": "green",
    "copying": "cyan",
    "waiting": "yellow",
    "failed": "yellow",
    "exhausted": "red",
    "absent": "dim",
}


def emit(answer: "BaseModel", render: "Callable[[Console], None]") -> None:
    """The answer as JSON if that is wanted, else by `render`."""
    if options.json_wanted():
        write(answer.model_dump_json(indent=2))
    else:
        render(console())


def console(*, stderr: bool = False) -> "Console":
    """Of the terminal's width; without one, 80 columns."""
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            raise ReaderGone

    stream = sys.stderr if stderr else sys.stdout
    return Quiet(
        file=stream,
        width=None if stream.isatty() else WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


class ReaderGone(Exception):
    """Whoever read our output has closed it, as `head` does. click would make exit status 1 of a BrokenPipeError."""


def write(text: str, *, end: str = "\n") -> None:
    """To stdout, at once. Raises ReaderGone."""
    try:
        click.echo(text + end, nl=False)
    except BrokenPipeError:
        raise ReaderGone from None


def tell(line: str) -> None:
    """To stderr: what is to know while a command goes on."""
    click.echo(f"ecr-relay: {line}", err=True)


def say(console: "Console", text: "str | Text", *, style: str = "") -> None:
    """A line as it is: a terminal wraps it, a pipe gets it whole."""
    console.print(text, style=style, soft_wrap=True)


def table(*columns: str, fold: Iterable[str] = (), right: Iterable[str] = ()) -> "Table":
    """Without frames. Columns in `fold` take what room is left and wrap; nothing is cut off. `to` is a destination,
    whose name may be long: it leaves room for the image. On less than 80 columns all of them wrap.
    """
    from ecr_relay.cli.noted import NotedTable

    made = NotedTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), expand=False)
    for name in columns:
        made.add_column(
            name.upper(),
            overflow="fold",
            no_wrap=name not in fold and name != _TO,
            max_width=_TO_WIDTH if name == _TO else None,
            justify="right" if name in right else "left",
        )
    return made


def styled(text: str, style: str | None = None) -> "RenderableType":
    """Text in a style; by default a status' own."""
    from rich.text import Text

    return Text(text, style=style or STYLES.get(text, ""))


def facts(values: Mapping[str, object]) -> "Text":
    """Names and values; what is None is left out. Words, digests among them, stay whole, so that they can be copied."""
    from rich.text import Text

    known = {name: str(value) for name, value in values.items() if value is not None}
    left = max(map(len, known), default=0) + 2
    made = Text()
    for name, value in known.items():
        fits = max(map(len, value.split()), default=0) <= WIDTH - left
        indent = left if fits else 2
        lines = textwrap.wrap(value, WIDTH - indent, break_long_words=False, break_on_hyphens=False)
        made.append(name, style="bold")
        made.append(" " * (left - len(name)) if fits else "\n" + " " * indent)
        made.append(("\n" + " " * indent).join(lines) + "\n")
    made.rstrip()
    return made


def moment(value: datetime | None) -> str | None:
    """`2027-01-15 08:00:00 UTC, 5h ago`"""
    return None if value is None else f"{value:%Y-%m-%d %H:%M:%S} UTC, {ago(value)} ago"


def log_line(line: "Line") -> str:
    """Time, level, message, and what else the line says."""
    clock = f"{line.timestamp:%H:%M:%S}" if line.timestamp else ""
    extra = " ".join(f"{name}={value}" for name, value in line.fields.items() if name not in ("run", "digest"))
    return " ".join(part for part in (clock, line.level, line.message, extra) if part)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """A counter on stderr while something goes on; only on a terminal."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda _count: None
        return
    with screen.status(f"{what} …") as status:
        yield lambda number: status.update(f"{what} … {number}")


@contextmanager
def syncing() -> "Iterator[Callable[[Step], None]]":
    """How far a `sync` is, on stderr: a progress bar; off a terminal, lines."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield _telling()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as progress:
        bar = progress.add_task("starting", total=None)

        def step(now: "Step") -> None:
            record, text = now.reconcile, _far(now)
            if record is None or record.status == "running":
                progress.update(bar, description=text, total=None)
            else:
                left = min(now.left, record.enqueued)
                progress.update(bar, description=text, total=record.enqueued or 1, completed=record.enqueued - left)

        yield step


def _far(now: "Step") -> str:
    record = now.reconcile
    if record is None or record.status == "running":
        return f"comparing: {count(record.repositories if record else 0, 'repository')}"
    left = min(now.left, record.enqueued)
    return f"copying: {count(left, 'message')} left, {count(now.running, 'task')}"


def _telling() -> "Callable[[Step], None]":
    """Says how far it is when that has changed, but not before `TOLD_S` have gone by: a short one needs no word."""
    told, at = "", time.monotonic()

    def step(now: "Step") -> None:
        nonlocal told, at
        text = _far(now)
        if text != told and time.monotonic() - at >= TOLD_S:
            tell(text)
            told, at = text, time.monotonic()

    return step


def two_lines(first: str, second: str) -> "RenderableType":
    """In a row of `table`: a name, and below the row what there is to say, as wide as the screen."""
    from ecr_relay.cli.noted import Noted

    return Noted(first, second)


def short(digest: str | None) -> str:
    """Twelve hexadecimal digits of a digest, as `docker images` shows it."""
    return "-" if digest is None else digest.removeprefix("sha256:")[:12]


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    if moment is None:
        return "-"
    return duration(((now or datetime.now(UTC)) - moment).total_seconds())


def duration(seconds: float) -> str:
    """As `37s`, `12m`, `5h`, `9d`: one unit is what a table has room for.

    >>> duration(3700)
    '1h'
    """
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size or (seconds >= size and unit == "h"):
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def lag(seconds: float) -> str:
    """Tenths of a second up to ten, then as `duration`."""
    return f"{seconds:g}s" if seconds < 10 else duration(seconds)


def size(count: int) -> str:
    """Bytes as `0 B`, `12 kB`, `3.4 MB`, `1.2 GB`: powers of 1000, as registries count.

    >>> size(3_400_000)
    '3.4 MB'
    """
    for unit, one in (("GB", 10**9), ("MB", 10**6)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count // 1000} kB" if count >= 1000 else f"{count} B"


def image(repository: str | None, tag: str | None = None, digest: str | None = None) -> str:
    if repository is None:
        return "-"
    return f"{repository}:{tag}" if tag else f"{repository}@{short(digest)}"


def task(arn_or_id: str | None) -> str:
    """Eight characters of a task's id; every command that prints one in full has --json."""
    return "-" if arn_or_id is None else arn_or_id[:8]


def cut(text: str, length: int = 320) -> str:
    """For overviews, with room for digests: the point comes last. The whole is a `dlq show` or `explain` away."""
    return text if len(text) <= length else text[: length - 1] + "…"


def count(number: int, noun: str) -> str:
    """`1 image`, `2 images`, `3 copies`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


def rows(made: "Table", lines: Iterable[Sequence["RenderableType"]]) -> "Table":
    for line in lines:
        made.add_row(*line)
    return made
