"""The reconcile's job: list both sides, repository by repository, and enqueue what differs.

It asks the destination, not the ledger, and lists it first: what is pushed between the two listings is seen as
missing, which costs a skip; the other way round it would be missed. It is resumed by a schedule from the cursor in its
progress record, until every repository was compared; no function calls itself.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Final, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from ecr_relay import rules
from ecr_relay.config import Destination
from ecr_relay.errors import CopyError, Missing
from ecr_relay.ledger import ProgressRecord
from ecr_relay.messages import Envelope
from ecr_relay.plan import Listed, Wanted, difference
from ecr_relay.queues import CopyQueue
from ecr_relay.registries import Registry
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
    plan: list[dict[str, str | None]] | None = None


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
            repositories = self._repositories(record.only, record.cursor)
        except CopyError as error:
            progress.trouble(source, record, f"{type(error).__name__}: {error}")
            raise
        for repository in repositories:
            if not self._more_time() or self._queue.waiting() > QUEUE_LIMIT:
                return _answer("running", record)
            counts = self._reconcile(repository)
            _log.info("reconciled", extra={"run": record.run, "repository": repository, **counts})
            moved = progress.advance(source, record, repository, counts)
            if moved is None:
                return _answer("running", record)
            record = moved
        ended = progress.finish(source, record)
        return _answer("done", ended or record)

    def _reconcile(self, repository: str) -> dict[str, int]:
        counts = {"repositories": 1, "images": 0, "enqueued": 0, "failures": 0}
        for destination in self._relay.config.destinations:
            as_of = self._relay.ledger.clock()
            try:
                wanted = list(self._difference(destination, repository, counts))
            except CopyError as error:
                counts["failures"] += 1
                _log.warning(
                    "not reconciled",
                    extra={"repository": repository, "destination": destination.name, "error": str(error)},
                )
                continue
            counts["enqueued"] += self._queue.send(self._envelope(entry, as_of) for entry in wanted)
        return counts

    def _difference(self, destination: Destination, repository: str, counts: dict[str, int]) -> Iterator[Wanted]:
        there: list[Listed] = []
        with suppress(Missing):  # it will be created by the copier, with the first image
            there = _pairs(self._relay.destination(destination), destination.repository(repository))
        try:
            listed = _pairs(self._relay.source, repository)
        except Missing:
            return  # deleted since the repositories were listed
        counts["images"] += len(listed)
        yield from difference(self._relay.config, destination, repository, listed, there)

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

    def _repositories(self, only: tuple[str, ...], after: str) -> list[str]:
        """Sorted, so that the cursor is a name."""
        return sorted(
            name
            for name in self._relay.source.repositories()
            if name > after
            and rules.concerns(self._relay.config, name)
            and (not only or any(fnmatchcase(name, glob) for glob in only))
        )

    def _dry_run(self, request: Request) -> Answer:
        counts = {"repositories": 0, "images": 0, "enqueued": 0, "failures": 0}
        plan: list[dict[str, str | None]] = []
        cursor = request.after
        for repository in self._repositories(request.repositories, request.after):
            if not self._more_time() or len(plan) >= PLAN_LIMIT:
                return Answer(status="running", cursor=cursor, counts=counts, plan=plan)
            for destination in self._relay.config.destinations:
                try:
                    difference = list(self._difference(destination, repository, counts))
                except CopyError as error:
                    counts["failures"] += 1
                    _log.warning("not compared", extra={"repository": repository, "error": str(error)})
                    continue
                for wanted in difference:
                    counts["enqueued"] += 1
                    plan.append(
                        {
                            "destination": wanted.destination,
                            "repository": wanted.repository,
                            "tag": wanted.tag,
                            "digest": wanted.digest,
                            "there": wanted.there,
                        }
                    )
            counts["repositories"] += 1
            cursor = repository
        return Answer(status="done", cursor=cursor, counts=counts, plan=plan)


def _pairs(registry: Registry, repository: str) -> list[Listed]:
    return [(each.tag, each.digest) for each in registry.images(repository)]


def _answer(status: Literal["running", "done"], record: ProgressRecord) -> Answer:
    return Answer(status=status, run=record.run, cursor=record.cursor, counts=record.counts)
