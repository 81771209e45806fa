"""Dead letters back into the copy queue, or away."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from botocore.exceptions import ClientError
from pydantic import Field

from ecr_relay.errors import RelayError
from ecr_relay.operate import mailbox
from ecr_relay.operate.deadletters import named, of_repository
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.failures import code_of
from ecr_relay.operate.mailbox import Letter, Mailbox
from ecr_relay.operate.shapes import Shape

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

NO_MOVE_TASKS: Final = frozenset(
    {
        "AWS.SimpleQueueService.UnsupportedOperation",
        "InvalidAction",
        "NotImplemented",
        "UnknownOperationException",
        "UnsupportedOperation",
    }
)
"""How a region, or a local cloud, says that it has no message move tasks."""

MOVE_POLL_S: Final = 1.0
_BATCH_BYTES: Final = 256_000
"""Of all the messages that one call sends (SQS quotas; some partitions allow more)."""


class Redriven(Shape):
    moved: int
    failed: int = Field(description="still in the dead-letter queue, since SQS refused to take them")
    how: Literal["move-task", "one-by-one"]


class Purged(Shape):
    deleted: int


Progress = Callable[[int], None]


def redrive(
    deployment: Deployment,
    *,
    ids: Sequence[str] = (),
    repository: str | None = None,
    progress: Progress = lambda _moved: None,
) -> Redriven:
    """Back into the copy queue, with fresh attempts: what was given up starts over for a message sent later.

    All of them by SQS's own move task, where there is one; else each is sent, and deleted when that has succeeded: what
    breaks in between is there twice, which costs a skip, and never lost. Raises Unusable for an id that is not there.
    """
    if not ids and repository is None:
        moved = _move_all(deployment, progress)
        if moved is not None:
            return moved
    with mailbox.opened(deployment.sqs, deployment.outputs.dead_letter_queue_url) as box:
        return _one_by_one(deployment, box, _select(box, ids, repository), progress)


def purge(deployment: Deployment, *, ids: Sequence[str] = (), repository: str | None = None) -> Purged:
    """Delete what is there now, and not what arrives meanwhile. Raises Unusable for an id that is not there."""
    with mailbox.opened(deployment.sqs, deployment.outputs.dead_letter_queue_url) as box:
        return Purged(deleted=box.delete(_select(box, ids, repository)))


def _select(box: Mailbox, ids: Sequence[str], repository: str | None) -> list[Letter]:
    box.fetch(mailbox.ALL)
    letters = named(box, ids) if ids else box.letters
    return [letter for letter in letters if of_repository(repository)(letter)]


def _move_all(deployment: Deployment, progress: Progress) -> Redriven | None:
    """None where there are no move tasks."""
    sqs, outputs = deployment.sqs, deployment.outputs
    source = deployment.queue_arn(outputs.dead_letter_queue_url)
    try:
        sqs.start_message_move_task(SourceArn=source, DestinationArn=deployment.queue_arn(outputs.queue_url))
    except ClientError as error:
        if code_of(error) in NO_MOVE_TASKS:
            return None
        raise
    while True:
        found = sqs.list_message_move_tasks(SourceArn=source, MaxResults=1)["Results"]
        if not found:  # not yet: one server may know less than another
            time.sleep(MOVE_POLL_S)
            continue
        task = found[0]
        moved = int(task.get("ApproximateNumberOfMessagesMoved", 0))
        progress(moved)
        if task["Status"] == "COMPLETED":
            return Redriven(moved=moved, failed=0, how="move-task")
        if task["Status"] in ("FAILED", "CANCELLED"):
            reason = task.get("FailureReason", "no reason given")
            raise RelayError(f"SQS's move task is {task['Status']} after {moved} messages: {reason}")
        time.sleep(MOVE_POLL_S)


def _one_by_one(deployment: Deployment, box: Mailbox, letters: Sequence[Letter], progress: Progress) -> Redriven:
    moved = 0
    for batch in _batches(letters):
        entries: list[SendMessageBatchRequestEntryTypeDef] = []
        for number, letter in enumerate(batch):
            entry: SendMessageBatchRequestEntryTypeDef = {"Id": str(number), "MessageBody": letter.body}
            if letter.group:
                entry["MessageGroupId"] = letter.group
            entries.append(entry)
        answer = deployment.sqs.send_message_batch(QueueUrl=deployment.outputs.queue_url, Entries=entries)
        sent = [batch[int(entry["Id"])] for entry in answer.get("Successful", [])]
        box.delete(sent)
        moved += len(sent)
        progress(moved)
    return Redriven(moved=moved, failed=len(letters) - moved, how="one-by-one")


def _batches(letters: Sequence[Letter]) -> Iterator[list[Letter]]:
    batch: list[Letter] = []
    size = 0
    for letter in letters:
        length = len(letter.body.encode())
        if batch and (len(batch) == mailbox.BATCH or size + length > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(letter)
        size += length
    if batch:
        yield batch
