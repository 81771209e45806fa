"""The dead-letter queue: what lies there, and why."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from ecr_relay.ledger import DigestRecord, Run, TagRecord
from ecr_relay.ledger.queries import Refusal
from ecr_relay.messages import Envelope, PushEvent
from ecr_relay.operate import mailbox
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.failures import Unusable
from ecr_relay.operate.letters import Subject, named, of_repositories, subject, together
from ecr_relay.operate.log import Line, of_run
from ecr_relay.operate.mailbox import Letter
from ecr_relay.operate.shapes import Shape, at, log_stream, task_id

LOOK: Final = 10_000
"""Beyond so many in the queue, which of them are listed is SQS's choice; to look at more takes longer than a glance."""


class DeadLetter(Shape):
    """One message of the dead-letter queue, and what the ledger knows of its image."""

    id: str = Field(description="SQS's message id, which is also what the ledger keeps the reason under")
    kind: Literal["push", "envelope", "malformed"] = Field(
        description="an event as EventBridge sent it, our own message for one destination, or neither"
    )
    lane: Literal["push", "reconcile"] | None
    repository: str | None
    tag: str | None
    digest: str | None
    destination: str | None
    attempts: int | None = Field(description="copies tried, by the ledger; null if it never came to one")
    receives: int = Field(description="by SQS, looking by `dlq` included")
    first_seen: datetime | None = Field(description="when the image was pushed, or found missing")
    sent_at: datetime | None = Field(description="when this message was sent first")
    failed_at: datetime | None
    error_class: str | None = Field(
        description="Malformed, or of the copy: Transient, Permanent, TagTaken, Conflict, Missing …"
    )
    error: str | None = Field(description="the registry's or skopeo's own words")
    reason: str | None = Field(description="what the consumer noted when it refused this message the last time")
    run: str | None = Field(description="the last run that tried")
    task: str | None
    log_stream: str | None


class ListedLetter(DeadLetter):
    """And those like it: an image that fails at each reconcile leaves one letter each time."""

    newest: str = Field(
        description="id of the newest letter of the same image (repository, tag, digest) and destination, which may be "
        "this one: what belongs together has the same here, and is redriven and purged together"
    )
    times: int = Field(description="how many letters of the same image and destination there are, this one included")


class DeadLetters(Shape):
    """A page of them: so many images as `--limit` says, each with all its letters."""

    total: int = Field(description="about how many there are, by SQS")
    hidden: int = Field(description="about how many somebody else is looking at; they show up within a minute")
    others: int = Field(description="with --repository: how many there are of other repositories, or of none")
    letters: list[ListedLetter] = Field(description="the oldest first")
    next: str | None = Field(description="where the next page begins (`--after`); null: there is none")


class Opened(DeadLetter):
    """`dlq show`."""

    body: str = Field(description="the message, byte for byte")
    status: str | None = Field(description="of the digest's record: copying, copied, waiting, failed, exhausted")
    log: list[Line] = Field(description="the last lines of the copy's log, oldest first")


def show_all(
    deployment: Deployment, *, repository: str | None = None, limit: int = 100, after: str | None = None
) -> DeadLetters:
    """A page at a time: so many images as `limit`, each with all its letters, and last the one with the newest.

    SQS knows no order and no pages, so each looks at all, up to LOOK of them. `repository` may be a glob. Raises
    Unusable for an `after` that no page ended with.
    """
    last = _cursor(after)
    with mailbox.opened(deployment.sqs, deployment.outputs.dead_letter_queue_url) as box:
        box.fetch(mailbox.ALL if repository is not None else max(limit, LOOK))
        found = box.letters
    letters = found if repository is None else of_repositories(found, repository)
    waiting, hidden = _counts(deployment)
    rest = [same for same in together(deployment, letters) if _position(same[-1]) > last]
    shown = {letter.id: same for same in rest[:limit] for letter in same}
    explained = explain(deployment, [letter for letter in letters if letter.id in shown])
    return DeadLetters(
        total=max(waiting + hidden, len(letters)) if repository is None else len(letters),
        hidden=0 if letters else hidden,
        others=len(found) - len(letters),
        letters=[
            ListedLetter(**letter.model_dump(), newest=shown[letter.id][-1].id, times=len(shown[letter.id]))
            for letter in explained
        ],
        next="{}.{}".format(*_position(rest[limit - 1][-1])) if len(rest) > limit else None,
    )


def _position(letter: Letter) -> tuple[int, str]:
    """As a mailbox sorts them."""
    return letter.sent_at, letter.id


def _cursor(after: str | None) -> tuple[int, str]:
    sent_at, _, message_id = (after or "0.").partition(".")
    if not sent_at.isdecimal() or (after is not None and not message_id):
        raise Unusable(f"--after: {after!r} is no cursor; take `next` of the page before")
    return int(sent_at), message_id


def show(deployment: Deployment, wanted: str, *, lines: int = 20) -> Opened:
    """By id or by the beginning of one. Raises Unusable where it names none, or several."""
    with mailbox.opened(deployment.sqs, deployment.outputs.dead_letter_queue_url) as box:
        box.fetch(mailbox.ALL, lambda letter: letter.id == wanted)
        letter = named(box.letters, [wanted])[0]
    explained = explain(deployment, [letter])[0]
    status, log = None, []
    if explained.destination and explained.repository and explained.digest:
        target = deployment.target(explained.destination, explained.repository)
        status = deployment.ledger.digests.get(target, explained.digest).status
    if explained.log_stream:
        log = of_run(deployment, explained.log_stream, explained.digest, lines)
    return Opened(**explained.model_dump(), body=letter.body, status=status, log=log)


def _counts(deployment: Deployment) -> tuple[int, int]:
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = deployment.sqs.get_queue_attributes(
        QueueUrl=deployment.outputs.dead_letter_queue_url, AttributeNames=names
    )["Attributes"]
    return int(answer[names[0]]), int(answer[names[1]])


def explain(deployment: Deployment, letters: Sequence[Letter]) -> list[DeadLetter]:
    """Each with what the ledger knows of it, in a handful of reads for all of them."""
    images = [subject(deployment, letter) for letter in letters]
    queries = deployment.queries
    refusals = queries.refusals(image.letter.id for image in images)
    known = [(image.target, image.message) for image in images if image.target and image.message]
    digests = queries.digests((target, message.digest) for target, message in known)
    tags = queries.tag_records((target, message.tag) for target, message in known if message.tag is not None)
    runs = queries.runs(record.run for record in digests.values() if record.run is not None)
    explained = []
    for image in images:
        record, tag = None, None
        if image.target and image.message:
            record = digests.get((image.target, image.message.digest))
            tag = tags.get((image.target, image.message.tag or ""))
        run = runs.get(record.run or "") if record else None
        explained.append(_dead_letter(image, refusals.get(image.letter.id), record, tag, run))
    return explained


def _dead_letter(
    image: Subject, refusal: Refusal | None, record: DigestRecord | None, tag: TagRecord | None, run: Run | None
) -> DeadLetter:
    letter, message = image.letter, image.message
    failed_at, error_class, error = _error(message, refusal, record, tag)
    kind: Literal["push", "envelope", "malformed"] = "malformed"
    lane: Literal["push", "reconcile"] | None = None
    if message is not None:
        kind, lane = ("envelope", message.lane) if isinstance(message, Envelope) else ("push", "push")
    return DeadLetter(
        id=letter.id,
        kind=kind,
        lane=lane,
        repository=message.repository if message else None,
        tag=message.tag if message else None,
        digest=message.digest if message else None,
        destination=image.target.destination if image.target else None,
        attempts=record.attempts or None if record else None,
        receives=letter.receives,
        first_seen=at(message.first_seen if message else None),
        sent_at=at(letter.sent_at),
        failed_at=at(failed_at),
        error_class=error_class,
        error=error,
        reason=refusal.reason if refusal else None,
        run=record.run if record else None,
        task=task_id(run),
        log_stream=log_stream(run),
    )


def _error(
    message: PushEvent | Envelope | None, refusal: Refusal | None, record: DigestRecord | None, tag: TagRecord | None
) -> tuple[int | None, str | None, str | None]:
    """When, which class, which words: the tag's record goes before the digest's, and both before the bare note."""
    noted = refusal.at if refusal else None
    if message is None:
        return noted, "Malformed", refusal.reason.removeprefix("malformed: ") if refusal else None
    if tag is not None and tag.failed_at is not None:
        return tag.failed_at, tag.error_class, tag.error
    if record is not None and record.error is not None:
        return record.failed_at or record.changed_at, record.error_class, record.error
    if refusal is None:
        return None, None, None
    kind, colon, words = refusal.reason.partition(": ")
    return (noted, kind, words) if colon and kind.isidentifier() else (noted, None, refusal.reason)
