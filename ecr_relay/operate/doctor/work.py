"""What lies about: dead letters, overdue leases, open breakers."""

from collections.abc import Iterator

from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.depths import depth
from ecr_relay.operate.doctor.check import Check


def dead_letters(deployment: Deployment) -> Iterator[Check]:
    dead = depth(deployment, deployment.outputs.dead_letter_queue_url)
    undelivered = depth(deployment, deployment.outputs.event_dead_letter_queue_url)
    number, lost = dead.waiting + dead.in_flight, undelivered.waiting + undelivered.in_flight
    yield Check(
        name="dead letters",
        result="warning" if number else "fine",
        finding=f"{number} of the copy queue",
        remedy="`ecr-relay dlq list`" if number else None,
    )
    yield Check(
        name="lost events",
        result="warning" if lost else "fine",
        finding=f"{lost} that EventBridge could not deliver",
        remedy="`ecr-relay sync` finds their images; the queue policy may lack the rule" if lost else None,
    )


def leases(deployment: Deployment) -> Iterator[Check]:
    now = deployment.ledger.clock()
    overdue = [slot for slot in deployment.ledger.slots.held() if slot.phase != "ended" and slot.until < now]
    yield Check(
        name="leases",
        result="warning" if overdue else "fine",
        finding=f"{len(overdue)} copy tasks have not renewed their slot in time",
        remedy="The next message that needs a slot takes it back; see `ecr-relay status`" if overdue else None,
    )


def breakers(deployment: Deployment) -> Iterator[Check]:
    for name in deployment.destinations(None):
        breaker = deployment.ledger.notes.breaker(name)
        yield Check(
            name=f"{name}: breaker",
            result="fault" if breaker else "fine",
            finding=f"open: {breaker.reason}" if breaker else "closed",
            remedy="Mend credentials, network or quota; it closes by itself" if breaker else None,
        )
