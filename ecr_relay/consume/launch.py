"""From copies to a running task: slot -> claims -> run record -> RunTask, in this order.

Whatever dies in between leaves a slot whose task ECS does not know; the reaper gives it back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from ecr_relay.consume.decide import Copy
from ecr_relay.consume.reap import Reaper
from ecr_relay.errors import CopyError, Transient
from ecr_relay.ledger import Job, Ledger, Run, Slot, WantedTag
from ecr_relay.tasks import LaunchRefused, LaunchUnknown, Tasks


@dataclass(slots=True)
class Launched:
    """A run that this invocation started, and the messages that wait for it."""

    run: Run
    slot: Slot
    copies: list[Copy]
    waiting: list[tuple[Copy, str]] = field(default_factory=list)
    """Copies that could not be made part of it, with the reason."""
    task: str | None = None
    """None while RunTask's answer is missing."""


@dataclass(slots=True)
class NotLaunched:
    """No task for these: `failed` says whether that was an attempt, or only a wait."""

    copies: list[Copy]
    reason: str
    failed: bool = False


def launch(ledger: Ledger, tasks: Tasks, reaper: Reaper, copies: Sequence[Copy]) -> Launched | NotLaunched:
    """One task for copies that share a destination and a lane."""
    first = copies[0]
    run_id = uuid4().hex
    slot = _slot(ledger, reaper, run_id, first)
    if slot is None:
        return NotLaunched(list(copies), "no slot is free")
    try:
        jobs, mine, waiting = _claim(ledger, run_id, copies)
        if not jobs:
            ledger.slots.free(run_id, slot.number)
            return NotLaunched(list(copies), "claimed by another meanwhile")
        run = ledger.runs.put(run_id, first.envelope.source, first.destination.name, first.envelope.lane, jobs)
    except Exception as error:
        # Nothing was launched, so nothing can be running: no need to wait until ECS is known to know of no task.
        _undo(ledger, run_id, slot, copies, Transient(f"not launched: {error}"), counts=False)
        raise
    launched = Launched(run, slot, mine, waiting)
    try:
        launched.task = tasks.launch(run_id)
    except LaunchUnknown:
        # There may be a task. It will say so by its slot, or ECS will know it by `startedBy`.
        return launched
    except LaunchRefused as error:
        _undo(ledger, run_id, slot, mine, Transient(str(error)), counts=not error.passing)
        return NotLaunched(list(copies), str(error), failed=not error.passing)
    ledger.runs.launched(run_id, launched.task)
    return launched


def _slot(ledger: Ledger, reaper: Reaper, run_id: str, copy: Copy) -> Slot | None:
    wanted = (run_id, copy.destination.name, copy.envelope.lane, copy.max_tasks)
    slot = ledger.slots.take(*wanted)
    if slot is None and reaper.reap():
        slot = ledger.slots.take(*wanted)
    return slot


def _claim(ledger: Ledger, run_id: str, copies: Sequence[Copy]) -> tuple[list[Job], list[Copy], list[tuple[Copy, str]]]:
    """A job for every digest that could be claimed, with all the tags that are to have it."""
    groups: dict[tuple[str, str], list[Copy]] = {}
    for copy in copies:
        groups.setdefault((copy.envelope.repository, copy.envelope.digest), []).append(copy)
    jobs: list[Job] = []
    mine: list[Copy] = []
    waiting: list[tuple[Copy, str]] = []
    for (repository, digest), group in groups.items():
        first_seen = min(copy.envelope.first_seen for copy in group)
        heals = all(copy.envelope.lane == "reconcile" for copy in group)
        subject = next(filter(None, (copy.subject for copy in group)), None)
        claimed = ledger.digests.claim(group[0].record, run_id, first_seen, heals=heals, subject=subject)
        if claimed is None:
            waiting += [(copy, "claimed by another meanwhile") for copy in group]
            continue
        tags = {copy.envelope.tag: copy.seen_at for copy in group if copy.envelope.tag is not None}
        wanted = tuple(WantedTag(name=name, seen_at=seen_at) for name, seen_at in tags.items())
        messages = tuple(copy.delivery.message_id for copy in group)
        jobs.append(Job(repository=repository, digest=digest, tags=wanted, messages=messages, attempt=claimed.attempts))
        mine += group
    return jobs, mine, waiting


def _undo(ledger: Ledger, run_id: str, slot: Slot, copies: Sequence[Copy], error: CopyError, *, counts: bool) -> None:
    """End this run's claims, those that it has, and free its slot: there is no task."""
    for record in {(copy.record.target, copy.record.digest): copy.record for copy in copies}.values():
        if counts:
            ledger.digests.fail(record.target, record.digest, run_id, error)
        else:
            ledger.digests.release(record.target, record.digest, run_id, error)
    ledger.slots.free(run_id, slot.number)
