"""Watching the tasks that this invocation launched, so that their outcome is their messages' outcome."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ecr_relay.consume.launch import Launched
from ecr_relay.consume.reap import Reaper
from ecr_relay.ledger import Job, Ledger
from ecr_relay.tasks import Tasks

POLL_S: Final = 0.5
SLOW_POLL_S: Final = 2.0
"""After QUICK_S: what takes longer may be seen 2 s late, at a quarter of the reads."""
QUICK_S: Final = 20.0
ECS_EVERY_S: Final = 3.0
"""DescribeTasks is asked this often, for all tasks in one call (20/s sustained for ECS's describe calls)."""


def supervise(
    ledger: Ledger,
    tasks: Tasks,
    reaper: Reaper,
    launched: Sequence[Launched],
    seconds: float,
    sleep: Callable[[float], None],
) -> None:
    """Return when no job of these runs is under way any more, or when the time is over.

    The outcome is in the ledger. A task that ECS shows to be over ends its run there, with ECS's reason.
    """
    begun = ledger.clock()
    asked_ecs = begun
    under_way = [(entry, job) for entry in launched for job in entry.run.jobs]
    while under_way and (spent := (ledger.clock() - begun) / 1000) < seconds:
        # The slots first: a run that was ended by then had written all its outcomes before.
        owned = {slot.run for slot in ledger.slots.held() if slot.phase != "ended"}
        under_way = [
            (entry, job) for entry, job in under_way if entry.run.id in owned and not _settled(ledger, entry, job)
        ]
        if under_way and ledger.clock() - asked_ecs >= ECS_EVERY_S * 1000:
            _end_stopped(ledger, tasks, reaper, {entry.run.id: entry for entry, _ in under_way}.values())
            asked_ecs = ledger.clock()
        elif under_way:
            sleep(min(POLL_S if spent < QUICK_S else SLOW_POLL_S, max(0.0, seconds - spent)))


def _settled(ledger: Ledger, entry: Launched, job: Job) -> bool:
    """Whether nothing more is to be expected of this job: it has failed, or is copied with its tags put or refused."""
    target = entry.run.target(job)
    record = ledger.digests.get(target, job.digest)
    if record.status == "copying" and record.run == entry.run.id:
        return False
    if record.status != "copied":
        return True
    return all(ledger.tags.get(target, tag.name).settled_since(tag.seen_at) for tag in job.tags)


def _end_stopped(ledger: Ledger, tasks: Tasks, reaper: Reaper, entries: Iterable[Launched]) -> None:
    by_task: dict[str, Launched] = {}
    for entry in entries:
        entry.task = entry.task or tasks.of_run(entry.run.id)
        if entry.task:
            by_task[entry.task] = entry
    for arn, state in tasks.states(by_task).items():
        if state.over:
            entry = by_task[arn]
            reaper.over(entry.run.id, state)
            ledger.slots.free(entry.run.id, entry.slot.number)
