"""`ecr-relay status`, `images` and `verify`: looking on."""

import time
from typing import TYPE_CHECKING

import click

from ecr_relay.cli import options, screen

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ecr_relay.operate.images import Images
    from ecr_relay.operate.status import Running, Status
    from ecr_relay.operate.verify import Verified


@click.command()
@options.repository_option("Only running copies and failures of this repository, or those that a glob matches.")
@click.option("--watch", is_flag=True, help="Again and again, until interrupted. With --json: a line each time.")
@click.option("--interval", metavar="S", type=options.Seconds(0.2), default=2.0, show_default=True, help="Of --watch.")
@options.common
def status(repository: str | None, watch: bool, interval: float) -> None:
    """Show what waits, what runs, what failed, how long pushes take, and the last reconcile.

    Queue depths are SQS's, who counts about. Bytes are what a task's copies have written, as it said within the last
    20 seconds; layers that are there already are not written. Lag is from push to arrival. Failures are those of the
    last day; what was given up is a dead letter, too (`ecr-relay dlq list`), until that is purged. A destination that
    refuses as a whole is shown with its reason; its messages wait, and use up no attempt. --watch goes on through an
    outage of the network.

    \b
    Examples:
      ecr-relay status
      ecr-relay status --watch --interval 5
      ecr-relay status --json | jq .lag.p99_seconds
    """
    from ecr_relay.operate import status as operate

    deployment = options.deployment()
    if not watch:
        answer = operate.status(deployment, repository)
        screen.emit(answer, lambda console: console.print(_status(answer)))
        return
    from ecr_relay.operate.patience import Patience

    console = screen.console()
    if options.json_wanted() or not console.is_terminal:
        patience = Patience(screen.tell)
        while True:
            with patience.bearing():
                answer = operate.status(deployment, repository)
                if options.json_wanted():
                    screen.write(answer.model_dump_json())
                else:
                    console.print(_status(answer))
                    console.print()
            time.sleep(interval)
    from rich.console import Group
    from rich.live import Live

    patience = Patience(lambda _line: None)  # it is on the screen
    shown: RenderableType = ""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            with patience.bearing():
                shown = _status(operate.status(deployment, repository))
            if patience.trouble is None:
                live.update(shown, refresh=True)
            else:
                live.update(Group(screen.styled(f"not as it is now: {patience.trouble}", "red"), shown), refresh=True)
            time.sleep(interval)


def _status(answer: "Status") -> "RenderableType":
    from rich.console import Group

    parts: list[RenderableType] = [
        screen.styled(f"{answer.stack} in {answer.region}, {answer.at:%Y-%m-%d %H:%M:%S} UTC", "bold"),
        screen.facts(_summary(answer)),
    ]
    alive = [entry for entry in answer.running if entry.phase != "ended"]
    if alive:
        columns = ("task", "to", "lane", "phase", "age", "moved", "images")
        shown = screen.table(*columns, fold=("images",), right=("age", "moved"))
        for entry in alive:
            phase = entry.phase if entry.lease_seconds >= 0 else "overdue"
            shown.add_row(
                screen.task(entry.task),
                entry.destination,
                entry.lane,
                phase,
                screen.duration(entry.age_seconds),
                screen.size(entry.bytes),
                _images_of(entry),
            )
        parts += ["", shown]
    if answer.failures.latest:
        shown = screen.table("failed image", "to", "status", "tries", "age", fold=("failed image",))
        for failure in answer.failures.latest:
            shown.add_row(
                screen.two_lines(
                    screen.image(failure.repository, failure.tag, failure.digest),
                    screen.cut(f"{failure.error_class}: {failure.error}"),
                ),
                failure.destination,
                screen.styled(failure.status),
                str(failure.attempts or "-"),
                screen.ago(failure.changed_at, answer.at),
            )
        parts += ["", shown]
    return Group(*parts)


def _summary(answer: "Status") -> dict[str, object]:
    queue, failures, record = answer.queue, answer.failures, answer.reconcile
    ended = sum(entry.phase == "ended" for entry in answer.running)
    lines: dict[str, object] = {
        "queue": f"{queue.waiting} waiting, {queue.in_flight} in flight, {queue.delayed} delayed"
        + ("; PAUSED (`ecr-relay resume`)" if answer.consuming is False else ""),
        "oldest": _oldest(answer),
        "lag": "nothing pushed has arrived within the last hour"
        if answer.lag is None
        else f"p50 {screen.lag(answer.lag.p50_seconds)}, p99 {screen.lag(answer.lag.p99_seconds)}, of "
        f"{screen.count(answer.lag.arrivals, 'arrival')} within the last hour",
        "dead letters": f"{answer.dead_letters}" + (" (`ecr-relay dlq list`)" if answer.dead_letters else ""),
        "running": f"{len(answer.running) - ended} of {answer.slots} slots"
        + (f" ({ended} more not given back yet by tasks that have ended)" if ended else ""),
        "failures": f"{failures.exhausted} given up, {failures.failed} to be tried again, "
        f"{failures.waiting} given back (last day)",
    }
    if answer.event_dead_letters:
        lines["lost events"] = f"{answer.event_dead_letters} that EventBridge could not deliver; `ecr-relay sync`"
    if record is None:
        lines["reconcile"] = "none yet"
    else:
        if record.status == "done":
            when = f"done {screen.ago(record.finished_at, answer.at)} ago"
        else:
            when = f"on since {screen.ago(record.started_at, answer.at)}, at {record.cursor or 'its beginning'}"
        lines["reconcile"] = (
            f"{when}: {record.repositories} repositories, {record.images} images, {record.enqueued} enqueued, "
            f"{record.failures} failures" + ("; another follows" if record.again else "")
        )
        if record.shortcomings:
            lines["it lacks"] = screen.cut("; ".join(record.shortcomings), 400)
        if record.findings:
            lines["it found"] = "; ".join(record.findings)
    for held in answer.paused:
        lines[f"{held.destination} PAUSED"] = (
            f"for {screen.ago(held.since, answer.at)}; `ecr-relay resume --destination {held.destination}`"
        )
    for breaker in answer.breakers:
        lines[f"{breaker.destination} refuses"] = f"until {breaker.until:%H:%M:%S}: {breaker.reason}"
    return lines


def _oldest(answer: "Status") -> str | None:
    parts = []
    ages = [answer.oldest_image_seconds]
    if answer.queue.waiting + answer.queue.in_flight + answer.queue.delayed:
        ages.append(answer.oldest_push_seconds)  # else it has arrived since
    known = [age for age in ages if age is not None]
    if known:
        parts.append(f"image {screen.duration(max(known))} since its push")
    if answer.oldest_message_seconds is not None:
        parts.append(f"message {screen.duration(answer.oldest_message_seconds)} since it was sent last")
    return ", ".join(parts) or None


def _images_of(entry: "Running") -> str:
    names = [f"{image.repository}:{','.join(image.tags)}" for image in entry.images if image.tags]
    names += [screen.image(image.repository, None, image.digest) for image in entry.images if not image.tags]
    return " ".join(names) or "-"


@click.command()
@options.repository_option("Only this repository of the source, or those that a glob matches.")
@click.option("--destination", metavar="D", help="Only at this destination.")
@click.option(
    "--status",
    "wanted",
    type=click.Choice(("copying", "waiting", "failed", "exhausted", "copied")),
    help="Only with this status.",
)
@click.option("--limit", metavar="N", type=click.IntRange(1, 10_000), default=100, show_default=True, help="A page.")
@click.option("--after", metavar="NEXT", help="The page after the one that ended with NEXT.")
@options.common
def images(repository: str | None, destination: str | None, wanted: str | None, limit: int, after: str | None) -> None:
    """List what the ledger knows, image by image.

    A row is a digest at a destination, with the tags that it was given there.
    The ledger knows what the relay has copied, copies, or could not copy; what was there before it was deployed it
    does not know (`ecr-relay verify` asks the registries themselves). A repository's name is the source's.

    \b
    copying    a task has it            waiting    given back, and tried again without that counting
    failed     to be tried again        exhausted  given up: see `ecr-relay dlq list`
    copied     verified at the destination

    \b
    Examples:
      ecr-relay images --repository team/app
      ecr-relay images --status exhausted --json
    """
    from ecr_relay.operate import images as operate

    selection = operate.Selection.model_validate(
        {"repository": repository, "destination": destination, "status": wanted}
    )
    answer = operate.images(options.deployment(), selection, limit, after)
    screen.emit(answer, lambda console: _images(console, answer))


def _images(console: "Console", answer: "Images") -> None:
    if not answer.images:
        screen.say(console, "the ledger has no such image")
        return
    shown = screen.table("image", "digest", "to", "status", "age", "lag", fold=("image",), right=("age", "lag"))
    for entry in answer.images:
        moment = entry.verified_at if entry.status == "copied" else entry.failed_at or entry.first_seen
        shown.add_row(
            f"{entry.repository}:{','.join(entry.tags)}" if entry.tags else entry.repository,
            screen.short(entry.digest),
            entry.destination,
            screen.styled(entry.status),
            screen.ago(moment),
            "-" if entry.lag_seconds is None else screen.duration(entry.lag_seconds),
        )
    console.print(shown)
    if answer.next:
        screen.say(console, f"more: --after {answer.next}")


@click.command()
@options.repository_option("Only this repository of the source, or those that a glob matches.")
@options.common
def verify(repository: str | None) -> None:
    """Prove that both sides are equal.

    Both are listed, and every tag's digest is compared by the rules, and so are signatures and whatever else refers to
    an image. It asks the registries, not the ledger, with your own credentials (or those that the configuration names),
    and changes nothing. Exit status 1 if an image differs, is archived at a destination so that it cannot be pulled, a
    repository could not be compared, --repository matches none, or the source does not have one that a rule names. What
    a destination has beyond the source is no difference; what is pushed meanwhile may be one until it has been copied.

    \b
    Examples:
      ecr-relay verify
      ecr-relay verify --repository 'team/*' --json | jq .different
    """
    from ecr_relay.operate import verify as operate

    deployment = options.deployment()
    with screen.counting("comparing") as progress:
        compared = iter(range(1, 1_000_000))
        answer = operate.verify(deployment, repository, progress=lambda _name: progress(next(compared)))
    screen.emit(answer, lambda console: _verified(console, answer))
    if not answer.ok:
        raise click.exceptions.Exit(1)


def _verified(console: "Console", answer: "Verified") -> None:
    if answer.different:
        shown = screen.table("image", "source has", "there", "to", fold=("image",))
        for entry in answer.different:
            name = f"{entry.repository}:{entry.tag or '(no tag)'}"
            there = "archived" if entry.archived else screen.short(entry.there)
            shown.add_row(name, screen.short(entry.digest), there, entry.destination)
        console.print(shown)
    for failure in answer.unverified:
        screen.say(console, f"{failure.repository} at {failure.destination} could not be compared: {failure.error}")
    for name in answer.absent:
        screen.say(console, f"{name} is named by a rule, and the source does not have it")
    differ = f"{len(answer.different)} different, {len(answer.unverified)} not compared"
    if answer.absent:
        differ += f"; {screen.count(len(answer.absent), 'repository')} not at the source"
    screen.say(
        console,
        f"{screen.count(answer.images, 'image')} in {screen.count(answer.repositories, 'repository')}: "
        + ("all equal" if answer.ok else differ),
    )
