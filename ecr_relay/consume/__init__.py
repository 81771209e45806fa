"""The consumer's job: a batch of messages -> decisions -> one task a destination -> each message's outcome.

What is returned is what SQS is to keep: a failed message comes back after its backoff, and after three receives SQS
moves it to the dead-letter queue. Whatever must wait is sent again with a delay, so that waiting uses up nothing.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay.consume.decide import Again, Arrival, Copy, Decider, Decision, Delivery, Done, Fail, Wait
from ecr_relay.consume.launch import Launched, launch
from ecr_relay.consume.reap import Reaper
from ecr_relay.consume.settle import facts, settle
from ecr_relay.consume.supervise import supervise
from ecr_relay.consume.told import Outcome, Subject, Told
from ecr_relay.errors import CopyError, Permanent, RegistryDown, RelayError, TagTaken, Transient
from ecr_relay.ledger import DigestRecord, Ledger, now_ms
from ecr_relay.queues import CopyQueue
from ecr_relay.relay import Relay
from ecr_relay.tasks import Tasks

__all__ = ["Delivery", "Told", "consume", "repeat"]

PATIENCE_MS: Final = 3_600_000
"""How old a message may be, whose registries do not answer, before that counts: an outage of an hour loses nothing."""

ALONE: Final = 3
"""From so many interruptions on an image is copied in a task of its own, so that it takes no other along."""

LOOK_S: Final = 150
"""Time that must be left to begin with a message: a registry that hangs is given up after 140 s (registries.aws)."""
LAUNCH_S: Final = 60
"""Time that must be left to begin a launch: a RunTask that hangs is given up after 51 s (relay.BOUNDED)."""

Report = Callable[[Sequence[Told]], None]

_log = logging.getLogger(__name__)


def consume(
    deliveries: Sequence[Delivery],
    relay: Relay,
    queue: CopyQueue,
    tasks: Tasks,
    supervise_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    seconds_left: Callable[[], float] = lambda: math.inf,
    report: Report = lambda _: None,
    since: Callable[[int], Relay] | None = None,
) -> list[str]:
    """The ids of the messages that failed. One message's trouble is never another's.

    `seconds_left` until all must be told: what cannot be begun any more is sent again. `report` gets the outcomes
    twice: of what was decided at once, and of what was copied; what it raises is logged. `since` has the relay by
    rules that are no older than a time (ms): asked before a message is let go for what the rules say; None: `relay`.
    """
    reaper = Reaper(relay.ledger, tasks)
    decider = Decider(relay, queue, reaper, since or (lambda _sent_at: relay))
    failed: list[str] = []
    copies: list[Copy] = []
    told: list[Told] = []
    for delivery in deliveries:
        decision = (
            _decide(decider, delivery, relay.ledger.clock())
            if seconds_left() > LOOK_S
            else Again("no time was left to decide")
        )
        if isinstance(decision, Copy):
            copies.append(decision)
        elif not settle(decider.relay, queue, delivery, decision, told):
            failed.append(delivery.message_id)
    _report(report, told)
    outcomes = _copy(relay.ledger, tasks, reaper, copies, supervise_seconds, sleep, seconds_left)
    told = []
    failed += [
        copy.delivery.message_id
        for copy, outcome in outcomes
        if not settle(decider.relay, queue, copy.delivery, outcome, told, copy.envelope)
    ]
    _report(report, told)
    return failed


def repeat(deliveries: Sequence[Delivery], queue: CopyQueue, reason: str, report: Report) -> None:
    """No message is to blame, so none may use up a receive: all of them are sent again."""
    for delivery in deliveries:
        queue.repeat(delivery.body)
    now = now_ms()
    _report(report, [Told(delivery, Again(reason), Subject.of(delivery, None), now) for delivery in deliveries])


def _report(report: Report, told: Sequence[Told]) -> None:
    if not told:
        return
    try:
        report(told)
    except Exception:  # noqa: BLE001 - whatever it is, it fails no message
        _log.exception("the outcomes could not be reported")


def _decide(decider: Decider, delivery: Delivery, now: int) -> Decision:
    try:
        return decider.decide(delivery)
    except Transient as error:
        # A registry that does not answer for a while is no attempt at a copy; but not for ever.
        reason = f"{type(error).__name__}: {error}"
        young = now - (Subject.of(delivery, None).first_seen or delivery.sent_at) < PATIENCE_MS
        return Again(reason) if young else Fail(reason, attempt=delivery.receives, kind=type(error).__name__)
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
    supervise_seconds: float,
    sleep: Callable[[float], None],
    seconds_left: Callable[[], float],
) -> Iterable[tuple[Copy, Outcome]]:
    groups: dict[tuple[str, ...], list[Copy]] = {}
    for copy in sorted(copies, key=lambda copy: copy.envelope.lane != "push"):
        groups.setdefault(_companions(copy), []).append(copy)
    launched: list[Launched] = []
    for group in groups.values():
        if seconds_left() < LAUNCH_S:
            yield from ((copy, Wait(copy.envelope, "no time was left to launch")) for copy in group)
            continue
        try:
            result = launch(ledger, tasks, reaper, group)
        except Exception as error:  # noqa: BLE001 - the other groups go on; the reaper ends what was begun here
            _log.exception("launching failed", extra={"destination": group[0].destination.name})
            yield from ((copy, _trouble(copy.delivery, error)) for copy in group)
            continue
        if isinstance(result, Launched):
            for copy in result.copies:
                run = {"run": result.run.id, "task": result.task}
                _log.info("launched", extra=facts(copy.delivery, Subject.of(copy.delivery, None, copy.envelope)) | run)
            launched.append(result)
            yield from ((copy, Wait(copy.envelope, reason)) for copy, reason in result.waiting)
        elif result.failed:
            yield from ((copy, _outcome_of(ledger, copy)) for copy in result.copies)
        else:
            yield from ((copy, Wait(copy.envelope, result.reason)) for copy in result.copies)
    copies = [copy for entry in launched for copy in entry.copies]
    try:
        supervise(ledger, tasks, reaper, launched, min(supervise_seconds, seconds_left()), sleep)
    except Exception:  # noqa: BLE001 - the tasks go on; their messages look again later
        _log.exception("supervising failed")
    yield from ((copy, _outcome_of(ledger, copy)) for copy in copies)


def _companions(copy: Copy) -> tuple[str, ...]:
    """Equal for copies that may share a task. An image that may be what kills its task has one of its own."""
    together = (copy.destination.name, copy.envelope.lane)
    return together if copy.record.interruptions < ALONE else (*together, copy.envelope.repository, copy.record.digest)


def _outcome_of(ledger: Ledger, copy: Copy) -> Outcome:
    try:
        return _outcome(ledger, copy)
    except Exception as error:  # noqa: BLE001 - what became of it is in the ledger, for the next look
        _log.exception("the outcome could not be read", extra={"message_id": copy.delivery.message_id})
        return Wait(copy.envelope, f"{type(error).__name__}: {error}")


def _trouble(delivery: Delivery, error: Exception) -> Again | Fail:
    """AWS or a whole registry does not answer as it should: that is waiting, however long. Anything else may be the
    message's doing."""
    reason = f"{type(error).__name__}: {error}"
    queue = isinstance(error, RelayError) and not isinstance(error, CopyError)
    if queue or isinstance(error, ClientError | BotoCoreError | RegistryDown):
        return Again(reason)
    attempt = None if isinstance(error, Permanent) else delivery.receives
    return Fail(reason, attempt=attempt, kind=type(error).__name__)


def _outcome(ledger: Ledger, copy: Copy) -> Outcome:
    """What the ledger says became of a copy that was launched, or was refused for good."""
    target, envelope = copy.record.target, copy.envelope
    tag = ledger.tags.get(target, envelope.tag) if envelope.tag is not None else None
    if tag is not None and tag.failed_at is not None and tag.failed_at >= copy.seen_at:
        return Fail(f"{tag.error_class}: {tag.error}", kind=tag.error_class or TagTaken.__name__)
    record = ledger.digests.get(target, envelope.digest)
    kind = record.error_class or "Transient"
    reason = f"{kind}: {record.error}"
    match record.status:
        case "failed":
            return Fail(reason, attempt=record.attempts, kind=kind, run=record.run)
        case "exhausted":
            return Fail(reason, kind=kind, run=record.run)
        case "waiting":
            return Wait(envelope, reason, breaker=kind == "RegistryDown")
        case "copying":
            return Wait(envelope, f"run {record.run} is still copying it")
        case "absent":
            return Wait(envelope, "the destination lost it again")
        case "copied" if tag is None:
            return Done("copied", envelope.digest, _arrival(record, envelope.digest, record.verified_at))
        case "copied" if tag.settled_since(copy.seen_at):
            arrival = _arrival(record, tag.digest or envelope.digest, tag.verified_at)
            return Done("copied", f"{envelope.tag} has {tag.digest}", arrival)
    return Wait(envelope, "copied; its tag is not put yet")


def _arrival(record: DigestRecord, digest: str, at: int | None) -> Arrival:
    return Arrival(digest, at or record.changed_at, record.run)
