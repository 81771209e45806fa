"""The manual full sync: the reconcile function, asked to by hand, and followed until its copies have ended."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Literal

from botocore.exceptions import ClientError
from pydantic import BaseModel, Field, ValidationError

from ecr_relay.errors import RelayError
from ecr_relay.ledger import ProgressRecord
from ecr_relay.messages import Envelope
from ecr_relay.operate import mailbox
from ecr_relay.operate.deadletters import DeadLetter, explain
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.depths import Depth, depth
from ecr_relay.operate.failures import code_of
from ecr_relay.operate.letters import parsed
from ecr_relay.operate.pause import may_consume, paused
from ecr_relay.operate.shapes import Deadline, Shape
from ecr_relay.operate.status import Reconcile, not_compared, reconcile, unmatched
from ecr_relay.reconcile import Answer, Request
from ecr_relay.reconcile.planned import Planned

ANSWER_S: Final = 20.0
"""How long an answer is waited for without `--wait`; small registries are compared by then."""
POLL_S: Final = 2.0
QUIET_POLLS: Final = 3
"""SQS counts about; only after so many zeros in a row is the queue taken for empty."""


class Occupied(RelayError):
    """The function runs already: it does one thing at a time."""


class Plan(Shape):
    """`sync --dry-run`."""

    repositories: int = Field(description="compared")
    images: int = Field(description="tags and untagged digests of the source that rules select, for each destination")
    equal: int = Field(description="of those, what its destination has with the same digest")
    only_there: int = Field(
        description="tags and untagged digests of the same repositories that only a destination has; they stay, but "
        "for those that the plan has as `delete`. Where the source is no ECR: tags that rules do not select there"
    )
    failures: int = Field(description="repositories that could not be compared at a destination")
    last_failure: str | None = Field(description="the last of those, and why; null: none, or not known")
    absent: int = Field(description="repositories that rules name and the source does not have")
    unmatched: list[str] = Field(description="those asked for that match no repository")
    bytes: int | None = Field(
        description="of what would be copied, layers that are there already included; what has no bytes in the plan is "
        "not in it; null: nothing has, so it is not known"
    )
    hours: dict[str, float] = Field(description="for each destination, what PutImage's quota takes at the least")
    plan: list[Planned]

    @property
    def shortcomings(self) -> list[str]:
        """Why it is not the whole."""
        return [*not_compared(self.failures, self.last_failure), *map(unmatched, self.unmatched)]


class Synced(Shape):
    """`sync`."""

    status: Literal["done", "running", "queued"] = Field(
        description="running: it goes on by itself; queued: another run is on, and this one follows it"
    )
    reconcile: Reconcile | None
    waited: bool = Field(description="whether every enqueued copy has ended")
    failed: list[DeadLetter] = Field(description="of this sync's copies, when they were waited for")

    @property
    def ok(self) -> bool:
        """As far as it has ended: another's run that it follows says nothing about it."""
        ended = self.reconcile if self.status == "done" else None
        return not self.failed and not (ended and ended.shortcomings)


class Step(BaseModel):
    """What a progress bar shows while `sync --wait` waits."""

    reconcile: Reconcile | None
    queue: Depth | None = None
    running: int = 0

    @property
    def left(self) -> int:
        """About how many messages there are, those of pushes included."""
        return self.queue.waiting + self.queue.in_flight + self.queue.delayed if self.queue else 0


def plan(deployment: Deployment, repositories: Iterable[str] = ()) -> Plan:
    """What a sync would enqueue, by the function that would: page by page where it is long."""
    request = Request(repositories=tuple(repositories), dry_run=True)
    counts = dict.fromkeys(("repositories", "images", "equal", "only_there", "failures", "absent"), 0)
    entries: list[Planned] = []
    failure: str | None = None
    nowhere: tuple[str, ...] = ()
    while (answer := _invoke(deployment, request)) is not None:
        entries += answer.plan or []
        failure, nowhere = answer.last_failure or failure, answer.unmatched
        counts = {name: count + answer.counts.get(name, 0) for name, count in counts.items()}
        if answer.status != "running":
            break
        if answer.cursor <= request.after:
            raise RelayError(f"the reconcile function gets no further than {request.after or 'its beginning'!r}")
        request = request.model_copy(update={"after": answer.cursor})
    hours = {
        destination.name: sum(entry.puts for entry in entries if entry.destination == destination.name)
        / destination.put_image_per_second
        / 3600
        for destination in deployment.config.destinations
    }
    return Plan(plan=entries, bytes=size(entries), hours=hours, last_failure=failure, unmatched=list(nowhere), **counts)


def size(entries: Iterable[Planned]) -> int | None:
    """Bytes of what would be copied, as far as the source tells; None where it tells of nothing that would be."""
    sizes = [entry.bytes for entry in entries if entry.action == "copy"]
    known = [one for one in sizes if one is not None]
    return sum(known) if known or not sizes else None


def sync(
    deployment: Deployment,
    repositories: Iterable[str] = (),
    *,
    wait: bool = False,
    timeout: float | None = None,
    step: Callable[[Step], None] = lambda _step: None,
) -> Synced:
    """Start one; if one is on already, another follows it, and that is the one that counts.

    `wait`: until it is done and every copy that it enqueued has ended. Raises RelayError when the function fails, or
    when `timeout` (seconds) is over; the sync itself goes on then. Starts nothing that is to be waited for while the
    relay or a destination is paused: whose messages are left in the queue, SQS does not say.
    """
    deadline = Deadline(timeout)
    if wait:
        _refuse_paused(deployment, "nothing was started: resume, or sync without --wait")
    before = _progress(deployment)
    invocation = _Invocation(deployment, Request(repositories=tuple(repositories)))
    patience = Deadline(None if wait else ANSWER_S)
    while not invocation.ended.wait(POLL_S / 4) and not patience.over:
        deadline.check()
        step(_step(deployment))
    queued = False
    if invocation.ended.is_set():
        try:
            invocation.result()
        except Occupied:
            # Lambda keeps what it cannot run yet, and runs it when the one that is on has ended.
            _invoke(deployment, invocation.request, asynchronously=True)
            queued = True
    record = _progress(deployment)
    if wait:
        while record is None or record.status == "running" or (before is not None and record.run == before.run):
            deadline.check()
            step(_step(deployment))
            time.sleep(POLL_S)
            record = _progress(deployment)
        return _follow(deployment, record, deadline, step)
    unfinished = record is None or record.status == "running" or (before is not None and record.run == before.run)
    return Synced(
        status="queued" if queued else "running" if unfinished else "done",
        reconcile=reconcile(record) if record else None,
        waited=False,
        failed=[],
    )


def _follow(deployment: Deployment, record: ProgressRecord, deadline: Deadline, step: Callable[[Step], None]) -> Synced:
    """Until nothing is in the copy queue, nor in any task: whose messages those are, SQS does not say."""
    quiet = 0
    while record.counts["enqueued"] and quiet < QUIET_POLLS:
        now = _step(deployment, record)
        step(now)
        quiet = quiet + 1 if now.left + now.running == 0 else 0
        if not quiet:
            _refuse_paused(deployment, "the sync was started, and goes on by itself")
        deadline.check()
        time.sleep(POLL_S)
    return Synced(status="done", reconcile=reconcile(record), waited=True, failed=_dead_letters(deployment, record))


def _refuse_paused(deployment: Deployment, stands: str) -> None:
    """Raises RelayError where messages wait that nothing will end. `stands`: what has become of the sync."""
    if may_consume(deployment) is False:
        raise RelayError(f"the relay is paused, so no copy will end (`ecr-relay resume`); {stands}")
    for name in paused(deployment):
        resume = f"`ecr-relay resume --destination {name}`"
        raise RelayError(f"{name} is paused, so copies to it will not end ({resume}); {stands}")


def _dead_letters(deployment: Deployment, record: ProgressRecord) -> list[DeadLetter]:
    """Those of this run: what the reconcile enqueues says when its repository was listed."""
    if not record.counts["enqueued"]:
        return []
    with mailbox.opened(deployment.sqs, deployment.outputs.dead_letter_queue_url) as box:
        box.fetch(mailbox.ALL)
        letters = box.letters
    mine = []
    for letter in letters:
        message = parsed(letter)
        if isinstance(message, Envelope) and message.lane == "reconcile" and message.first_seen >= record.started_at:
            mine.append(letter)
    return explain(deployment, mine)


def _progress(deployment: Deployment) -> ProgressRecord | None:
    return deployment.ledger.progress.get(deployment.config.source.id)


def _step(deployment: Deployment, record: ProgressRecord | None = None) -> Step:
    record = record or _progress(deployment)
    return Step(
        reconcile=reconcile(record) if record else None,
        queue=depth(deployment, deployment.outputs.queue_url),
        running=sum(slot.phase != "ended" for slot in deployment.ledger.slots.held()),
    )


class _Invocation:
    """The function's answer, in the background: it may take a quarter of an hour, and Ctrl-C waits for nothing."""

    def __init__(self, deployment: Deployment, request: Request) -> None:
        self.request = request
        self.ended = threading.Event()
        self._deployment = deployment
        self._answer: Answer | None = None
        self._error: Exception | None = None
        threading.Thread(target=self._run, daemon=True, name="invoke").start()

    def _run(self) -> None:
        try:
            self._answer = _invoke(self._deployment, self.request)
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
        self.ended.set()

    def result(self) -> Answer | None:
        if self._error is not None:
            raise self._error
        return self._answer


def _invoke(deployment: Deployment, request: Request, *, asynchronously: bool = False) -> Answer | None:
    """None if it was only queued. Raises Occupied, or RelayError with the function's own words."""
    try:
        answer = deployment.invoker.invoke(
            FunctionName=deployment.outputs.reconcile_function,
            InvocationType="Event" if asynchronously else "RequestResponse",
            Payload=request.model_dump_json().encode(),
        )
    except ClientError as error:
        if code_of(error) == "TooManyRequestsException":
            raise Occupied("a reconcile is running already, and there is one at a time; try again later") from None
        raise
    text = answer["Payload"].read().decode()
    if asynchronously:
        return None
    if "FunctionError" in answer:
        raise RelayError(f"the reconcile function failed: {_reason(text)}")
    try:
        return Answer.model_validate_json(text)
    except ValidationError:
        raise RelayError(f"the reconcile function answered what this release does not know: {text[:200]}") from None


def _reason(text: str) -> str:
    try:
        failure = json.loads(text)
        return f"{failure.get('errorType', 'unknown')}: {failure.get('errorMessage', '')}"
    except (ValueError, AttributeError):
        return text[:500]
