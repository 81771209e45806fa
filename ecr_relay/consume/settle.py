"""Telling what became of a message: SQS, the ledger and the log."""

import logging

from ecr_relay.consume.decide import Again, Delivery, Done, Fail, Wait
from ecr_relay.consume.told import Outcome, Subject, Told
from ecr_relay.ledger import Ledger
from ecr_relay.messages import Envelope
from ecr_relay.queues import CopyQueue, backoff_seconds
from ecr_relay.relay import Relay

_log = logging.getLogger(__name__)


def settle(
    relay: Relay,
    queue: CopyQueue,
    delivery: Delivery,
    outcome: Outcome,
    told: list[Told],
    envelope: Envelope | None = None,
) -> bool:
    """True if the message is done with. What could be told is added to `told`."""
    if isinstance(outcome, Wait):
        envelope = outcome.envelope
    subject = Subject.of(delivery, relay.config, envelope)
    facts = _facts(delivery, subject)
    try:
        done = _tell(relay.ledger, queue, delivery, outcome, facts)
    except Exception:  # noqa: BLE001 - it comes back after its visibility timeout, which loses nothing
        _log.exception("the outcome could not be told", extra=facts)
        return False
    told.append(Told(delivery, outcome, subject, relay.ledger.clock()))
    return done


def _facts(delivery: Delivery, subject: Subject) -> dict[str, object]:
    """What a log line says of a message: which image it is about, as far as that can be read."""
    facts: dict[str, object] = {"message_id": delivery.message_id, "receives": delivery.receives}
    if subject.envelope is not None:
        return facts | subject.envelope.model_dump(exclude={"v", "source"}, exclude_none=True)
    if subject.event is not None:
        event = subject.event
        facts |= {"lane": "push", "repository": event.repository, "tag": event.tag, "digest": event.digest}
        facts |= {"first_seen": event.first_seen}
    return facts


def _tell(ledger: Ledger, queue: CopyQueue, delivery: Delivery, decision: Outcome, facts: dict[str, object]) -> bool:
    match decision:
        case Done(what, reason, arrival):
            run = {} if arrival is None or arrival.run is None else {"run": arrival.run}
            _log.info(what, extra=facts | {"reason": reason} | run)
            return True
        case Wait(waiting, reason):
            delay = queue.defer(waiting, ledger.clock())
            _log.info("deferred", extra=facts | {"reason": reason, "seconds": delay})
            return True
        case Again(reason):
            delay = queue.repeat(delivery.body)
            _log.warning("again", extra=facts | {"reason": reason, "seconds": delay})
            return True
        case Fail(reason, attempt, kind, run):
            ledger.notes.refuse(delivery.message_id, reason)
            seconds = 0 if attempt is None else backoff_seconds(attempt)
            queue.hide(delivery.receipt_handle, seconds)
            how = {"reason": reason, "class": kind, "run": run, "attempt": attempt, "seconds": seconds}
            _log.warning("failed", extra=facts | how)
    return False
