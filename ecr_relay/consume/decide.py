"""What is to be done about one message: the table "Deciding a message" of the design, row by row."""

from dataclasses import dataclass
from typing import Final

from ecr_relay import rules
from ecr_relay.config import Destination
from ecr_relay.consume.reap import Reaper
from ecr_relay.converge import Applied, Busy, Gone, converge
from ecr_relay.errors import Malformed, RegistryDown, Transient
from ecr_relay.ledger import DigestRecord, Target
from ecr_relay.messages import Envelope, Ignored, PushEvent, parse
from ecr_relay.queues import CopyQueue
from ecr_relay.relay import Relay


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message of a batch. `sent_at` is SQS's SentTimestamp, in ms."""

    message_id: str
    receipt_handle: str
    body: str
    sent_at: int
    receives: int = 1


@dataclass(frozen=True, slots=True)
class Arrival:
    """The destination has the image since `at` (ms), which is after the message's event; a retag has no `run`."""

    digest: str
    at: int
    run: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing remains to be done. `what`: skipped, dropped, split, or, with an arrival, retagged, joined or copied."""

    what: str
    reason: str
    arrival: Arrival | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """It must wait for something; a new message takes its place. `breaker`: for its destination as a whole."""

    envelope: Envelope
    reason: str
    breaker: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """The relay's own trouble, not the image's: the same message is sent once more, so that no receive counts."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """A batch item failure. `attempt` is how many were made, for the backoff; None: no further one is worth while.

    `kind` is the error's class, `run` the copy task's that met it.
    """

    reason: str
    attempt: int | None = None
    kind: str = "Transient"
    run: str | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """To be copied: the envelope, its digest being the source's now; the record as it was seen."""

    delivery: Delivery
    envelope: Envelope
    destination: Destination
    max_tasks: int
    record: DigestRecord
    seen_at: int


_NO_OUTCOME: Final = Transient("its copy task ended and left no outcome")

Decision = Done | Wait | Again | Fail | Copy


class Decider:
    """Decides message by message. `reaper` knows which runs are alive."""

    def __init__(self, relay: Relay, queue: CopyQueue, reaper: Reaper) -> None:
        self._relay = relay
        self._ledger = relay.ledger
        self._queue = queue
        self._reaper = reaper

    def decide(self, delivery: Delivery) -> Decision:
        """Raises CopyError if a registry does not answer as it should."""
        try:
            message = parse(delivery.body)
        except Malformed as error:
            self._ledger.notes.refuse(delivery.message_id, str(error))
            return Fail(f"malformed: {error}", kind="Malformed")
        if isinstance(message, Ignored):
            return Done("dropped", message.reason)
        if isinstance(message, PushEvent):
            return self._decide_event(delivery, message)
        return self._decide_envelope(delivery, message)

    def _decide_event(self, delivery: Delivery, event: PushEvent) -> Decision:
        config = self._relay.config
        if event.source != config.source.id:
            return Done("dropped", f"of another registry: {event.source}")
        wanted = rules.destinations(config, event.repository, event.tag)
        if not wanted:
            return Done("dropped", "no rule selects it" if event.tag else "no tag, and no rule wants untagged images")
        envelopes = [event.envelope(destination.name) for destination in wanted]
        if len(envelopes) > 1:
            # Each destination has attempts of its own, so each gets a message of its own.
            self._queue.send(envelopes)
            return Done("split", ", ".join(envelope.destination for envelope in envelopes))
        return self._decide_selected(delivery, envelopes[0], wanted[0], seen_before=delivery.receives > 1)

    def _decide_envelope(self, delivery: Delivery, envelope: Envelope) -> Decision:
        if envelope.source != self._relay.config.source.id:
            return Done("dropped", f"of another registry: {envelope.source}")
        for destination in rules.destinations(self._relay.config, envelope.repository, envelope.tag):
            if destination.name == envelope.destination:
                return self._decide_selected(delivery, envelope, destination, seen_before=True)
        return Done("dropped", "no rule selects it any more")

    def _decide_selected(
        self, delivery: Delivery, envelope: Envelope, destination: Destination, *, seen_before: bool
    ) -> Decision:
        target = self._relay.target(destination, envelope.repository)
        if envelope.tag is not None:
            tag = self._ledger.tags.get(target, envelope.tag)
            if tag.says(envelope.digest, envelope.as_of):
                return self._had(target, envelope, envelope.digest, seen_before, tag.verified_at)
            if tag.given_up(delivery.sent_at):
                return Fail(tag.error or "the destination refuses this tag", kind="TagTaken")
        record = self._ledger.digests.get(target, envelope.digest)
        if envelope.tag is None and record.believed(envelope.as_of):
            return self._had(target, envelope, envelope.digest, seen_before)
        if record.status == "copying" and self._reaper.alive(record.run):
            return Wait(envelope, f"run {record.run} is copying it")
        if record.given_up(delivery.sent_at):
            return _given_up(record)  # and is not deferred, whatever else keeps it waiting
        breaker = self._ledger.notes.breaker(destination.name)
        if breaker is not None:
            return Wait(envelope, f"destination {destination.name} is out of order: {breaker.reason}", breaker=True)
        if envelope.tag is None:
            return self._copy(delivery, envelope, destination, record, self._ledger.clock())
        place = self._relay.place(destination, envelope.repository)
        try:
            outcome = converge(self._ledger, place, envelope.tag, as_of=envelope.as_of)
        except RegistryDown as error:
            self._ledger.notes.open_breaker(destination.name, str(error))
            return Wait(envelope, f"{type(error).__name__}: {error}", breaker=True)
        match outcome:
            case Applied():
                reason = f"{envelope.tag} has {outcome.digest}"
                if outcome.moved:
                    return Done("retagged", reason, Arrival(outcome.digest, self._ledger.clock()))
                return self._had(target, envelope, outcome.digest, seen_before, reason=reason)
            case Busy():
                return Wait(envelope, "another is at this tag")
            case Gone():
                return Done("dropped", "the source no longer has this tag")
        if outcome.digest != envelope.digest:
            envelope = envelope.model_copy(update={"digest": outcome.digest})
        record = self._ledger.digests.get(target, outcome.digest)
        return self._copy(delivery, envelope, destination, record, outcome.seen_at)

    def _had(
        self,
        target: Target,
        envelope: Envelope,
        digest: str,
        seen_before: bool,
        at: int | None = None,
        reason: str = "the ledger has it",
    ) -> Done:
        """It is there. A message that was looked at before, and whose image came after its event, has waited for it."""
        if seen_before:
            record = self._ledger.digests.get(target, digest)
            at = at or record.verified_at or 0
            if at >= envelope.first_seen:
                return Done("joined", reason, Arrival(digest, at, record.run))
        return Done("skipped", reason)

    def _copy(
        self, delivery: Delivery, envelope: Envelope, destination: Destination, record: DigestRecord, seen_at: int
    ) -> Copy | Wait | Fail:
        while record.status == "copying":
            if self._reaper.alive(record.run):
                return Wait(envelope, f"run {record.run} is copying it")
            # The reaper has ended what it knows of the run; what it does not know is an attempt without an outcome.
            self._ledger.digests.fail(record.target, record.digest, record.run or "", _NO_OUTCOME)
            record = self._ledger.digests.get(record.target, record.digest)
        if record.given_up(delivery.sent_at):
            return _given_up(record)
        return Copy(delivery, envelope, destination, self._relay.config.max_tasks(destination), record, seen_at)


def _given_up(record: DigestRecord) -> Fail:
    return Fail(record.error or "given up", kind=record.error_class or "Transient", run=record.run)
