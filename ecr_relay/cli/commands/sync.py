"""`ecr-relay sync`: the manual full sync."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ecr_relay.cli import options, screen

if TYPE_CHECKING:
    from rich.console import Console

    from ecr_relay.operate.sync import Plan, Synced
    from ecr_relay.reconcile.planned import Planned


@click.command()
@click.option(
    "--repository",
    "repositories",
    metavar="R",
    multiple=True,
    help="Only these of the source; globs, may be repeated. Default: all that a rule may select.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be copied, and copy nothing.")
@click.option("--wait", is_flag=True, help="Until every enqueued copy has ended; exit status 1 if one failed.")
@click.option("--timeout", metavar="S", type=options.Seconds(), help="Of --wait, in seconds.")
@options.common
def sync(repositories: tuple[str, ...], dry_run: bool, wait: bool, timeout: float | None) -> None:
    """Compare source and destinations now, and copy what differs.

    The same as the daily reconcile: both sides are listed, and only the difference goes into the copy queue, behind
    all pushes. If one is on already, a full one follows it. Interrupting this command stops nothing.

    A repository that rules name and the source does not have is told, and is no failure. A --repository that matches
    none is one: exit status 1.

    --dry-run is also the report before a destination that has images already is adopted: what would be copied or
    retagged, and how many are equal, or only there. What is equal is not copied again, and what is only there stays.

    --wait ends when the sync is done and the copy queue is empty with no copy running: on a busy relay that includes
    what was pushed meanwhile. It is refused, and nothing is started, while the relay or a destination is paused. Off a
    terminal, as in a pipeline's log, it says on stderr how far it is: a line when that changes, every ten seconds at
    the most.

    \b
    Examples:
      ecr-relay sync --dry-run
      ecr-relay sync --repository 'team/*' --wait --timeout 3600
    """
    options.wants_one(not (dry_run and wait), "--dry-run copies nothing, so there is nothing to --wait for")
    options.wants_one(timeout is None or wait, "--timeout goes with --wait")
    from ecr_relay.operate import sync as operate

    deployment = options.deployment()
    if dry_run:
        with screen.counting("comparing"):
            plan = operate.plan(deployment, repositories)
        screen.emit(plan, lambda console: _plan(console, plan))
        if plan.shortcomings:
            raise click.exceptions.Exit(1)
        return
    try:
        with screen.syncing() as step:
            answer = operate.sync(deployment, repositories, wait=wait, timeout=timeout, step=step)
    except KeyboardInterrupt:
        screen.tell("a sync that was started goes on by itself; `ecr-relay status` shows how far it is")
        raise
    screen.emit(answer, lambda console: _synced(console, answer))
    if not answer.ok:
        raise click.exceptions.Exit(1)


def _plan(console: "Console", plan: "Plan") -> None:
    if plan.plan:
        sizes = any(entry.bytes is not None for entry in plan.plan)
        columns = ("action", "image", "source has", "there", "to", "rule", *(["bytes"] if sizes else []))
        shown = screen.table(*columns, fold=("image",))
        for entry in plan.plan:
            tag = entry.tag or "(no tag)"
            shown.add_row(
                entry.action,
                f"{entry.repository}:{tag}",
                screen.short(entry.digest),
                screen.short(entry.there),
                entry.destination,
                "" if entry.rule is None else str(entry.rule),
                *([_bytes(entry)] if sizes else []),
            )
        console.print(shown)
    for name, hours in plan.hours.items():
        if hours:
            there = [entry for entry in plan.plan if entry.destination == name]
            took = screen.duration(hours * 3600)
            screen.say(console, f"{name}: {_size(there)}, and at least {took} by PutImage's quota")
    verb = "differs" if len(plan.plan) == 1 else "differ"
    screen.say(
        console,
        f"{screen.count(len(plan.plan), 'image')} {verb}, {plan.equal} equal, {plan.only_there} only there; "
        f"{screen.count(plan.images, 'image')} in {screen.count(plan.repositories, 'repository')} compared",
    )
    if plan.absent:
        names = screen.count(plan.absent, "repository")
        screen.say(console, f"rules name {names} that the source lacks; `ecr-relay doctor` says which")
    for sentence in plan.shortcomings:
        screen.say(console, f"not complete: {sentence}")


def _bytes(entry: "Planned") -> str:
    if entry.bytes is None:
        return "unknown" if entry.action == "copy" else ""
    return screen.size(entry.bytes)


def _size(entries: "Sequence[Planned]") -> str:
    from ecr_relay.operate.sync import size

    known = size(entries)
    if known is None:
        return "an unknown number of bytes"
    unknown = sum(entry.bytes is None for entry in entries if entry.action == "copy")
    others = f" and {screen.count(unknown, 'image')} of unknown size" if unknown else ""
    return f"up to {screen.size(known)}{others}"


def _synced(console: "Console", answer: "Synced") -> None:
    record = answer.reconcile
    if answer.status == "queued":
        screen.say(console, "another reconcile is on; this one follows it (`ecr-relay status` shows both)")
        return
    if record is None or answer.status == "running":
        screen.say(console, "started, and goes on by itself; `ecr-relay status` shows how far it is")
        return
    screen.say(
        console,
        f"{screen.count(record.images, 'image')} in {screen.count(record.repositories, 'repository')} compared, "
        f"{screen.count(record.enqueued, 'copy')} enqueued",
    )
    for finding in record.findings:
        screen.say(console, finding)
    if answer.waited:
        _ended(console, answer)
    for sentence in record.shortcomings:
        screen.say(console, f"not complete: {sentence}")


def _ended(console: "Console", answer: "Synced") -> None:
    from ecr_relay.cli.commands.deadletters import why

    if not answer.failed:
        screen.say(console, "all copies have ended, and none failed")
        return
    shown = screen.table("image", "to", fold=("image",))
    for letter in answer.failed:
        name = screen.image(letter.repository, letter.tag, letter.digest)
        shown.add_row(screen.two_lines(name, why(letter)), letter.destination or "-")
    console.print(shown)
    screen.say(console, f"{screen.count(len(answer.failed), 'image')} failed; `ecr-relay dlq list` has them")
