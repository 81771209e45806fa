"""What became of a message, as its metrics and its event on the bus say it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ecr_relay import rules
from ecr_relay.bus import Announcement
from ecr_relay.config import RelayConfig
from ecr_relay.consume.decide import Again, Delivery, Done, Fail, Wait
from ecr_relay.errors import Malformed
from ecr_relay.ledger.digests import ATTEMPTS
from ecr_relay.messages import Envelope, Ignored, PushEvent, parse
from ecr_relay.metrics import FAILURES, UNEXPECTED, Measured, Metric

_CONFLICTS: Final = ("overwrote", "kept")
_COUNTED: Final = {"overwrote": Metric.RETAGGED, "kept": Metric.SKIPPED}
"""What is counted as something else, beside being a conflict."""

Outcome = Done | Wait | Again | Fail


@dataclass(frozen=True, slots=True)
class Subject:
    """What a message is about, as far as that can be read."""

    event: PushEvent | None = None
    """A raw one, as EventBridge sent it."""
    envelope: Envelope | None = None
    """The one image and destination; None where it is none, or several."""

    @classmethod
    def of(cls, delivery: Delivery, config: RelayConfig | None, envelope: Envelope | None = None) -> "Subject":
        """`config` says where an event goes; `envelope` is what it has become, if that is known."""
        try:
            message = parse(delivery.body)
        except Malformed:
            return cls(None, envelope)
        if isinstance(message, Envelope):
            return cls(None, envelope or message)
        if isinstance(message, Ignored):
            return cls()
        if envelope is None and config is not None:
            wanted = rules.destinations(config, message.repository, message.tag)
            envelope = message.envelope(wanted[0].name, message.tag) if len(wanted) == 1 else None
        return cls(message, envelope)

    @property
    def first_seen(self) -> int | None:
        """ms since the epoch: when its event happened, however often it was sent since."""
        about = self.envelope or self.event
        return None if about is None else about.first_seen

    @property
    def lane(self) -> str:
        return self.envelope.lane if self.envelope is not None else "push"


@dataclass(frozen=True, slots=True)
class Told:
    """One message's outcome, which SQS has been told at `now` (ms)."""

    delivery: Delivery
    outcome: Outcome
    subject: Subject
    now: int


def measure(told: Sequence[Told]) -> Measured:
    """What is counted of these. `arrived` and `failed` are always there, so that none of them is a value."""
    measured = Measured()
    measured.add(Metric.ARRIVED, 0)
    measured.add(Metric.FAILED, 0)
    for entry in told:
        _measure(measured, entry)
    return measured


def _measure(measured: Measured, told: Told) -> None:
    subject = told.subject
    destination = subject.envelope.destination if subject.envelope else ""
    # What is sent again as it is will be received first once more.
    if subject.event is not None and told.delivery.receives == 1 and not isinstance(told.outcome, Again):
        measured.add(Metric.PUSHES)
    arrived_at, looked_at = None, None
    match told.outcome:
        case Done(what, _, arrival):
            measured.add(_COUNTED.get(what, what))
            if what in _CONFLICTS:
                measured.add(Metric.CONFLICTS)
            if arrival is not None:
                measured.add(Metric.ARRIVED, 1, destination)
                arrived_at = looked_at = arrival.at
        case Fail(kind=kind):
            measured.add(Metric.FAILED, 1, destination)
            measured.add(FAILURES.get(kind, UNEXPECTED))
            if kind == "Conflict":
                measured.add(Metric.CONFLICTS)
        case Wait(breaker=breaker):
            measured.add(Metric.DEFERRED)
            if breaker:
                measured.add(Metric.BREAKER_OPEN, 1, destination)
            looked_at = told.now
        case Again():
            measured.add(Metric.AGAIN)
            looked_at = told.now
    if subject.lane != "push" or subject.first_seen is None:
        return
    if arrived_at is not None:
        measured.add(Metric.LAG, max(0, arrived_at - subject.first_seen), destination)
    if looked_at is not None:
        measured.add(Metric.AGE, max(0, looked_at - subject.first_seen))


def announcements(told: Sequence[Told], config: RelayConfig) -> list[Announcement]:
    """Of what has arrived, and of what was given up: a failure that was its message's last receive."""
    found = (_announcement(entry, config) for entry in told)
    return [announcement for announcement in found if announcement is not None]


def _announcement(told: Told, config: RelayConfig) -> Announcement | None:
    envelope, outcome = told.subject.envelope, told.outcome
    if envelope is None:
        return None
    try:
        there = config.destination(envelope.destination).repository(envelope.repository)
    except KeyError:
        there = None
    facts = {
        "lane": envelope.lane,
        "source": envelope.source,
        "destination": envelope.destination,
        "repository": envelope.repository,
        "destination_repository": there,
        "tag": envelope.tag,
        "first_seen": envelope.first_seen,
        "message_id": told.delivery.message_id,
    }
    match outcome:
        case Done(what, _, arrival) if arrival is not None:
            lag = max(0, arrival.at - envelope.first_seen)
            how = {"how": what, "digest": arrival.digest, "run": arrival.run, "lag_milliseconds": lag}
            return Announcement.model_validate(facts | how)
        case Fail(reason, _, kind, run) if told.delivery.receives >= ATTEMPTS:
            lag = max(0, told.now - envelope.first_seen)
            how = {"how": "failed", "digest": envelope.digest, "run": run, "lag_milliseconds": lag}
            error = {"error_class": kind, "error": reason.removeprefix(f"{kind}: ")}
            return Announcement.model_validate(facts | how | error)
    return None
