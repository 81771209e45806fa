"""`ecr-relay dlq`: what was given up."""

from typing import TYPE_CHECKING

import click

from ecr_relay.cli import options, screen

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from ecr_relay.operate.deadletters import DeadLetter, DeadLetters, Opened
    from ecr_relay.operate.letters import Chosen

_SHORT = 8
"""Characters of an id in a table; commands take any beginning of an id that names one message."""


@click.group()
def dlq() -> None:
    """Look into dead letters; redrive or purge them.

    They are images that were given up after three attempts, and messages that nobody understands.

    Looking needs to receive them, as SQS has no other way: they are hidden for as long as that takes, a second or so,
    then given back. Nothing is changed or moved by it.
    """


@dlq.command(name="list")
@options.repository_option("Only of this repository, or of those that a glob matches.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(1), default=100, show_default=True, help="A page: so many images."
)
@click.option("--after", metavar="NEXT", help="The page after the one that ended with NEXT.")
@options.common
def list_(repository: str | None, limit: int, after: str | None) -> None:
    """List the dead letters with image, attempts, and why, the oldest first.

    Each reconcile tries anew what was given up, so an image that is not mended leaves one letter after another. Those
    of one image and destination are one row, with the newest one's ID and how many there are; `dlq redrive` and `dlq
    purge` take them all by any ID of them. --json has every letter: what belongs together has the same `newest`.

    FIRST is how long ago the image was pushed, or found missing, by the oldest of its letters; LAST how long ago it
    failed the last time.

    \b
    Examples:
      ecr-relay dlq list
      ecr-relay dlq list --limit 1000
      ecr-relay dlq list --repository 'team/*' --json | jq '.letters[] | select(.id == .newest).error'
    """
    from ecr_relay.operate import deadletters

    answer = deadletters.show_all(options.deployment(), repository=repository, limit=limit, after=after)
    screen.emit(answer, lambda console: _list(console, answer, repository))


def _list(console: "Console", answer: "DeadLetters", repository: str | None) -> None:
    if not answer.letters:
        of = f" of {repository}" if repository is not None else ""
        others = f"; {screen.count(answer.others, 'other')}" if answer.others else ""
        hidden = f"; {answer.hidden} are being looked at elsewhere" if answer.hidden else ""
        screen.say(console, f"no dead letters{of}{others}{hidden}")
        return
    shown = screen.table(
        "id", "image", "to", "tries", "first", "last", fold=("image",), right=("tries", "first", "last")
    )
    first: dict[str, datetime | None] = {}
    for letter in answer.letters:  # the oldest letter of an image comes first
        began = first.setdefault(letter.newest, letter.first_seen or letter.sent_at)
        if letter.id != letter.newest:
            continue
        name = screen.image(letter.repository, letter.tag, letter.digest)
        shown.add_row(
            letter.id[:_SHORT],
            screen.two_lines(name + (f" ({letter.times} letters)" if letter.times > 1 else ""), why(letter)),
            letter.destination or "-",
            "-" if letter.attempts is None else str(letter.attempts),
            screen.ago(began),
            screen.ago(letter.failed_at),
        )
    console.print(shown)
    if answer.total > len(answer.letters):
        screen.say(console, f"{len(answer.letters)} of about {screen.count(answer.total, 'dead letter')}")
    if answer.next:
        screen.say(console, f"more: --after {answer.next}")


def why(letter: "DeadLetter") -> str:
    """Class and words of the error, or what there is instead."""
    if letter.error_class and letter.error:
        return f"{letter.error_class}: {letter.error}"
    return letter.error or letter.reason or "no reason was noted: the consumer died, or could not reach the ledger"


@dlq.command()
@click.argument("id", metavar="ID")
@click.option("--lines", metavar="N", type=click.IntRange(0), default=20, show_default=True, help="Of the copy's log.")
@options.common
def show(id: str, lines: int) -> None:
    """Show one dead letter: the message, what the ledger knows, and the copy's last log lines.

    ID is a message's id, or as much of its beginning as names one; `ecr-relay dlq list` has them.

    \b
    Examples:
      ecr-relay dlq show 3f2c9a1e
      ecr-relay dlq show 3f2c --json | jq -r .body
    """
    from ecr_relay.operate import deadletters

    answer = deadletters.show(options.deployment(), id, lines=lines)
    screen.emit(answer, lambda console: _show(console, answer))


def _show(console: "Console", answer: "Opened") -> None:
    said = why(answer).casefold()
    facts = screen.facts(
        {
            "id": answer.id,
            "image": screen.image(answer.repository, answer.tag, answer.digest),
            "digest": answer.digest,
            "destination": answer.destination,
            "kind": answer.kind if answer.lane is None else f"{answer.kind}, lane {answer.lane}",
            "attempts": answer.attempts,
            "receives": answer.receives,
            "first seen": screen.moment(answer.first_seen),
            "sent": screen.moment(answer.sent_at),
            "failed": screen.moment(answer.failed_at),
            "status": answer.status,
            "error": why(answer),
            "noted": None if said == (answer.reason or "").casefold() else answer.reason,
            "run": answer.run,
            "log stream": answer.log_stream,
        }
    )
    screen.say(console, facts)
    screen.say(console, "\nmessage", style="bold")
    screen.say(console, answer.body)
    if answer.log:
        screen.say(console, "\nlog", style="bold")
        for line in answer.log:
            screen.say(console, screen.log_line(line))


@dlq.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All of them.")
@options.repository_option("All of this repository, or of those that a glob matches.")
@options.common
def redrive(ids: tuple[str, ...], all_: bool, repository: str | None) -> None:
    """Put dead letters back into the copy queue, with fresh attempts.

    Mend first what the error says: what fails again is back here after three attempts. Malformed messages fail again
    whatever is mended; `dlq purge ID` removes one.

    With an ID go the other letters of the same image and destination: one is copied, the others join it or skip.

    --all uses SQS's own move task where the region has it; else they go one by one, sent first and deleted then, so
    that none can be lost.

    \b
    Examples:
      ecr-relay dlq redrive --all
      ecr-relay dlq redrive 3f2c9a1e 77b0
      ecr-relay dlq redrive --repository 'team/*'
    """
    options.wants_dead_letters(ids, repository, all_)
    from ecr_relay.operate import redrive as operate

    with screen.counting("redriving") as progress:
        answer = operate.redrive(options.deployment(), ids=ids, repository=repository, progress=progress)

    def render(console: "Console") -> None:
        how = "by SQS's move task" if answer.how == "move-task" else "one by one"
        along = _along(answer.along) if not answer.failed else ""
        screen.say(console, f"{screen.count(answer.moved, 'message')} back in the copy queue, {how}{along}")
        if answer.failed:
            screen.say(console, f"{screen.count(answer.failed, 'message')} could not be moved, and stay here")

    screen.emit(answer, render)
    if answer.failed:
        raise click.exceptions.Exit(1)


@dlq.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="All of them.")
@options.repository_option("All of this repository, or of those that a glob matches.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.common
def purge(ids: tuple[str, ...], all_: bool, repository: str | None, yes: bool) -> None:
    """Delete dead letters for good: those that are named, or all. Asks first, with their number.

    Their images are not copied by these messages any more; the next reconcile finds those that the source still has.
    `status` and `explain` go on calling them given up, and `ecr-relay copy IMAGE` starts one over.

    With an ID go the other letters of the same image and destination. What arrives meanwhile stays. --yes wants them
    named, all of them by --all, so that a name that a script left empty is not all.

    \b
    Examples:
      ecr-relay dlq purge
      ecr-relay dlq purge 3f2c9a1e
      ecr-relay dlq purge --repository team/app --yes
    """
    options.wants_dead_letters(ids, repository, all_, asked=not yes)
    from ecr_relay.operate import redrive as operate

    deployment = options.deployment()

    def agree(chosen: "Chosen") -> None:
        what = screen.count(len(chosen.letters), "dead letter") + (f" of {repository}" if repository else "")
        what += f"{_along(chosen.along)}," if chosen.along else ""
        click.confirm(f"{deployment.stack}: delete {what} for good?", abort=True, err=True)

    answer = operate.purge(deployment, ids=ids, repository=repository, agree=None if yes else agree)
    deleted = f"{screen.count(answer.deleted, 'dead letter')} deleted{_along(answer.along)}"
    screen.emit(answer, lambda console: screen.say(console, deleted))


def _along(count: int) -> str:
    return f", {count} of them taken along as the same image's" if count else ""
