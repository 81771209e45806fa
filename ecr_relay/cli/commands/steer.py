"""`ecr-relay pause`, `resume` and `doctor`: the deployment as a whole."""

from typing import TYPE_CHECKING

import click

from ecr_relay.cli import options, screen

if TYPE_CHECKING:
    from rich.console import Console

    from ecr_relay.operate.doctor import Diagnosis
    from ecr_relay.operate.pause import Consuming


@click.command()
@options.common
def pause() -> None:
    """Hold everything until `ecr-relay resume`.

    No message is taken from the copy queue. Nothing is lost: pushes wait in the queue, which keeps them for seven
    days. Copies that run go on to their end.
    """
    _set(False)


@click.command()
@options.common
def resume() -> None:
    """Go on after `ecr-relay pause`."""
    _set(True)


def _set(consuming: bool) -> None:
    from ecr_relay.operate import pause

    with screen.counting("asking Lambda"):
        answer = pause.set_consuming(options.deployment(), consuming)
    screen.emit(answer, lambda console: _consuming(console, answer))


def _consuming(console: "Console", answer: "Consuming") -> None:
    word = "on" if answer.consuming else "paused"
    before = "" if answer.changed else ", as before"
    screen.say(console, f"{word}{before}; the event source mapping is {answer.state.lower()}")


@click.command()
@options.common
def doctor() -> None:
    """Say what the deployment lacks, with the remedy.

    Each check is fine, a warning, or a fault; exit status 1 if there is a fault. Registries are asked with your own
    credentials, or those that the configuration names: what the functions' own roles may do is not tried.
    """
    from ecr_relay.operate import doctor as operate

    answer = operate.doctor(options.deployment())
    screen.emit(answer, lambda console: _doctor(console, answer))
    if not answer.ok:
        raise click.exceptions.Exit(1)


def _doctor(console: "Console", answer: "Diagnosis") -> None:
    marks = {"fine": ("ok", "green"), "warning": ("warn", "yellow"), "fault": ("FAULT", "red"), "unknown": ("?", "dim")}
    shown = screen.table("", "check", "finding", fold=("finding",))
    for check in answer.checks:
        text, style = marks[check.result]
        finding = check.finding + (f". {check.remedy}" if check.remedy else "")
        shown.add_row(screen.styled(text, style), check.name, finding)
    console.print(shown)
