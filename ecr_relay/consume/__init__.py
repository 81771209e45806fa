"""The consumer's job: a batch of messages -> decisions -> one task a destination -> each message's outcome.

What is returned is what SQS is to keep: a failed message comes back after its backoff, and after three receives SQS
moves it to the dead-letter queue. Whatever must wait is sent again with a delay, so that waiting uses up nothing.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay.consume.decide import Again, Copy, Decider, Decision, Delivery, Done, Fail, Wait
from ecr_relay.consume.launch import Launched, launch
from ecr_relay.consume.reap import Reaper
from ecr_relay.consume.supervise import supervise
from ecr_relay.errors import CopyError, Malformed, Transient
from ecr_relay.ledger import Ledger
from ecr_relay.messages import Envelope, PushEvent, parse
from ecr_relay.queues import CopyQueue, backoff_seconds
from ecr_relay.relay import Relay
from ecr_relay.tasks import Tasks

__all__ = ["Delivery", "consume"]

PATIENCE_MS: Final = 3_600_000
"""How old a message may be, whose registries do not answer, before that counts: an outage of an hour loses nothing."""

ALONE: Final = 3
"""From so many interruptions on an image is copied in a task of its own, so that it takes no other along."""

_log = logging.getLogger(__name__)


def consume(
    deliveries: Sequence[Delivery],
    relay: Relay,
    queue: CopyQueue,
    tasks: Tasks,
    supervise_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> list[str]:
    """The ids of the messages that failed. One message's trouble is never another's.

    `seconds_left` until nothing more may be begun: what is not decided by then is sent again.
    """
    reaper = Reaper(relay.ledger, tasks)
    decider = Decider(relay, queue, reaper)
    failed: list[str] = []
    copies: list[Copy] = []
    for delivery in deliveries:
        decision = (
            _decide(decider, delivery, relay.ledger.clock())
            if seconds_left() > 0
            else Again("no time was left to decide")
        )
        if isinstance(decision, Copy):
            copies.append(decision)
        elif not _settle(relay.ledger, queue, delivery, decision):
            failed.append(delivery.message_id)
    seconds = min(supervise_seconds, seconds_left())
    outcomes = _copy(relay.ledger, tasks, reaper, copies, seconds, sleep)
    failed += [
        copy.delivery.message_id
        for copy, outcome in outcomes
        if not _settle(relay.ledger, queue, copy.delivery, outcome, copy.envelope)
    ]
    return failed


def _decide(decider: Decider, delivery: Delivery, now: int) -> Decision:
    try:
        return decider.decide(delivery)
    except Transient as error:
        # A registry that does not answer for a while is no attempt at a copy; but not for ever.
        reason = f"{type(error).__name__}: {error}"
        young = now - _first_seen(delivery) < PATIENCE_MS
        return Again(reason) if young else Fail(reason, attempt=delivery.receives)
    except CopyError as error:
        return _trouble(delivery, error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not fail the other nine
        _log.exception("deciding failed", extra={"message_id": delivery.message_id})
        return _trouble(delivery, error)


def _copy(
    ledger: Ledger,
    tasks: Tasks,
    reaper: Reaper,
    copies: Sequence[Copy],
    seconds: float,
    sleep: Callable[[float], None],
) -> Iterable[tuple[Copy, Decision]]:
    groups: dict[tuple[str, ...], list[Copy]] = {}
    for copy in sorted(copies, key=lambda copy: copy.envelope.lane != "push"):
        groups.setdefault(_companions(copy), []).append(copy)
    launched: list[Launched] = []
    for group in groups.values():
        try:
            result = launch(ledger, tasks, reaper, group)
        except Exception as error:  # noqa: BLE001 - the other groups go on; the reaper ends what was begun here
            _log.exception("launching failed", extra={"destination": group[0].destination.name})
            yield from ((copy, _trouble(copy.delivery, error)) for copy in group)
            continue
        if isinstance(result, Launched):
            for copy in result.copies:
                run = {"run": result.run.id, "task": result.task}
                _log.info("launched", extra=_facts(copy.delivery, copy.envelope) | run)
            launched.append(result)
            yield from ((copy, Wait(copy.envelope, reason)) for copy, reason in result.waiting)
        elif result.failed:
            yield from ((copy, _outcome_of(ledger, copy)) for copy in result.copies)
        else:
            yield from ((copy, Wait(copy.envelope, result.reason)) for copy in result.copies)
    copies = [copy for entry in launched for copy in entry.copies]
    try:
        supervise(ledger, tasks, reaper, launched, seconds, sleep)
    except Exception:  # noqa: BLE001 - the tasks go on; their messages look again later
        _log.exception("supervising failed")
    yield from ((copy, _outcome_of(ledger, copy)) for copy in copies)


def _companions(copy: Copy) -> tuple[str, ...]:
    """Equal for copies that may share a task. An image that may be what kills its task has one of its own."""
    together = (copy.destination.name, copy.envelope.lane)
    return together if copy.record.interruptions < ALONE else (*together, copy.envelope.repository, copy.record.digest)


def _outcome_of(ledger: Ledger, copy: Copy) -> Decision:
    try:
        return _outcome(ledger, copy)
    except Exception as error:  # noqa: BLE001 - what became of it is in the ledger, for the next look
        _log.exception("the outcome could not be read", extra={"message_id": copy.delivery.message_id})
        return Wait(copy.envelope, f"{type(error).__name__}: {error}")


def _trouble(delivery: Delivery, error: Exception) -> Again | Fail:
    """AWS does not answer as it should: that is waiting, however long. Anything else may be the message's doing."""
    reason = f"{type(error).__name__}: {error}"
    return Again(reason) if isinstance(error, ClientError | BotoCoreError) else Fail(reason, attempt=delivery.receives)


def _outcome(ledger: Ledger, copy: Copy) -> Decision:
    """What the ledger says became of a copy that was launched, or was refused for good."""
    target, envelope = copy.record.target, copy.envelope
    tag = ledger.tags.get(target, envelope.tag) if envelope.tag is not None else None
    if tag is not None and tag.failed_at is not None and tag.failed_at >= copy.seen_at:
        return Fail(f"TagTaken: {tag.error}")
    record = ledger.digests.get(target, envelope.digest)
    reason = f"{record.error_class}: {record.error}"
    match record.status:
        case "failed":
            return Fail(reason, attempt=record.attempts)
        case "exhausted":
            return Fail(reason)
        case "waiting":
            return Wait(envelope, reason)
        case "copying":
            return Wait(envelope, f"run {record.run} is still copying it")
        case "absent":
            return Wait(envelope, "the destination lost it again")
        case "copied" if tag is None:
            return Done("copied", envelope.digest)
        case "copied" if tag.settled_since(copy.seen_at):
            return Done("copied", f"{envelope.tag} has {tag.digest}")
    return Wait(envelope, "copied; its tag is not put yet")


def _settle(
    ledger: Ledger, queue: CopyQueue, delivery: Delivery, decision: Decision, envelope: Envelope | None = None
) -> bool:
    """Tell SQS, the ledger and the log; True if the message is done with."""
    facts = _facts(delivery, decision.envelope if isinstance(decision, Wait) else envelope)
    try:
        return _tell(ledger, queue, delivery, decision, facts)
    except Exception:  # noqa: BLE001 - it comes back after its visibility timeout, which loses nothing
        _log.exception("the outcome could not be told", extra=facts)
        return False


def _facts(delivery: Delivery, envelope: Envelope | None) -> dict[str, object]:
    """What a log line says of a message: which image it is about, as far as that can be read."""
    facts: dict[str, object] = {"message_id": delivery.message_id, "receives": delivery.receives}
    if envelope is None:
        with suppress(Malformed):
            message = parse(delivery.body)
            if isinstance(message, PushEvent):
                return facts | {"repository": message.repository, "tag": message.tag, "digest": message.digest}
            envelope = message if isinstance(message, Envelope) else None
    if envelope is not None:
        facts |= envelope.model_dump(exclude={"v", "source", "deferred_at"}, exclude_none=True)
    return facts


def _first_seen(delivery: Delivery) -> int:
    """ms since the epoch: when its event happened, however often it was sent since."""
    with suppress(Malformed):
        message = parse(delivery.body)
        if isinstance(message, PushEvent | Envelope):
            return message.first_seen
    return delivery.sent_at


def _tell(ledger: Ledger, queue: CopyQueue, delivery: Delivery, decision: Decision, facts: dict[str, object]) -> bool:
    match decision:
        case Done(what, reason):
            _log.info(what, extra=facts | {"reason": reason})
            return True
        case Wait(waiting, reason):
            delay = queue.defer(waiting, ledger.clock())
            _log.info("deferred", extra=facts | {"reason": reason, "seconds": delay})
            return True
        case Again(reason):
            delay = queue.repeat(delivery.body)
            _log.warning("again", extra=facts | {"reason": reason, "seconds": delay})
            return True
        case Fail(reason, attempt):
            ledger.notes.refuse(delivery.message_id, reason)
            seconds = 0 if attempt is None else backoff_seconds(attempt)
            queue.hide(delivery.receipt_handle, seconds)
            _log.warning("failed", extra=facts | {"reason": reason, "attempt": attempt, "seconds": seconds})
    return False
