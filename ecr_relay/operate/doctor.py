"""What a deployment lacks, with the remedy. Only what can be looked up is judged; nothing is tried out or changed."""

import json
from collections.abc import Callable, Iterator
from typing import Final, Literal

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import Field

from ecr_relay.errors import CopyError, RelayError
from ecr_relay.ledger.slots import SLOTS
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.depths import depth
from ecr_relay.operate.failures import sentence
from ecr_relay.operate.pause import consumer_enabled
from ecr_relay.operate.shapes import Shape

_RECEIVES: Final = 3
_SPARE: Final = 100
"""What Lambda keeps unreserved in an account; reserving fails where that would be touched (Lambda quotas)."""

Result = Literal["fine", "warning", "fault", "unknown"]


class Check(Shape):
    name: str
    result: Result = Field(description="unknown: it could not be looked up, as finding says")
    finding: str
    remedy: str | None = None


class Diagnosis(Shape):
    """`doctor`."""

    checks: list[Check]

    @property
    def ok(self) -> bool:
        return all(check.result != "fault" for check in self.checks)


def doctor(deployment: Deployment) -> Diagnosis:
    checks: list[Check] = []
    for name, check in _CHECKS.items():
        try:
            checks += check(deployment)
        except CopyError as error:
            checks.append(Check(name=name, result="fault", finding=f"{type(error).__name__}: {error}"))
        except RelayError as error:
            checks.append(Check(name=name, result="fault", finding=str(error)))
        except (ClientError, BotoCoreError) as error:
            checks.append(Check(name=name, result="unknown", finding=sentence(error) or str(error)))
    return Diagnosis(checks=checks)


def _configuration(deployment: Deployment) -> Iterator[Check]:
    config = deployment.config
    destinations = ", ".join(destination.name for destination in config.destinations)
    yield Check(name="configuration", result="fine", finding=f"{config.source.id} to {destinations}")


def _redrive(deployment: Deployment) -> Iterator[Check]:
    outputs = deployment.outputs
    answer = deployment.sqs.get_queue_attributes(QueueUrl=outputs.queue_url, AttributeNames=["RedrivePolicy"])
    policy = json.loads(answer.get("Attributes", {}).get("RedrivePolicy", "{}"))
    target, receives = policy.get("deadLetterTargetArn"), int(policy.get("maxReceiveCount", 0))
    right = target == deployment.queue_arn(outputs.dead_letter_queue_url) and receives == _RECEIVES
    yield Check(
        name="redrive policy",
        result="fine" if right else "fault",
        finding=f"{receives} receives, then {(target or 'nowhere').rpartition(':')[2]}",
        remedy=None if right else "Deploy the stack again: it was changed by hand",
    )


def _consuming(deployment: Deployment) -> Iterator[Check]:
    on = consumer_enabled(deployment)
    yield Check(
        name="consuming",
        result="fine" if on else "fault",
        finding="messages are received" if on else "paused: pushes wait, for seven days at the most",
        remedy=None if on else "`ecr-relay resume`",
    )


def _concurrency(deployment: Deployment) -> Iterator[Check]:
    function = deployment.outputs.consumer_function
    answer = deployment.functions.get_function_concurrency(FunctionName=function)
    reserved = answer.get("ReservedConcurrentExecutions")
    right = reserved == SLOTS
    yield Check(
        name="reserved concurrency",
        result="fine" if right else "warning",
        finding=f"{'none' if reserved is None else reserved} of {SLOTS} for the consumer",
        remedy=None if right else "Deploy the stack again, or ask for a higher Lambda quota",
    )


def _lambda_quota(deployment: Deployment) -> Iterator[Check]:
    limit = deployment.functions.get_account_settings()["AccountLimit"]
    whole = limit.get("ConcurrentExecutions", 0)
    enough = whole >= SLOTS + 2 + _SPARE  # the reconcile has 2
    yield Check(
        name="Lambda quota",
        result="fine" if enough else "warning",
        finding=f"{whole} concurrent executions in this account and region",
        remedy=None
        if enough
        else f"{SLOTS + 1} are reserved, and Lambda keeps {_SPARE}: ask for a higher quota (new accounts have little)",
    )


def _dead_letters(deployment: Deployment) -> Iterator[Check]:
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


def _slots(deployment: Deployment) -> Iterator[Check]:
    now = deployment.ledger.clock()
    overdue = [slot for slot in deployment.ledger.slots.held() if slot.phase != "ended" and slot.until < now]
    yield Check(
        name="leases",
        result="warning" if overdue else "fine",
        finding=f"{len(overdue)} copy tasks have not renewed their slot in time",
        remedy="The next message that needs a slot takes it back; see `ecr-relay status`" if overdue else None,
    )


def _breakers(deployment: Deployment) -> Iterator[Check]:
    for name in deployment.destinations(None):
        breaker = deployment.ledger.notes.breaker(name)
        yield Check(
            name=f"{name}: breaker",
            result="fault" if breaker else "fine",
            finding=f"open: {breaker.reason}" if breaker else "closed",
            remedy="Mend credentials, network or quota; it closes by itself" if breaker else None,
        )


def _source(deployment: Deployment) -> Iterator[Check]:
    first = next(iter(deployment.relay.source.repositories()), None)
    yield Check(
        name="source",
        result="fine" if first else "warning",
        finding="answers" if first else "answers, and has no repository",
    )


def _destinations(deployment: Deployment) -> Iterator[Check]:
    for destination in deployment.config.destinations:
        name = f"{destination.name}: registry"
        try:
            next(iter(deployment.relay.destination(destination).repositories()), None)
        except CopyError as error:
            yield Check(name=name, result="fault", finding=f"{type(error).__name__}: {error}")
        else:
            yield Check(name=name, result="fine", finding="answers")


_CHECKS: Final[dict[str, Callable[[Deployment], Iterator[Check]]]] = {
    "configuration": _configuration,
    "redrive policy": _redrive,
    "consuming": _consuming,
    "reserved concurrency": _concurrency,
    "Lambda quota": _lambda_quota,
    "dead letters": _dead_letters,
    "leases": _slots,
    "breakers": _breakers,
    "source": _source,
    "destinations": _destinations,
}
