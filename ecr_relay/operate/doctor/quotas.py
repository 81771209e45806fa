"""Whether the account allows what a relay at full load does."""

from collections.abc import Iterator
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay.ledger.slots import SLOTS
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.doctor.check import Check
from ecr_relay.operate.failures import code_of, sentence

_RECONCILES: Final = 2
"""Concurrency that is reserved for the reconcile function."""
_SPARE: Final = 100
"""What Lambda keeps unreserved in an account; reserving fails where that would be touched (Lambda quotas)."""
_FARGATE_VCPUS: Final = ("fargate", "L-3032A538")
"""Fargate On-Demand vCPU resource count (Service Quotas)."""
_PUT_IMAGE: Final = ("ecr", "L-AD52DFB2")
"""Rate of PutImage requests (Service Quotas)."""


def reserved(deployment: Deployment) -> Iterator[Check]:
    function = deployment.outputs.consumer_function
    found = deployment.functions.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions")
    right = found == SLOTS
    yield Check(
        name="reserved concurrency",
        result="fine" if right else "warning",
        finding=f"{'none' if found is None else found} of {SLOTS} for the consumer",
        remedy=None if right else "Deploy the stack again, or ask for a higher Lambda quota",
    )


def concurrency(deployment: Deployment) -> Iterator[Check]:
    limit = deployment.functions.get_account_settings()["AccountLimit"]
    whole, wanted = limit.get("ConcurrentExecutions", 0), SLOTS + _RECONCILES
    enough = whole >= wanted + _SPARE
    yield Check(
        name="Lambda quota",
        result="fine" if enough else "warning",
        finding=f"{whole} concurrent executions in this account and region",
        remedy=None
        if enough
        else f"{wanted} are reserved, and Lambda keeps {_SPARE}: ask for a higher quota (new accounts have little)",
    )


def fargate(deployment: Deployment) -> Iterator[Check]:
    definition = deployment.ecs.describe_task_definition(taskDefinition=deployment.outputs.task_definition)
    wanted = SLOTS * int(definition["taskDefinition"].get("cpu") or 1024) / 1024
    quota = _quota(deployment, *_FARGATE_VCPUS)
    enough = quota >= wanted
    yield Check(
        name="Fargate quota",
        result="fine" if enough else "warning",
        finding=f"{quota:g} vCPU at once in this account and region; {SLOTS} copy tasks take {wanted:g}",
        remedy=None
        if enough
        else f"Ask for more (Service Quotas: Fargate, {_FARGATE_VCPUS[1]}), or set task_cpu lower",
    )


def put_image(deployment: Deployment) -> Iterator[Check]:
    own = deployment.queue_arn(deployment.outputs.queue_url).split(":")[4]
    for destination in deployment.config.destinations:
        name, rate = f"{destination.name}: PutImage quota", destination.put_image_per_second
        if destination.account != own or destination.credentials is not None:
            where = f"look there: Service Quotas, ECR, {_PUT_IMAGE[1]}, of {destination.region}"
            yield Check(name=name, result="unknown", finding=f"it is account {destination.account}'s; {where}")
            continue
        try:
            quota = _quota(deployment, *_PUT_IMAGE, destination.region)
        except (ClientError, BotoCoreError) as error:
            yield Check(name=name, result="unknown", finding=sentence(error) or str(error))
            continue
        enough = quota >= rate
        yield Check(
            name=name,
            result="fine" if enough else "warning",
            finding=f"{quota:g} a second; put_image_per_second takes {rate:g} of them",
            remedy=None if enough else f"Set put_image_per_second below {quota:g}, or ask for a higher quota",
        )


def _quota(deployment: Deployment, service: str, code: str, region: str | None = None) -> float:
    """What applies to this account; failing that, AWS's default."""
    client = deployment.client("service-quotas", region)
    try:
        answer = client.get_service_quota(ServiceCode=service, QuotaCode=code)
    except ClientError as error:
        if code_of(error) != "NoSuchResourceException":
            raise
        answer = client.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)
    return float(answer["Quota"]["Value"])
