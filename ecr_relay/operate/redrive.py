"""Dead letters back into the copy queue, or away."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from botocore.exceptions import ClientError
from pydantic import Field

from ecr_relay.errors import RelayError
from ecr_relay.operate import mailbox
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.failures import code_of
from ecr_relay.operate.letters import Chosen, choose
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
    along: int = Field(description="of all these, those not named by id, but of the same image as one that was")
    how: Literal["move-task", "one-by-one"]


class Purged(Shape):
    deleted: int
    along: int = Field(description="of these, those not named by id, but of the same image as one that was")


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
    breaks in between is there twice, which costs a skip, and never lost. With an id go the other letters of the same
    image and destination, which join or skip at once. `repository` may be a glob. Raises Unusable for an id that is not
    there, RelayError where `repository` selects nothing.
    """
    if not ids and repository is None:
        moved = _move_all(deployment, progress)
        if moved is not None:
            return moved
    with _looked_at(deployment) as box:
        return _one_by_one(deployment, box, choose(deployment, box.letters, ids, repository), progress)


def purge(
    deployment: Deployment,
    *,
    ids: Sequence[str] = (),
    repository: str | None = None,
    agree: Callable[[Chosen], None] | None = None,
) -> Purged:
    """Delete what `redrive` would take, all without `ids` and `repository`; what arrives meanwhile stays.

    `agree` may ask somebody, who may take hours, and raise. Raises as `redrive` does.
    """
    with _looked_at(deployment) as box:
        chosen = choose(deployment, box.letters, ids, repository)
        if agree is None or not chosen.letters:
            return Purged(deleted=box.delete(chosen.letters), along=chosen.along)
    agree(chosen)
    agreed = {letter.id for letter in chosen.letters}
    with _looked_at(deployment) as box:  # anew, as nothing can be held for as long as somebody thinks
        deleted = box.delete([letter for letter in box.letters if letter.id in agreed])
        return Purged(deleted=deleted, along=chosen.along)


@contextmanager
def _looked_at(deployment: Deployment) -> Iterator[Mailbox]:
    with mailbox.opened(deployment.sqs, deployment.outputs.dead_letter_queue_url) as box:
        box.fetch(mailbox.ALL)
        yield box


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
            return Redriven(moved=moved, failed=0, along=0, how="move-task")
        if task["Status"] in ("FAILED", "CANCELLED"):
            reason = task.get("FailureReason", "no reason given")
            raise RelayError(f"SQS's move task is {task['Status']} after {moved} messages: {reason}")
        time.sleep(MOVE_POLL_S)


def _one_by_one(deployment: Deployment, box: Mailbox, chosen: Chosen, progress: Progress) -> Redriven:
    moved = 0
    for batch in _batches(chosen.letters):
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
    return Redriven(moved=moved, failed=len(chosen.letters) - moved, along=chosen.along, how="one-by-one")


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
