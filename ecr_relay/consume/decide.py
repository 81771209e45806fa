"""What is to be done about one message: the table "Deciding a message" of the design, row by row."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ecr_relay import rules
from ecr_relay.config import Destination, EcrSource
from ecr_relay.consume.reap import Reaper
from ecr_relay.converge import Applied, Busy, Gone, Kept, Place, converge, copied
from ecr_relay.errors import Malformed, RegistryDown, TagTaken, Transient
from ecr_relay.images import subject, subject_of_tag
from ecr_relay.ledger import DigestRecord, Target
from ecr_relay.messages import Envelope, Ignored, PushEvent, detail_types, parse
from ecr_relay.queues import CopyQueue
from ecr_relay.relay import Relay
from ecr_relay.rules import Selection


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
    """Nothing remains to be done.

    `what`: skipped, dropped, split, observed, kept (somebody else's tag stays); or, with an arrival, retagged,
    overwrote (somebody else had moved the tag), joined or copied. `envelope`: what an event is about, if it is
    one image for one destination. `by_rules`: nothing is copied, and that because of what the rules say.
    """

    what: str
    reason: str
    arrival: Arrival | None = None
    envelope: Envelope | None = None
    by_rules: bool = False


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

    `kind` is the error's class, `run` the copy task's that met it, `envelope` as in `Done`.
    """

    reason: str
    attempt: int | None = None
    kind: str = "Transient"
    run: str | None = None
    envelope: Envelope | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    """To be copied: the envelope, its digest being the source's now; the record as it was seen; what it refers to, if
    it is a referrer."""

    delivery: Delivery
    envelope: Envelope
    destination: Destination
    max_tasks: int
    record: DigestRecord
    seen_at: int
    subject: str | None


UNTAGGED_MS: Final = 120_000
"""How old a push without a tag is before it is copied for itself: most are an index's, which takes them along."""
SUBJECT_MS: Final = 600_000
"""How long a referrer waits for what it refers to; then that one's own copy brings it."""
_NO_OUTCOME: Final = Transient("its copy task ended and left no outcome")

Decision = Done | Wait | Again | Fail | Copy


class Decider:
    """Decides message by message. `reaper` knows which runs are alive; `since` has the relay by rules that are no older
    than a message that was sent at that time (ms)."""

    def __init__(self, relay: Relay, queue: CopyQueue, reaper: Reaper, since: Callable[[int], Relay]) -> None:
        self._relay = relay
        self._since = since
        self._ledger = relay.ledger
        self._queue = queue
        self._reaper = reaper
        self._subjects: dict[tuple[str, str], str | None] = {}

    @property
    def relay(self) -> Relay:
        """By the rules that the last message was decided by."""
        return self._relay

    def decide(self, delivery: Delivery) -> Decision:
        """Raises CopyError if a registry does not answer as it should, ConfigError if newer rules cannot be read."""
        decision = self._decide(delivery)
        if isinstance(decision, Done) and decision.by_rules:
            # Rules that were known before the message was sent may be older than those that it was sent under.
            relay = self._since(delivery.sent_at)
            if relay is not self._relay:
                self._relay = relay
                decision = self._decide(delivery)
        return decision

    def _decide(self, delivery: Delivery) -> Decision:
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
        if event.source != self._relay.config.source.id:
            return _dropped(f"of another registry: {event.source}")
        source = self._relay.config.source
        if not isinstance(source, EcrSource) or event.detail_type not in detail_types(source):
            return _dropped(f"{event.detail_type} is not asked for")
        tag, wanted = event.tag, rules.selections(self._relay.config, event.repository, event.tag)
        if event.may_refer and (tag is None or not wanted):
            # A tag of its own that no rule selects stays behind; one that says what it refers to does not.
            tag = tag if tag is not None and subject_of_tag(tag) else None
            wanted = self._wanted(event.repository, tag, event.digest)
        if not wanted:
            return _dropped(self._unwanted(event))
        envelopes = [event.envelope(selection.destination.name, tag) for selection in wanted]
        if len(envelopes) > 1:
            # Each destination has attempts of its own, so each gets a message of its own.
            self._queue.send(envelopes)
            return Done("split", ", ".join(envelope.destination for envelope in envelopes))
        decision = self._decide_selected(delivery, envelopes[0], wanted[0], seen_before=delivery.receives > 1)
        return replace(decision, envelope=envelopes[0]) if isinstance(decision, Done | Fail) else decision

    def _decide_envelope(self, delivery: Delivery, envelope: Envelope) -> Decision:
        if envelope.source != self._relay.config.source.id:
            return _dropped(f"of another registry: {envelope.source}")
        for selection in self._wanted(envelope.repository, envelope.tag, envelope.digest):
            if selection.destination.name == envelope.destination:
                return self._decide_selected(delivery, envelope, selection, seen_before=True)
        return _dropped("no rule selects it any more")

    def _unwanted(self, event: PushEvent) -> str:
        config = self._relay.config
        if any(rules.is_ring(destination, event.repository) for destination in config.destinations):
            return f"{event.repository} looks like a copy of a destination's own: it would go round for ever"
        return "no rule selects it" if event.tag else "no tag, and no rule wants untagged images"

    def _wanted(self, repository: str, tag: str | None, digest: str) -> tuple[Selection, ...]:
        """By the rules for tags; what has none and refers to another image, where that may be."""
        selected = rules.selections(self._relay.config, repository, tag)
        if tag is not None and not subject_of_tag(tag):
            return selected
        referring = rules.referring(self._relay.config, repository)
        return referring if (selected or referring) and self._subject(repository, tag, digest) else selected

    def _subject(self, repository: str, tag: str | None, digest: str) -> str | None:
        """What an image refers to: by its tag's name, or by its manifest, which is read once."""
        if tag is not None:
            return subject_of_tag(tag)
        if (repository, digest) not in self._subjects:
            manifest = self._relay.source.manifest(repository, digest)
            self._subjects[repository, digest] = subject(manifest.content) if manifest else None
        return self._subjects[repository, digest]

    def _decide_selected(
        self, delivery: Delivery, envelope: Envelope, selection: Selection, *, seen_before: bool
    ) -> Decision:
        destination = selection.destination
        target = self._relay.target(destination, envelope.repository)
        if envelope.tag is not None:
            tag = self._ledger.tags.get(target, envelope.tag)
            if tag.says(envelope.digest, envelope.as_of):
                return self._had(target, envelope, envelope.digest, seen_before, tag.verified_at)
            if tag.given_up(delivery.sent_at):
                return Fail(f"{tag.error_class}: {tag.error}", kind=tag.error_class or TagTaken.__name__)
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
        if self._ledger.notes.paused(destination.name) is not None:
            return Wait(envelope, f"destination {destination.name} is paused")
        try:
            place = self._relay.place(destination, envelope.repository)
            return self._look(delivery, envelope, selection, place, seen_before=seen_before)
        except RegistryDown as error:
            self._ledger.notes.open_breaker(destination.name, str(error))
            return Wait(envelope, f"{type(error).__name__}: {error}", breaker=True)

    def _look(
        self, delivery: Delivery, envelope: Envelope, selection: Selection, place: Place, *, seen_before: bool
    ) -> Decision:
        """What the registries say; what the ledger has to say is said."""
        if selection.rule.mode == "observe":
            return _observed(envelope, place)
        refers_to = self._subject(envelope.repository, envelope.tag, envelope.digest)
        if refers_to is not None and (decision := self._by_subject(envelope, place, refers_to)):
            return decision
        if envelope.tag is not None:
            return self._decide_tag(delivery, envelope, place, envelope.tag, seen_before=seen_before)
        if refers_to is None and envelope.lane == "push" and self._age_ms(envelope) < UNTAGGED_MS:
            return Wait(envelope, "its index, if it has one, goes first")
        if copied(self._ledger, place, envelope.digest, envelope.as_of):
            return self._had(place.target, envelope, envelope.digest, seen_before)
        record = self._ledger.digests.get(place.target, envelope.digest)
        return self._copy(delivery, envelope, place.settings, record, self._ledger.clock())

    def _by_subject(self, envelope: Envelope, place: Place, refers_to: str) -> Wait | Done | None:
        """What refers to an image goes where that is, and as that does; None if it is to be copied."""
        if place.destination.has(place.destination_repository, refers_to):
            if envelope.lane == "reconcile":
                return None  # which has decided that
            how = self._relay.following(place.settings, envelope.repository, refers_to)
            if how is None:
                return _dropped(f"the rule for {refers_to} leaves behind what refers to it")
            return _observed(envelope, place) if how.rule.mode == "observe" else None
        if self._age_ms(envelope) < SUBJECT_MS:
            return Wait(envelope, f"{refers_to}, which it refers to, is not there yet")
        return Done("dropped", f"{refers_to}, which it refers to, is not there, and will bring it along")

    def _age_ms(self, envelope: Envelope) -> int:
        return self._ledger.clock() - envelope.first_seen

    def _decide_tag(
        self, delivery: Delivery, envelope: Envelope, place: Place, tag: str, *, seen_before: bool
    ) -> Decision:
        outcome = converge(self._ledger, place, tag, as_of=envelope.as_of)
        match outcome:
            case Applied():
                if outcome.moved and envelope.lane == "push":
                    self._ledger.lags.arrived(envelope.first_seen)
                reason, arrival = f"{tag} has {outcome.digest}", Arrival(outcome.digest, self._ledger.clock())
                if outcome.overwrote:
                    return Done("overwrote", f"{reason}; somebody else's was {outcome.overwrote}", arrival)
                if outcome.moved:
                    return Done("retagged", reason, arrival)
                return self._had(place.target, envelope, outcome.digest, seen_before, reason=reason)
            case Kept():
                return Done("kept", f"somebody else has put {outcome.digest} under {tag}")
            case Busy():
                return Wait(envelope, "another is at this tag")
            case Gone():
                return Done("dropped", "the source no longer has this tag")
        if outcome.digest != envelope.digest:
            envelope = envelope.model_copy(update={"digest": outcome.digest})
        record = self._ledger.digests.get(place.target, outcome.digest)
        return self._copy(delivery, envelope, place.settings, record, outcome.seen_at)

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
            # The reaper has ended what it knows of the run; what it does not know was interrupted, too.
            self._ledger.digests.interrupt(record.target, record.digest, record.run or "", _NO_OUTCOME)
            record = self._ledger.digests.get(record.target, record.digest)
        if record.given_up(delivery.sent_at):
            return _given_up(record)
        if record.rests_until > self._ledger.clock():
            return Wait(envelope, f"interrupted {record.interruptions} times in a row: {record.error}")
        if envelope.redriven(delivery.sent_at):
            record = record.for_message(delivery.sent_at)
        subject = self._subject(envelope.repository, envelope.tag, envelope.digest)
        max_tasks = self._relay.config.max_tasks(destination)
        return Copy(delivery, envelope, destination, max_tasks, record, seen_at, subject)


def _observed(envelope: Envelope, place: Place) -> Done:
    if envelope.tag is not None:
        there = place.destination.resolve(place.destination_repository, envelope.tag)
    else:
        known = place.destination.has(place.destination_repository, envelope.digest)
        there = envelope.digest if known else None
    if there == envelope.digest:
        return Done("skipped", f"{place.destination_repository} has it")
    return Done("observed", f"{place.settings.name} has {there or 'nothing'}; this rule copies nothing", by_rules=True)


def _dropped(reason: str) -> Done:
    return Done("dropped", reason, by_rules=True)


def _given_up(record: DigestRecord) -> Fail:
    return Fail(record.error or "given up", kind=record.error_class or "Transient", run=record.run)
