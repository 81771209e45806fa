"""`ecr-relay dlq`: what was given up."""

from typing import TYPE_CHECKING

import click

from ecr_relay.cli import options, screen

if TYPE_CHECKING:
    from rich.console import Console

    from ecr_relay.operate.deadletters import DeadLetter, DeadLetters, Opened

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
@options.repository_option("Only of this repository.")
@click.option("--limit", metavar="N", type=click.IntRange(1), default=100, show_default=True, help="A page.")
@click.option("--after", metavar="NEXT", help="The page after the one that ended with NEXT.")
@options.common
def list_(repository: str | None, limit: int, after: str | None) -> None:
    """List the dead letters with image, attempts, and why, the oldest first.

    FIRST is how long ago the image was pushed, or found missing; LAST how long ago it failed the last time.

    \b
    Examples:
      ecr-relay dlq list
      ecr-relay dlq list --limit 1000
      ecr-relay dlq list --repository team/app --json | jq '.letters[].error'
    """
    from ecr_relay.operate import deadletters

    answer = deadletters.show_all(options.deployment(), repository=repository, limit=limit, after=after)
    screen.emit(answer, lambda console: _list(console, answer))


def _list(console: "Console", answer: "DeadLetters") -> None:
    if not answer.letters:
        screen.say(
            console, "no dead letters" + (f"; {answer.hidden} are being looked at elsewhere" if answer.hidden else "")
        )
        return
    shown = screen.table(
        "id", "image", "to", "tries", "first", "last", fold=("image",), right=("tries", "first", "last")
    )
    for letter in answer.letters:
        shown.add_row(
            letter.id[:_SHORT],
            screen.two_lines(screen.image(letter.repository, letter.tag, letter.digest), why(letter)),
            letter.destination or "-",
            "-" if letter.attempts is None else str(letter.attempts),
            screen.ago(letter.first_seen or letter.sent_at),
            screen.ago(letter.failed_at),
        )
    console.print(shown)
    if answer.total > len(answer.letters):
        screen.say(console, f"{len(answer.letters)} of about {answer.total}")
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
            "noted": answer.reason,
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
@options.repository_option("All of this repository.")
@options.common
def redrive(ids: tuple[str, ...], all_: bool, repository: str | None) -> None:
    """Put dead letters back into the copy queue, with fresh attempts.

    Mend first what the error says: what fails again is back here after three attempts. Malformed messages fail again
    whatever is mended; `dlq purge ID` removes one.

    --all uses SQS's own move task where the region has it; else they go one by one, sent first and deleted then, so
    that none can be lost.

    \b
    Examples:
      ecr-relay dlq redrive --all
      ecr-relay dlq redrive 3f2c9a1e 77b0
      ecr-relay dlq redrive --repository team/app
    """
    options.wants_one(
        bool(ids) + all_ + (repository is not None) == 1, "name the dead letters: give IDs, --repository, or --all"
    )
    from ecr_relay.operate import redrive as operate

    with screen.counting("redriving") as progress:
        answer = operate.redrive(options.deployment(), ids=ids, repository=repository, progress=progress)

    def render(console: "Console") -> None:
        how = "by SQS's move task" if answer.how == "move-task" else "one by one"
        screen.say(console, f"{screen.count(answer.moved, 'message')} back in the copy queue, {how}")
        if answer.failed:
            screen.say(console, f"{screen.count(answer.failed, 'message')} could not be moved, and stay here")

    screen.emit(answer, render)
    if answer.failed:
        raise click.exceptions.Exit(1)


@dlq.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@options.repository_option("Only of this repository.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.common
def purge(ids: tuple[str, ...], repository: str | None, yes: bool) -> None:
    """Delete dead letters for good: all, a repository's, or those named. Asks first.

    Their images are not copied by these messages any more; the next reconcile finds those that the source still has.

    \b
    Examples:
      ecr-relay dlq purge 3f2c9a1e
      ecr-relay dlq purge --repository team/app --yes
    """
    options.wants_one(not (ids and repository), "give IDs or --repository, not both")
    from ecr_relay.operate import deadletters
    from ecr_relay.operate import redrive as operate

    deployment = options.deployment()
    if not yes:
        found = len(ids) or deadletters.waiting(deployment)
        what = f"the dead letters of {repository}" if repository else screen.count(found, "dead letter")
        click.confirm(f"{deployment.stack}: delete {what} for good?", abort=True, err=True)
    answer = operate.purge(deployment, ids=ids, repository=repository)
    screen.emit(answer, lambda console: screen.say(console, f"{screen.count(answer.deleted, 'dead letter')} deleted"))
