"""What a deployment lacks, with the remedy. Only what can be looked up is judged; nothing is tried out or changed.

wiring.py   queues, event source mapping, EventBridge rule, cluster, alarm topic
access.py   roles, registries, secrets
quotas.py   Lambda, Fargate, ECR
work.py     dead letters, slots, breakers
"""

from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay.errors import CopyError, RelayError
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.doctor import access, quotas, wiring, work
from ecr_relay.operate.doctor.check import Check, Question
from ecr_relay.operate.failures import sentence
from ecr_relay.operate.shapes import Shape

__all__ = ["Check", "Diagnosis", "doctor"]


class Diagnosis(Shape):
    """`doctor`."""

    checks: list[Check]

    @property
    def ok(self) -> bool:
        return all(check.result != "fault" for check in self.checks)


def doctor(deployment: Deployment) -> Diagnosis:
    """Raises nothing of AWS's: what may not be asked, or is not there, is unknown, with the reason."""
    checks: list[Check] = []
    for name, question in QUESTIONS.items():
        try:
            for check in question(deployment):
                checks.append(check)
        except CopyError as error:
            checks.append(Check(name=name, result="fault", finding=f"{type(error).__name__}: {error}"))
        except RelayError as error:
            checks.append(Check(name=name, result="fault", finding=str(error)))
        except (ClientError, BotoCoreError) as error:
            checks.append(Check(name=name, result="unknown", finding=sentence(error) or str(error)))
    return Diagnosis(checks=checks)


QUESTIONS: Final[dict[str, Question]] = {
    "configuration": wiring.configuration,
    "push events": wiring.push_events,
    "redrive policy": wiring.redrive,
    "consuming": wiring.consuming,
    "cluster": wiring.cluster,
    "alarm topic": wiring.alarm_topic,
    "consumer's role": access.consumer,
    "reconcile's role": access.reconcile,
    "copier's role": access.copier,
    "source": access.source,
    "destinations": access.destinations,
    "access keys": access.keys,
    "reserved concurrency": quotas.reserved,
    "Lambda quota": quotas.concurrency,
    "Fargate quota": quotas.fargate,
    "PutImage quota": quotas.put_image,
    "dead letters": work.dead_letters,
    "leases": work.leases,
    "breakers": work.breakers,
}
"""In the order in which one would look: what is wrong further up explains what is wrong further down."""
