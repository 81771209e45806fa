"""`ecr-relay explain`, `logs`, `copy` and `wait`: one image."""

from typing import TYPE_CHECKING

import click

from ecr_relay.cli import options, screen

if TYPE_CHECKING:
    from rich.console import Console

    from ecr_relay.images import Reference
    from ecr_relay.operate.explain import Explanation
    from ecr_relay.operate.log import CopyLogs
    from ecr_relay.operate.order import Ordered


@click.command()
@options.image_argument
@options.common
def explain(image: "Reference") -> None:
    """Say why IMAGE is where it is, and what happens next.

    Which rules select it, what the source and each destination have now, and what the ledger knows. IMAGE is
    REPOSITORY:TAG or REPOSITORY@sha256:…, as the source names it; with a digest alone, it counts as untagged.
    The registries are asked with your own credentials, or those that the configuration names.

    \b
    Examples:
      ecr-relay explain team/app:1.2
      ecr-relay explain team/app:1.2 --json | jq '.places[].next'
    """
    from ecr_relay.operate import explain as operate

    answer = operate.explain(options.deployment(), image)
    screen.emit(answer, lambda console: _explain(console, answer))


def _explain(console: "Console", answer: "Explanation") -> None:
    source = {"source has": answer.digest or ("not known: " + answer.answer if answer.answer else "nothing")}
    screen.say(console, screen.image(answer.repository, answer.tag, answer.digest), style="bold")
    screen.say(console, screen.facts(source))
    for place in answer.places:
        console.print()
        screen.say(console, f"{place.destination}: {place.repository}", style="bold")
        has = f"not known: {place.answer}" if place.answer else place.digest or "nothing"
        selected = ", ".join(f"rules[{index}]" for index in place.selected_by)
        screen.say(
            console,
            screen.facts(
                {
                    "has": has,
                    "selected by": selected or "no rule",
                    "ledger": place.status + (f", {place.attempts} attempts" if place.attempts else ""),
                    "tag given": place.tag_digest,
                    "first seen": screen.moment(place.first_seen),
                    "verified": screen.moment(place.verified_at),
                    "failed": screen.moment(place.failed_at),
                    "error": f"{place.error_class}: {place.error}" if place.error else None,
                    "tag refused": f"{place.tag_error_class}: {place.tag_error}" if place.tag_error else None,
                    "run": place.run,
                    "log stream": place.log_stream,
                    "next": place.next,
                }
            ),
        )


@click.command()
@options.image_argument
@click.option("--destination", metavar="D", help="Only of the copy to this destination.")
@click.option("--lines", metavar="N", type=click.IntRange(1), default=1000, show_default=True, help="The last so many.")
@options.common
def logs(image: "Reference", destination: str | None, lines: int) -> None:
    """Print the log lines of the last copy of IMAGE.

    They are the copy task's own, in the stack's log group, without those about other images of the same task. The
    ledger remembers the task for a month; the log group keeps lines for as long as the deployment says.

    \b
    Examples:
      ecr-relay logs team/app:1.2 --destination europe
    """
    from ecr_relay.operate import log

    answer = log.of_image(options.deployment(), image, destination, lines=lines)
    screen.emit(answer, lambda console: _logs(console, answer))


def _logs(console: "Console", answer: "CopyLogs") -> None:
    for copy in answer.logs:
        screen.say(console, f"{copy.destination}: {copy.log_group} {copy.log_stream or '(no task)'}", style="bold")
        for line in copy.lines:
            screen.say(console, screen.log_line(line))
        if not copy.lines:
            screen.say(console, "no lines: the log group no longer has them, or not yet")


@click.command()
@options.image_argument
@click.option("--destination", "destinations", metavar="D", multiple=True, help="Only there. May be repeated.")
@click.option("--force", is_flag=True, help="Do not believe the ledger: ask each destination, and copy what it lacks.")
@options.common
def copy(image: "Reference", destinations: tuple[str, ...], force: bool) -> None:
    """Copy IMAGE now, before all reconcile work.

    Puts a message for each destination into the copy queue, as a push would; `ecr-relay wait` waits for it. What had
    been given up starts over. An image that no rule selects is refused. A destination that is paused is said to be.

    \b
    Examples:
      ecr-relay copy team/app:1.2 && ecr-relay wait team/app:1.2 --destination europe
      ecr-relay copy team/app:1.2 --destination europe --force
    """
    from ecr_relay.operate import order

    answer = order.order(options.deployment(), image, destinations=destinations, force=force)
    screen.emit(answer, lambda console: _copy(console, answer))


def _copy(console: "Console", answer: "Ordered") -> None:
    name = screen.image(answer.repository, answer.tag, answer.digest)
    screen.say(console, f"{name} is enqueued for {', '.join(answer.destinations)}")
    for destination, why in answer.held.items():
        screen.say(console, f"{destination}: {why}")


@click.command()
@options.image_argument
@click.option("--destination", metavar="D", required=True, help="Where it is to arrive.")
@click.option(
    "--timeout",
    metavar="S",
    type=options.Seconds(),
    default=900.0,
    show_default=True,
    help="Seconds until it is given up.",
)
@options.common
def wait(image: "Reference", destination: str, timeout: float) -> None:
    """Block until IMAGE is at a destination.

    It is for pipelines that must not deploy before. What counts is the destination's own answer: the tag there has
    the digest that the source's tag has, or the digest is there. Exit status 1, with the reason, at once when the
    source does not have it or no rule has it copied there, when the copy is given up, or when the time is over. What
    was given up before may be starting over, by a new push or a redrive, so it is waited for half a minute. A registry
    or network that is away for a while is said on stderr, and ends nothing.

    \b
    Example:
      ecr-relay wait team/app:1.2 --destination europe --timeout 600 && deploy
    """
    from ecr_relay.operate import wait as operate

    with screen.counting(f"waiting for {image}"):
        answer = operate.wait(options.deployment(), image, destination, timeout, say=screen.tell)
    screen.emit(answer, lambda console: screen.say(console, answer.image))
