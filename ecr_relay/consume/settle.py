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
    if not isinstance(outcome, Again):
        envelope = outcome.envelope or envelope
    subject = Subject.of(delivery, relay.config, envelope)
    known = facts(delivery, subject)
    try:
        done = _tell(relay.ledger, queue, delivery, outcome, subject, known)
    except Exception:  # noqa: BLE001 - it comes back after its visibility timeout, which loses nothing
        _log.exception("the outcome could not be told", extra=known)
        return False
    told.append(Told(delivery, outcome, subject, relay.ledger.clock()))
    return done


def facts(delivery: Delivery, subject: Subject) -> dict[str, object]:
    """What a log line says of a message: which image it is about, as far as that can be read."""
    known: dict[str, object] = {"message_id": delivery.message_id, "receives": delivery.receives}
    if subject.envelope is not None:
        return known | subject.envelope.model_dump(exclude={"v", "source", "deferred_at"}, exclude_none=True)
    if subject.event is not None:
        event = subject.event
        known |= {"lane": "push", "repository": event.repository, "tag": event.tag, "digest": event.digest}
        known |= {"first_seen": event.first_seen}
    return known


def _tell(
    ledger: Ledger,
    queue: CopyQueue,
    delivery: Delivery,
    decision: Outcome,
    subject: Subject,
    known: dict[str, object],
) -> bool:
    match decision:
        case Done(what, reason, arrival):
            run = {} if arrival is None or arrival.run is None else {"run": arrival.run}
            _log.info(what, extra=known | {"reason": reason} | run)
            return True
        case Wait(waiting, reason):
            delay = queue.defer(waiting, ledger.clock())
            _log.info("deferred", extra=known | {"reason": reason, "seconds": delay})
            return True
        case Again(reason):
            body, envelope = delivery.body, subject.envelope
            whole = subject.event is not None and subject.event.tag is None  # its manifest says where it goes, too
            if envelope is not None and not whole and (subject.event is None or delivery.receives > 1):
                # As one that we let wait: what others send starts over, and this one may have failed attempts.
                body = envelope.deferred(ledger.clock()).body()
            delay = queue.repeat(body)
            _log.warning("again", extra=known | {"reason": reason, "seconds": delay})
            return True
        case Fail(reason, attempt, kind, run):
            ledger.notes.refuse(delivery.message_id, reason)
            seconds = 0 if attempt is None else backoff_seconds(attempt)
            queue.hide(delivery.receipt_handle, seconds)
            how = {"reason": reason, "class": kind, "run": run, "attempt": attempt, "seconds": seconds}
            _log.warning("failed", extra=known | how)
    return False
