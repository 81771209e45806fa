"""The reconcile's job: list both sides, repository by repository, and enqueue what differs.

It asks the destination, not the ledger, and lists it first: what is pushed between the two listings is seen as
missing, which costs a skip; the other way round it would be missed. It is resumed by a schedule from the cursor in its
progress record, until every repository was compared; no function calls itself.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Final, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from ecr_relay import globs
from ecr_relay.config import NewRepository
from ecr_relay.converge import Place
from ecr_relay.errors import CopyError
from ecr_relay.ledger import ProgressRecord
from ecr_relay.ledger.progress import COUNTS, ERROR_LIMIT
from ecr_relay.messages import Envelope
from ecr_relay.plan import Wanted
from ecr_relay.queues import CopyQueue
from ecr_relay.reconcile import deletes
from ecr_relay.reconcile.compare import Comparison, compare, leave
from ecr_relay.reconcile.planned import Planned, planned
from ecr_relay.relay import Relay

QUEUE_LIMIT: Final = 10_000
"""While more messages than this wait, nothing is added; the next tick looks again."""
BUSY_MS: Final = 120_000
"""A run on which somebody worked within this time is his; as long as the handler keeps for one repository."""
PLAN_LIMIT: Final = 5_000
"""Entries of a dry run's answer; a Lambda answer holds 6 MB."""

_log = logging.getLogger(__name__)


class Request(BaseModel):
    """What the reconcile function is invoked with, by the schedules, by `ecr-relay sync`, or by hand."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal["start", "resume"] = "start"
    repositories: tuple[str, ...] = Field(default=(), description="globs; default: all that a rule may select")
    dry_run: bool = Field(default=False, description="answer the plan, change nothing")
    after: str = Field(default="", description="dry run: begin after this repository, to go on with a long plan")


class Answer(BaseModel):
    """What the reconcile function answers. `status` running: it stopped in time and is resumed by the schedule."""

    status: Literal["running", "done", "idle"]
    run: str | None = None
    cursor: str = ""
    counts: dict[str, int] = {}
    last_failure: str | None = Field(default=None, description="which comparison failed last, and why")
    unmatched: tuple[str, ...] = Field(default=(), description="globs asked for that match nothing; known when done")
    plan: list[Planned] | None = None


class Reconciler:
    def __init__(self, relay: Relay, queue: CopyQueue, more_time: Callable[[], bool]) -> None:
        self._relay = relay
        self._queue = queue
        self._more_time = more_time

    def run(self, request: Request) -> Answer:
        """Raises CopyError when the source cannot be listed at all."""
        if request.dry_run:
            return self._dry_run(request)
        source, progress = self._relay.config.source.id, self._relay.ledger.progress
        record = progress.get(source)
        if request.action == "start" or (record is not None and record.status == "done" and record.again):
            mine = uuid4().hex
            # What was asked for during the last run was a full one.
            only = () if record is not None and record.status == "done" and record.again else request.repositories
            record = progress.start(source, mine, only)
            return self._go_on(record) if record.run == mine else _answer("running", record)
        if record is None or record.status == "done":
            return Answer(status="idle")
        if self._relay.ledger.clock() - record.worked_at < BUSY_MS:
            return _answer("running", record)
        taken = progress.take(source, record)
        return _answer("running", record) if taken is None else self._go_on(taken)

    def _go_on(self, record: ProgressRecord) -> Answer:
        source, progress = self._relay.config.source.id, self._relay.ledger.progress
        try:
            every = self._repositories(record.only)
        except CopyError as error:
            progress.trouble(source, record, f"{type(error).__name__}: {error}")
            raise
        for repository in [name for name in every if name > record.cursor]:
            if not self._more_time() or self._queue.waiting() > QUEUE_LIMIT:
                return _answer("running", record)
            counts = dict.fromkeys(COUNTS, 0)
            reconcile = partial(self._reconcile, counts, record.counts["deleted"])
            failure = self._at_each(repository, counts, reconcile)
            _log.info("reconciled", extra={"run": record.run, "repository": repository, **counts})
            moved = progress.advance(source, record, repository, counts, failure)
            if moved is None:
                return _answer("running", record)
            record = moved
        ended = progress.finish(source, record, _unmatched(record.only, every))
        return _answer("done", ended or record)

    def _at_each(self, repository: str, counts: dict[str, int], at: Callable[[Place], Comparison]) -> str | None:
        """Do `at` for each destination, and count the repository; why the last that failed did."""
        failure, absent = None, False
        for destination in self._relay.config.destinations:
            try:
                found = at(self._relay.place(destination, repository))
                absent = absent or found.absent
            except CopyError as error:
                counts["failures"] += 1
                failure = f"{repository} at {destination.name}: {type(error).__name__}: {error}"[:ERROR_LIMIT]
                facts = {"repository": repository, "destination": destination.name}
                _log.warning("not reconciled", extra=facts | {"error": str(error)})
        if absent:
            _log.warning("not at the source", extra={"repository": repository})
        counts["absent" if absent else "repositories"] += 1
        return failure

    def _reconcile(self, counts: dict[str, int], deleted: int, place: Place) -> Comparison:
        found = compare(self._relay, place)
        self._count(found, counts)
        counts["enqueued"] += self._queue.send(
            self._envelope(entry, found.as_of) for entry in (*found.copies, *found.failing)
        )
        for kind, entries in (
            ("observed", found.observed),
            ("evicted", found.evicted),
            ("archived", found.archived),
            ("conflict", found.conflicts),
        ):
            for entry in entries:
                _log.info(kind, extra=asdict(entry))
        leave(self._relay, place, found.evicted)
        if deletes.wanted(self._relay, place.settings, place.source_repository):
            before = deleted + counts["deleted"]
            for outcome in deletes.propagate(self._relay, place, found.source, found.there, found.as_of, before):
                counts[outcome] += 1
        if place.settings.new_repository != NewRepository() and found.there:
            for difference in place.destination.differences(
                place.destination_repository, place.settings.new_repository
            ):
                counts["differing"] += 1
                where = {"destination": place.settings.name, "repository": place.destination_repository}
                _log.warning("not as asked", extra=where | {"reason": difference})
        return found

    @staticmethod
    def _count(found: Comparison, counts: dict[str, int]) -> None:
        counts["images"] += found.selected
        counts["observed"] += len(found.observed)
        counts["evicted"] += len(found.evicted)
        counts["archived"] += len(found.archived)
        counts["conflicts"] += len(found.conflicts)

    def _envelope(self, wanted: Wanted, as_of: int) -> Envelope:
        return Envelope(
            lane="reconcile",
            source=self._relay.config.source.id,
            destination=wanted.destination,
            repository=wanted.repository,
            tag=wanted.tag,
            digest=wanted.digest,
            as_of=as_of,
            first_seen=as_of,
        )

    def _repositories(self, only: tuple[str, ...]) -> list[str]:
        """Sorted, so that the cursor is a name."""
        return [name for name in self._relay.repositories() if not only or globs.matches(name, only)]

    def _dry_run(self, request: Request) -> Answer:
        counts = dict.fromkeys((*COUNTS, "equal", "only_there"), 0)
        plan: list[Planned] = []
        failure, cursor = None, request.after
        every = self._repositories(request.repositories)
        for repository in [name for name in every if name > request.after]:
            if not self._more_time() or len(plan) >= PLAN_LIMIT:
                return Answer(status="running", cursor=cursor, counts=counts, last_failure=failure, plan=plan)
            failure = self._at_each(repository, counts, partial(self._plan, counts, plan)) or failure
            cursor = repository
        unmatched = _unmatched(request.repositories, every)
        return Answer(status="done", cursor=cursor, counts=counts, last_failure=failure, unmatched=unmatched, plan=plan)

    def _plan(self, counts: dict[str, int], plan: list[Planned], place: Place) -> Comparison:
        found = compare(self._relay, place)
        plan += planned(self._relay, place, found)
        self._count(found, counts)
        counts["enqueued"] += len(found.copies) + len(found.failing)
        counts["equal"] += found.equal
        counts["only_there"] += found.only_there
        return found


def _unmatched(asked: tuple[str, ...], repositories: list[str]) -> tuple[str, ...]:
    return tuple(glob for glob in asked if not any(globs.matches(name, (glob,)) for name in repositories))


def _answer(status: Literal["running", "done"], record: ProgressRecord) -> Answer:
    return Answer(
        status=status,
        run=record.run,
        cursor=record.cursor,
        counts=record.counts,
        last_failure=record.last_failure,
        unmatched=record.unmatched,
    )
