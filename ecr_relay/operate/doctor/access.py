"""Whether each program may do what it must, and whether the registries answer.

Roles are asked about by IAM's own simulator, which knows their policies and boundaries; not what a repository's policy
or another account says. Registries are asked as the operator, or as whom the configuration names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay import rules
from ecr_relay.calls import CONSUMER, COPIER, RECONCILE, Calls
from ecr_relay.config import Credentials, Destination, EcrRegistry, OciSource, RegistryLogin
from ecr_relay.errors import CopyError, Missing
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.doctor.check import Check
from ecr_relay.operate.failures import DENIED, code_of, sentence
from ecr_relay.regions import PARTITION_OF_REGION
from ecr_relay.registries import Registry

NAMED: Final = 10
"""Repositories that the source lacks, by name."""
OLD_DAYS: Final = 90
"""From when on a secret's key is to be changed (CIS AWS Foundations Benchmark 1.14)."""


@dataclass(frozen=True, slots=True)
class Need:
    """Calls on one resource. `context`: what conditions in the stack's policies ask about the call."""

    actions: Sequence[str]
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


def consumer(deployment: Deployment) -> Iterator[Check]:
    outputs = deployment.outputs
    role = deployment.functions.get_function_configuration(FunctionName=outputs.consumer_function)["Role"]
    definition = deployment.ecs.describe_task_definition(taskDefinition=outputs.task_definition)["taskDefinition"]
    queue = ("ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes", "ReceiveMessage", "SendMessage")
    passed = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    needs = [
        Need([f"sqs:{call}" for call in queue], deployment.queue_arn(outputs.queue_url)),
        Need(["ecs:RunTask"], outputs.task_definition, {"ecs:cluster": outputs.cluster}),
        *(
            Need(["iam:PassRole"], arn, passed)
            for arn in (definition.get("taskRoleArn"), definition.get("executionRoleArn"))
            if arn
        ),
        *_common(deployment, CONSUMER),
        *_registries(deployment, CONSUMER),
    ]
    yield _simulated(deployment, "consumer's role", role, needs)


def reconcile(deployment: Deployment) -> Iterator[Check]:
    outputs = deployment.outputs
    role = deployment.functions.get_function_configuration(FunctionName=outputs.reconcile_function)["Role"]
    needs = [
        Need(["sqs:GetQueueAttributes", "sqs:SendMessage"], deployment.queue_arn(outputs.queue_url)),
        *_common(deployment, RECONCILE),
        *_registries(deployment, RECONCILE),
    ]
    yield _simulated(deployment, "reconcile's role", role, needs)


def copier(deployment: Deployment) -> Iterator[Check]:
    definition = deployment.ecs.describe_task_definition(taskDefinition=deployment.outputs.task_definition)
    role = definition["taskDefinition"].get("taskRoleArn", "")
    needs = [
        *_common(deployment, COPIER),
        *_registries(deployment, COPIER),
        *([Need(["ecr:GetAuthorizationToken"], "*")] if _own(deployment) else []),
    ]
    yield _simulated(deployment, "copier's role", role, needs)


def source(deployment: Deployment) -> Iterator[Check]:
    registry, config = deployment.relay.source, deployment.config
    try:
        absent = [name for name in sorted(rules.named(config)) if _is_absent(registry, name)]
        some = len(absent) < len(rules.named(config)) or (
            not rules.only_name(config) and next(iter(registry.repositories()), None) is not None
        )
    except CopyError as error:
        yield _unreachable("source", config.source, error)
        return
    yield Check(
        name="source",
        result="fine" if some else "warning",
        finding="answers" if some else "answers, and has no repository",
    )
    if absent:
        more = f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
        yield Check(
            name="source: named repositories",
            result="warning",
            finding=f"rules name what the source does not have: {', '.join(absent[:NAMED])}{more}",
            remedy="Mend the name in the rule, or push to it",
        )


def _is_absent(registry: Registry, repository: str) -> bool:
    try:
        next(iter(registry.images(repository)), None)
    except Missing:
        return True
    return False


def destinations(deployment: Deployment) -> Iterator[Check]:
    for destination in deployment.config.destinations:
        name = f"{destination.name}: registry"
        try:
            next(iter(deployment.relay.destination(destination).repositories()), None)
        except CopyError as error:
            yield _unreachable(name, destination, error)
        else:
            yield Check(name=name, result="fine", finding="answers")


def keys(deployment: Deployment) -> Iterator[Check]:
    """How long ago the access key pair in each secret was put there. Its value is not read."""
    named = {"source": deployment.config.source} | {entry.name: entry for entry in deployment.config.destinations}
    for name, registry in named.items():
        arn = registry.credentials.secret_arn if registry.credentials else None
        if arn is None:
            continue
        try:
            # arn:partition:secretsmanager:region:…
            secret = deployment.client("secretsmanager", arn.split(":")[3]).describe_secret(SecretId=arn)
        except (ClientError, BotoCoreError) as error:
            yield _no_secret(name, arn, error)
            continue
        changed = secret.get("LastChangedDate") or secret.get("CreatedDate")
        days = (datetime.now(UTC) - changed).days if changed else None
        old = days is not None and days > OLD_DAYS
        yield Check(
            name=f"{name}: access key",
            result="unknown" if days is None else "warning" if old else "fine",
            finding="its secret does not say since when" if days is None else f"in its secret for {days} days",
            remedy="Put a new key into the secret, which is read again within half an hour, and then delete the old one"
            if old
            else None,
        )


def _no_secret(name: str, arn: str, error: ClientError | BotoCoreError) -> Check:
    if isinstance(error, ClientError) and code_of(error) == "ResourceNotFoundException":
        return Check(
            name=f"{name}: access key",
            result="fault",
            finding=f"there is no secret {arn}",
            remedy="Create it, or correct secret_arn: its last six characters are AWS's own (`aws secretsmanager "
            "list-secrets`)",
        )
    return Check(name=f"{name}: access key", result="unknown", finding=sentence(error) or str(error))


def _unreachable(name: str, registry: EcrRegistry | OciSource, error: CopyError) -> Check:
    """A role that trusts only the relay's own roles, or a secret that only they may read, says nothing about them."""
    finding, cause = f"{type(error).__name__}: {error}", error.__cause__
    if registry.credentials is not None and isinstance(cause, ClientError) and code_of(cause) in DENIED:
        finding = f"you may not be whom it is reached as, though the relay may: {finding}"
        return Check(name=name, result="unknown", finding=finding)
    return Check(name=name, result="fault", finding=finding, remedy="Mend credentials or network, by what it says")


def _common(deployment: Deployment, calls: Calls) -> Iterator[Need]:
    """What all three do: the ledger and the configuration."""
    outputs = deployment.outputs
    _, partition, _, region, account, _ = deployment.queue_arn(outputs.queue_url).split(":")
    table = f"arn:{partition}:dynamodb:{region}:{account}:table/{outputs.ledger_table}"
    yield Need(calls.ledger, table)
    yield Need(["ssm:GetParameter"], f"arn:{partition}:ssm:{region}:{account}:parameter{outputs.config_parameter}")


def _registries(deployment: Deployment, calls: Calls) -> Iterator[Need]:
    config = deployment.config
    for registry in (config.source, *config.destinations):
        if registry.credentials is not None:
            yield _taken_on(registry.credentials)
            continue
        if not isinstance(registry, EcrRegistry):
            continue  # nobody is asked for anything
        name, made = "any", (*calls.source, *calls.listing)
        if isinstance(registry, Destination):
            name, made = registry.repository(name), calls.at(config, registry)
        partition = PARTITION_OF_REGION[registry.region]
        arn = f"arn:{partition}:ecr:{registry.region}:{registry.account}:repository/{name}"
        yield Need(made, arn)


def _taken_on(credentials: Credentials | RegistryLogin) -> Need:
    if isinstance(credentials, Credentials) and credentials.role_arn is not None:
        return Need(["sts:AssumeRole"], credentials.role_arn)
    return Need(["secretsmanager:GetSecretValue"], credentials.secret_arn or "")


def _own(deployment: Deployment) -> bool:
    """Whether some registry is reached by the relay's own roles."""
    config = deployment.config
    ours = (config.source, *config.destinations)
    return any(registry.credentials is None for registry in ours if isinstance(registry, EcrRegistry))


def _simulated(deployment: Deployment, name: str, role: str, needs: Sequence[Need]) -> Check:
    iam = deployment.client("iam")
    refused, asked = [], 0
    for need in needs:
        context = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in need.context.items()
        ]
        answer = iam.simulate_principal_policy(
            PolicySourceArn=role, ActionNames=list(need.actions), ResourceArns=[need.resource], ContextEntries=context
        )
        for result in answer["EvaluationResults"]:
            asked += 1
            if result["EvalDecision"] != "allowed":
                refused.append(f"{result['EvalActionName']} on {need.resource} ({result['EvalDecision']})")
    if not refused:
        return Check(name=name, result="fine", finding=f"may make the {asked} calls that it is for")
    return Check(
        name=name,
        result="fault",
        finding=f"may not: {'; '.join(refused)}",
        remedy="Deploy the stack again; if it stays, a permissions boundary or a service control policy forbids it",
    )
