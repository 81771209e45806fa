"""Which runs are alive, and ending those that are not.

A slot whose task was launched, or may have been, is freed only after ECS has shown that the task is no more:

    the task says that it ended            ask ECS; over: free the slot; runs on for PENDING_MS: stop it
    the lease is over, ECS: task is over   what it had claimed is given up, with ECS's reason; free the slot
    the lease is over, ECS: task pending   left alone for PENDING_MS after it was taken, then stopped
    the lease is over, ECS: task runs      it should have ended itself; stop it, and look again later
    ECS knows no task (any more)           after UNKNOWN_MS the claims are given back and the slot is freed

What a task that is over still claims was interrupted; but a task that ECS stopped for reasons of its own, or had no
room for, gives it back, and one that could not be started for any other reason has failed.
"""

import logging
from collections.abc import Sequence
from typing import Final, Literal

from ecr_relay.errors import Transient
from ecr_relay.ledger import Ledger, Slot
from ecr_relay.tasks import LEASE_OVER, Tasks, TaskState

PENDING_MS: Final = 600_000
"""How long Fargate may take to start a task before it is stopped."""
UNKNOWN_MS: Final = 300_000
"""How long a task may be unknown to ListTasks after RunTask: ECS is eventually consistent."""

_log = logging.getLogger(__name__)


_End = Literal["released", "interrupted", "failed"]


class Reaper:
    """For one invocation: the slots are read once, and again after something was freed."""

    def __init__(self, ledger: Ledger, tasks: Tasks) -> None:
        self._ledger = ledger
        self._tasks = tasks
        self._held: list[Slot] | None = None

    def alive(self, run: str | None) -> bool:
        """Whether what this run has claimed is still its own; if its lease is over, ECS is asked first."""
        if self._held is not None and self._valid(run, self._held):
            return True
        # Read now, so that it has begun, and renewed, if it ever did.
        self._held = self._ledger.slots.held()
        if self._valid(run, self._held):
            return True
        expired = [slot for slot in self._held if slot.owns(run)]
        return bool(expired) and not self._reap(expired)

    def _valid(self, run: str | None, held: Sequence[Slot]) -> bool:
        return any(slot.owns(run) and slot.until >= self._ledger.clock() for slot in held)

    def reap(self) -> int:
        """Free every slot that may be freed; how many were."""
        now = self._ledger.clock()
        return self._reap([slot for slot in self._ledger.slots.held() if slot.phase == "ended" or slot.until < now])

    def over(self, run: str, state: TaskState) -> None:
        """ECS shows that this run's task is no more: whatever it still claims ends, with ECS's reason."""
        how: _End = "released" if state.passing else "interrupted" if state.started else "failed"
        self._give_up(run, f"the copy task ended before the copy did: {state.reason}", how)

    def _reap(self, slots: list[Slot]) -> int:
        runs = {slot.run: self._ledger.runs.get(slot.run) for slot in slots}
        arns = {run: (record.task if record else None) or self._tasks.of_run(run) for run, record in runs.items()}
        states = self._tasks.states(arn for arn in arns.values() if arn)
        return sum(self._reap_one(slot, states.get(arns[slot.run] or "")) for slot in slots)

    def _reap_one(self, slot: Slot, state: TaskState | None) -> bool:
        age = self._ledger.clock() - slot.taken_at
        if state is None:
            if age < UNKNOWN_MS:
                return False
            self._give_up(slot.run, "ECS knows no task of its run", "released")
        elif state.over:
            self.over(slot.run, state)
        else:
            overdue = self._ledger.clock() - slot.until > PENDING_MS
            if age > PENDING_MS if state.pending else slot.phase != "ended" or overdue:
                self._tasks.stop(state.arn, "ecr-relay: it did not start in time" if state.pending else LEASE_OVER)
            return False
        self._ledger.slots.free(slot.run, slot.number)
        self._held = None
        return True

    def _give_up(self, run_id: str, reason: str, how: "_End") -> None:
        """If the run has no record, its consumer died before it wrote what it had claimed: the decider finds that."""
        run = self._ledger.runs.get(run_id)
        if run is None:
            return
        digests = self._ledger.digests
        end = {"released": digests.release, "interrupted": digests.interrupt, "failed": digests.fail}[how]
        for job in run.jobs:
            record = end(run.target(job), job.digest, run_id, Transient(reason))
            if record is not None:
                facts: dict[str, object] = {"run": run_id, "repository": job.repository, "digest": job.digest}
                facts |= {"attempts": record.attempts, "interruptions": record.interruptions}
                _log.warning("given up", extra=facts | {"how": how, "reason": reason})
