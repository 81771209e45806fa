"""How it goes: what waits, what runs, what failed, and what the last reconcile found."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Final, Literal

from pydantic import Field

from ecr_relay import globs
from ecr_relay.ledger import DigestRecord, ProgressRecord, Run, Slot, TagRecord, Target
from ecr_relay.ledger import Lag as LagOfHour
from ecr_relay.ledger.slots import SLOTS
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.depths import Depth, depth, oldest_push_seconds, oldest_seconds
from ecr_relay.operate.pause import may_consume, paused
from ecr_relay.operate.shapes import Shape, at, task_id

FAILURES_MS: Final = 86_400_000
"""Failures of the last day are shown."""
COUNTED: Final = 1000
"""Up to which failures are counted; more of them would tell nobody more."""
LATEST: Final = 10

State = Literal["copying", "waiting", "failed", "exhausted"]


class RunningImage(Shape):
    repository: str
    digest: str
    tags: list[str]


class Running(Shape):
    """A copy task, or a slot that waits to be given back after one."""

    slot: int
    run: str
    task: str | None
    destination: str
    lane: str
    phase: Literal["launching", "active", "ended"]
    started_at: datetime | None
    age_seconds: int
    lease_seconds: int = Field(description="what its lease has left; below zero: overdue, and to be looked into")
    bytes: int = Field(description="written by its copies so far, as the task said within the last 20 seconds")
    images: list[RunningImage]


class Reconcile(Shape):
    """The last reconcile, or the one that is on."""

    run: str
    status: Literal["running", "done"]
    started_at: datetime | None
    finished_at: datetime | None
    repositories_asked_for: list[str] = Field(description="globs; empty: all")
    cursor: str = Field(description="the last repository that was compared")
    again: bool = Field(description="another full one follows, since it was asked for meanwhile")
    repositories: int
    images: int
    enqueued: int
    failures: int = Field(description="repositories that could not be compared at a destination")
    last_failure: str | None = Field(description="the last of those, and why; null: none, or not known")
    observed: int = Field(description="wanted by a rule that only observes")
    evicted: int = Field(description="vanished again after they were healed, and left alone")
    archived: int = Field(description="archived at the destination, so that they cannot be pulled, and left alone")
    conflicts: int = Field(description="tags that somebody else has moved there, and on_conflict leaves alone")
    deleted: int = Field(description="removed, because the source has lost them")
    held: int = Field(description="not removed, because max_deletes is too low")
    differing: int = Field(description="settings of repositories that are not what new_repository asks for")
    absent: int = Field(description="repositories that rules name and the source does not have")
    unmatched: list[str] = Field(description="those asked for that match no repository; known when it is done")
    error: str | None = Field(description="why it does not go on; null: it does")

    @property
    def shortcomings(self) -> list[str]:
        """Why it is not the whole."""
        stands = [f"it does not go on: {self.error}"] if self.error else []
        return [*not_compared(self.failures, self.last_failure), *map(unmatched, self.unmatched), *stands]

    @property
    def findings(self) -> list[str]:
        """What it found beside copies, each with what to do about it; of nothing, no word."""
        found = (
            (self.observed, 'observed: a rule with mode = "observe" wants them; `ecr-relay sync --dry-run`'),
            (self.evicted, "evicted: something there removes them again; push, or `ecr-relay copy IMAGE --force`"),
            (self.archived, "archived there: restore them, or `ecr-relay copy IMAGE --force`"),
            (self.conflicts, "conflicts: somebody else has moved these tags; `ecr-relay sync --dry-run`"),
            (self.deleted, "deleted, as the source has lost them"),
            (self.held, "deletes held: look at `ecr-relay sync --dry-run`, then raise max_deletes"),
            (self.absent, "absent: rules name repositories that the source lacks; `ecr-relay doctor` says which"),
            (self.differing, "repository settings not as asked: the reconcile function's log names them"),
        )
        return [f"{count} {what}" for count, what in found if count]


class Failure(Shape):
    """An image that did not arrive at the last attempt, or a tag that its destination refuses."""

    destination: str
    repository: str
    tag: str | None = Field(description="that was refused; null: it is the image that failed, whatever its tags")
    digest: str | None = Field(description="null where it is a tag")
    status: State
    attempts: int
    changed_at: datetime | None
    error_class: str | None
    error: str | None


class Failures(Shape):
    """Of the last day. Each number stops at 1000."""

    exhausted: int = Field(description="given up, refused tags too; the message is a dead letter, unless it was purged")
    failed: int = Field(description="to be tried again")
    waiting: int = Field(description="given back without an attempt: stopped, or the destination was down")
    latest: list[Failure]


class Breaker(Shape):
    """A destination that refuses as a whole; its messages wait and use up no attempt."""

    destination: str
    until: datetime | None
    reason: str


class Paused(Shape):
    """A destination that `pause --destination` holds."""

    destination: str
    since: datetime | None


class Lag(Shape):
    """From push to arrival, of what arrived within the last hour. Seconds are at most a fifth too high."""

    arrivals: int
    p50_seconds: float
    p99_seconds: float


class Status(Shape):
    stack: str
    region: str
    at: datetime
    consuming: bool | None = Field(description="false: paused; null: we may not ask")
    queue: Depth
    oldest_message_seconds: int | None = Field(
        description="age of the oldest message, from when it was sent last, a minute or two ago; null: CloudWatch does "
        "not say"
    )
    oldest_image_seconds: int | None = Field(
        description="age of the oldest image that is copying, waiting or to be tried again, from its push; null: none"
    )
    oldest_push_seconds: int | None = Field(
        description="age, from its push, of the oldest that the consumer found waiting, for a slot too, within the "
        "last five minutes; null: none, or CloudWatch does not say"
    )
    lag: Lag | None = Field(description="null: nothing that was pushed arrived within the last hour")
    dead_letters: int
    event_dead_letters: int = Field(description="events that EventBridge could not put into the copy queue")
    slots: int = Field(description="copy tasks that may run at once")
    running: list[Running]
    reconcile: Reconcile | None
    failures: Failures
    breakers: list[Breaker]
    paused: list[Paused]


def status(deployment: Deployment, repository: str | None = None) -> Status:
    """`repository`, which may be a glob, narrows down what runs and what failed."""
    outputs, ledger = deployment.outputs, deployment.ledger
    with ThreadPoolExecutor(8) as pool:  # a dozen small reads: side by side, they take as long as the slowest
        queues = [
            pool.submit(depth, deployment, url)
            for url in (outputs.queue_url, outputs.dead_letter_queue_url, outputs.event_dead_letter_queue_url)
        ]
        running = pool.submit(_running, deployment, repository)
        oldest = pool.submit(oldest_seconds, deployment, outputs.queue_url)
        oldest_push = pool.submit(oldest_push_seconds, deployment)
        lag = pool.submit(ledger.lags.last_hour)
        copying = pool.submit(_failed, deployment, "copying", repository)
        states: tuple[State, ...] = ("exhausted", "failed", "waiting")
        failed = [pool.submit(_failed, deployment, state, repository) for state in states]
        refused = pool.submit(_refused, deployment, repository)
        consuming = pool.submit(may_consume, deployment)
        source = deployment.config.source.id
        progress = pool.submit(ledger.progress.get, source)
        held = pool.submit(paused, deployment)
        breakers = [pool.submit(ledger.notes.breaker, name) for name in deployment.destinations(None)]
    records = [future.result() for future in failed]
    latest = sorted(
        [*((one.changed_at, failure(one)) for found in records for one in found), *refused.result()],
        key=lambda one: -one[0],
    )
    record = progress.result()
    dead, undelivered = (queues[index].result() for index in (1, 2))
    return Status(
        stack=deployment.stack,
        region=deployment.sqs.meta.region_name,
        at=datetime.now(UTC),
        consuming=consuming.result(),
        queue=queues[0].result(),
        oldest_message_seconds=oldest.result(),
        oldest_image_seconds=_oldest_image([*copying.result(), *records[1], *records[2]], ledger.clock()),
        oldest_push_seconds=oldest_push.result(),
        lag=_lag(lag.result()),
        dead_letters=dead.waiting + dead.in_flight,
        event_dead_letters=undelivered.waiting + undelivered.in_flight,
        slots=SLOTS,
        running=running.result(),
        reconcile=None if record is None else reconcile(record),
        failures=Failures(
            exhausted=min(COUNTED, len(records[0]) + len(refused.result())),
            failed=len(records[1]),
            waiting=len(records[2]),
            latest=[entry for _, entry in latest[:LATEST]],
        ),
        breakers=[
            Breaker(destination=breaker.destination, until=at(breaker.until), reason=breaker.reason)
            for breaker in (future.result() for future in breakers)
            if breaker is not None
        ],
        paused=[Paused(destination=name, since=at(since)) for name, since in held.result().items()],
    )


def _oldest_image(records: Sequence[DigestRecord], now: int) -> int | None:
    first = min((record.first_seen for record in records if record.first_seen is not None), default=None)
    return None if first is None else max(0, (now - first) // 1000)


def _lag(lag: LagOfHour | None) -> Lag | None:
    return None if lag is None else Lag(arrivals=lag.count, p50_seconds=lag.p50, p99_seconds=lag.p99)


def reconcile(record: ProgressRecord) -> Reconcile:
    return Reconcile(
        run=record.run,
        status=record.status,
        started_at=at(record.started_at),
        finished_at=at(record.finished_at),
        repositories_asked_for=list(record.only),
        cursor=record.cursor,
        again=record.again,
        **record.counts,
        last_failure=record.last_failure,
        unmatched=list(record.unmatched),
        error=record.error,
    )


def unmatched(repository: str) -> str:
    """A sentence about a glob that was asked for and that matches nothing."""
    return f"{repository!r} matches no repository that a rule may select"


def not_compared(failures: int, last: str | None) -> list[str]:
    """A sentence about comparisons that failed, with the reason of the last; none if none did."""
    if not failures:
        return []
    failed = f"{failures} comparison{'' if failures == 1 else 's'} failed"
    return [f"{failed}: {last}" if last and failures == 1 else f"{failed}, the last of {last}" if last else failed]


def failure(record: DigestRecord) -> Failure:
    """Of a record that is waiting, failed or exhausted."""
    return Failure.model_validate(
        {
            "destination": record.target.destination,
            "repository": record.target.repository,
            "tag": None,
            "digest": record.digest,
            "status": record.status,
            "attempts": record.attempts,
            "changed_at": at(record.changed_at),
            "error_class": record.error_class,
            "error": record.error,
        }
    )


def _running(deployment: Deployment, repository: str | None) -> list[Running]:
    slots = deployment.ledger.slots.held()
    runs = deployment.queries.runs(slot.run for slot in slots)
    now = deployment.ledger.clock()
    running = [_run(slot, runs.get(slot.run), now) for slot in slots]
    if repository is None:
        return running
    return [entry for entry in running if any(_is_of(repository, image.repository) for image in entry.images)]


def _run(slot: Slot, run: Run | None, now: int) -> Running:
    return Running(
        slot=slot.number,
        run=slot.run,
        task=task_id(run),
        destination=slot.destination,
        lane=slot.lane,
        phase=slot.phase,
        started_at=at(slot.taken_at),
        age_seconds=max(0, (now - slot.taken_at) // 1000),
        lease_seconds=(slot.until - now) // 1000,
        bytes=slot.moved,
        images=[
            RunningImage(repository=job.repository, digest=job.digest, tags=[tag.name for tag in job.tags])
            for job in (run.jobs if run else ())
        ],
    )


def _failed(deployment: Deployment, state: State, repository: str | None) -> Sequence[DigestRecord]:
    since = deployment.ledger.clock() - FAILURES_MS
    entries = deployment.queries.in_state(state)
    records = takewhile(lambda record: record.changed_at >= since, (entry[0] for entry in entries))
    return list(islice((record for record in records if _is_of(repository, record.target.repository)), COUNTED))


def _refused(deployment: Deployment, repository: str | None) -> list[tuple[int, Failure]]:
    """Tags that were refused for good since a day ago, each with when (ms), the latest first."""
    since = deployment.ledger.clock() - FAILURES_MS
    recent = takewhile(lambda found: (found[2].failed_at or 0) >= since, deployment.queries.refused_tags())
    wanted = (found for found in recent if _is_of(repository, found[0].repository))
    return [(record.failed_at or 0, _refusal(target, tag, record)) for target, tag, record in islice(wanted, COUNTED)]


def _refusal(target: Target, tag: str, record: TagRecord) -> Failure:
    return Failure(
        destination=target.destination,
        repository=target.repository,
        tag=tag,
        digest=None,
        status="exhausted",
        attempts=0,
        changed_at=at(record.failed_at),
        error_class=record.error_class,
        error=record.error,
    )


def _is_of(repository: str | None, name: str) -> bool:
    """Whether the glob `repository` matches `name`; None is all."""
    return repository is None or globs.matches(name, [repository])
