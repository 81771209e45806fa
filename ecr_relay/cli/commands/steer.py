"""`ecr-relay pause`, `resume` and `doctor`: the deployment as a whole."""

from typing import TYPE_CHECKING

import click

from ecr_relay.cli import options, screen

if TYPE_CHECKING:
    from rich.console import Console

    from ecr_relay.operate.doctor import Diagnosis
    from ecr_relay.operate.pause import Consuming


@click.command()
@click.option("--destination", metavar="D", help="Only what goes there.")
@options.common
def pause(destination: str | None) -> None:
    """Hold everything, or one destination, until `ecr-relay resume`.

    Nothing is lost, and copies that run go on to their end. Without --destination no message is taken from the copy
    queue, which keeps them for seven days: resume before. With --destination its messages are sent anew again and
    again, for as long as it is paused; other destinations go on. Pushes that wait there set off the alarm on lag.

    \b
    Examples:
      ecr-relay pause
      ecr-relay pause --destination china
    """
    _set(destination, False)


@click.command()
@click.option("--destination", metavar="D", help="Only what goes there.")
@options.common
def resume(destination: str | None) -> None:
    """Go on after `ecr-relay pause`.

    A destination that was paused by itself is resumed by itself. Its messages come within a minute, those of a
    reconcile within ten.

    \b
    Examples:
      ecr-relay resume
      ecr-relay resume --destination china
    """
    _set(destination, True)


def _set(destination: str | None, consuming: bool) -> None:
    from ecr_relay.operate import pause

    deployment = options.deployment()
    if destination is not None:
        answer = pause.set_destination(deployment, destination, consuming)
    else:
        with screen.counting("asking Lambda"):
            answer = pause.set_consuming(deployment, consuming)
    screen.emit(answer, lambda console: _consuming(console, answer))


def _consuming(console: "Console", answer: "Consuming") -> None:
    word = "on" if answer.consuming else "paused"
    before = "" if answer.changed else ", as before"
    if answer.destination is not None:
        screen.say(console, f"{answer.destination} is {word}{before}")
        return
    screen.say(console, f"{word}{before}; the event source mapping is {(answer.state or 'not known').lower()}")
    for name in answer.paused_destinations:
        screen.say(console, f"{name} is paused by itself; `ecr-relay resume --destination {name}`")


@click.command()
@options.common
def doctor() -> None:
    """Say what the deployment lacks, with the remedy.

    Each check is fine, a warning, a fault, or not known, with the reason; exit status 1 if there is a fault. Asked
    are the queues, the rule that pushes come by, the ECS cluster, the roles (IAM's simulator says what they may), the
    registries (with your own credentials, or those that the configuration names), the quotas, the age of keys in
    secrets, and who hears the alarms. Nothing is changed, and no secret is shown.

    \b
    Examples:
      ecr-relay doctor
      ecr-relay doctor --json | jq '.checks[] | select(.result != "fine")'
    """
    from ecr_relay.operate import doctor as operate

    answer = operate.doctor(options.deployment())
    screen.emit(answer, lambda console: _doctor(console, answer))
    if not answer.ok:
        raise click.exceptions.Exit(1)


def _doctor(console: "Console", answer: "Diagnosis") -> None:
    marks = {"fine": ("ok", "green"), "warning": ("warn", "yellow"), "fault": ("FAULT", "red"), "unknown": ("?", "dim")}
    shown = screen.table("result", "check", "finding", fold=("finding",))
    for check in answer.checks:
        text, style = marks[check.result]
        finding = f"{check.finding.removesuffix('.')}. {check.remedy}" if check.remedy else check.finding
        shown.add_row(screen.styled(text, style), check.name, finding)
    console.print(shown)
