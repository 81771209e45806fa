"""A deployed relay, found by its stack's name: its outputs, and a client for each thing behind them.

Clients are boto3's defaults, so where they go (account, region, the local cloud) is the environment's to say.
"""

import json
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_pascal

from ecr_relay.config import RelayConfig
from ecr_relay.errors import ConfigError, RelayError
from ecr_relay.ledger import Ledger, Target
from ecr_relay.ledger.queries import Queries
from ecr_relay.ledger.table import open_table
from ecr_relay.operate.failures import Unusable, code_of
from ecr_relay.queues import CopyQueue
from ecr_relay.relay import Relay

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackTypeDef
    from mypy_boto3_dynamodb.service_resource import Table
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

ENDPOINTS: Final = "endpoints.json"
"""What `local up` writes into its state directory."""

_CLIENT: Final = Config(
    # Whoever looks at night is told within half a minute that nobody answers: three times this, and the pauses between.
    connect_timeout=4,
    read_timeout=8,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=20,
    user_agent_extra="ecr-relay",
)
_LONG: Final = _CLIENT.merge(Config(read_timeout=30))
"""For a page of a log, and for what IAM has to work out."""
_INVOKE: Final = Config(
    connect_timeout=5,
    read_timeout=930,  # the reconcile function's timeout is 900 s
    retries={"mode": "standard", "total_max_attempts": 1},  # a second one would be a second reconcile
    tcp_keepalive=True,
    user_agent_extra="ecr-relay",
)


class NoStack(RelayError):
    """There is no such stack where we looked, or it is no relay's."""


class Outputs(BaseModel):
    """The stack's outputs, which are how its parts are found."""

    model_config = ConfigDict(alias_generator=to_pascal, frozen=True)

    queue_url: str
    dead_letter_queue_url: str
    event_dead_letter_queue_url: str
    ledger_table: str
    config_parameter: str
    consumer_function: str
    reconcile_function: str
    cluster: str
    task_definition: str
    copier_log_group: str


class Deployment:
    """Clients and records are made when they are needed first, and kept."""

    def __init__(self, stack: str, outputs: Outputs) -> None:
        self.stack = stack
        self.outputs = outputs

    @classmethod
    def find(cls, stack: str) -> Self:
        """By the stack's name. Raises NoStack."""
        client = boto3.client("cloudformation", config=_CLIENT)
        where = f"region {client.meta.region_name}"
        try:
            found = client.describe_stacks(StackName=stack)["Stacks"][0]
        except ClientError as error:
            if code_of(error) != "ValidationError":
                raise
            relays = _relays(client)
            hint = f"there is: {', '.join(sorted(relays))}" if relays else "nor is any other relay there"
            raise NoStack(
                f"no stack {stack!r} in {where}; {hint}. Name it with --stack, its region with --region"
            ) from None
        try:
            return cls(stack, _outputs(found))
        except ValidationError as error:
            missing = ", ".join(str(wrong["loc"][0]) for wrong in error.errors())
            raise NoStack(
                f"stack {stack!r} in {where} is {found['StackStatus']} and lacks the outputs {missing}: "
                "it is no relay's, of another version, or not deployed to its end"
            ) from None

    @cached_property
    def sqs(self) -> "SQSClient":
        return boto3.client("sqs", config=_CLIENT)

    @cached_property
    def ssm(self) -> "SSMClient":
        return boto3.client("ssm", config=_CLIENT)

    @cached_property
    def ecs(self) -> "ECSClient":
        return boto3.client("ecs", config=_CLIENT)

    @cached_property
    def logs(self) -> "CloudWatchLogsClient":
        return boto3.client("logs", config=_LONG)

    @cached_property
    def functions(self) -> "LambdaClient":
        return boto3.client("lambda", config=_CLIENT)

    def client(self, service: str, region: str | None = None) -> Any:
        """For the odd question to another service, or to another region of this account."""
        make: Any = boto3.client
        return make(service, region_name=region, config=_LONG if service == "iam" else _CLIENT)

    @cached_property
    def invoker(self) -> "LambdaClient":
        """For invocations that may take as long as a function may."""
        return boto3.client("lambda", config=_INVOKE)

    @cached_property
    def queue(self) -> CopyQueue:
        return CopyQueue(self.sqs, self.outputs.queue_url)

    @cached_property
    def _table(self) -> "Table":
        return open_table(self.outputs.ledger_table)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self._table)

    @cached_property
    def queries(self) -> Queries:
        return Queries(self._table)

    @cached_property
    def config(self) -> RelayConfig:
        """What the functions work by, from the SSM parameter. Raises ConfigError."""
        return RelayConfig.from_parameter(
            self.ssm.get_parameter(Name=self.outputs.config_parameter)["Parameter"]["Value"]
        )

    @cached_property
    def relay(self) -> Relay:
        """The registries, as the operator: with the operator's own credentials where the configuration has none."""
        return Relay(self.config, self.ledger)

    def target(self, destination: str, repository: str) -> Target:
        return Target(self.config.source.id, destination, repository)

    def destinations(self, name: str | None) -> list[str]:
        """All destinations' names, or the one asked for. Raises Unusable for one that the configuration lacks."""
        names = [destination.name for destination in self.config.destinations]
        if name is None:
            return names
        if name not in names:
            raise Unusable(f"{name!r} is not a destination; there are: {', '.join(names)}")
        return [name]

    def queue_arn(self, url: str) -> str:
        answer = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return answer["Attributes"]["QueueArn"]


@dataclass(frozen=True, slots=True)
class LocalRelay:
    """The relay of a state directory: `environment` is what boto3 needs to talk to its cloud."""

    stack: str
    environment: dict[str, str]


def local_relay(state: Path) -> LocalRelay:
    """Raises RelayError when nothing is there."""
    path = state / ENDPOINTS
    try:
        endpoints = json.loads(path.read_text(encoding="utf-8"))
        environment = {
            "AWS_ENDPOINT_URL": endpoints["aws_endpoint_url"],
            "AWS_DEFAULT_REGION": endpoints["region"],
            "AWS_ACCESS_KEY_ID": endpoints["account_id"],  # the local cloud takes twelve digits for the account
            "AWS_SECRET_ACCESS_KEY": "local",
        }
        return LocalRelay(endpoints["stack_name"], environment)
    except FileNotFoundError:
        raise NoStack(
            f"{path}: no such file; no local cloud runs there (`ecr-relay local up --state {state}`)"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not what `local up` writes: {error!r}") from None


@contextmanager
def environment(values: Mapping[str, str], *, alone: bool, environ: MutableMapping[str, str]) -> Iterator[None]:
    """`environ` with these values while it lasts; `alone`: without other credentials, profiles and endpoints."""
    kept = {name: value for name, value in environ.items() if name.startswith("AWS_")}
    if alone:
        for name in kept:
            del environ[name]
    environ.update(values)
    boto3.DEFAULT_SESSION = None  # it keeps the credentials that it has found first
    try:
        yield
    finally:
        for name in {*values, *(name for name in environ if name.startswith("AWS_"))}:
            del environ[name]
        environ.update(kept)
        boto3.DEFAULT_SESSION = None


def _outputs(stack: "StackTypeDef") -> Outputs:
    """Raises ValidationError."""
    return Outputs.model_validate({o["OutputKey"]: o.get("OutputValue", "") for o in stack.get("Outputs", [])})


def _relays(client: "CloudFormationClient") -> dict[str, Outputs]:
    """All relays of the account and region; none where we may not list."""
    relays: dict[str, Outputs] = {}
    with suppress(ClientError):
        for page in client.get_paginator("describe_stacks").paginate():
            for stack in page["Stacks"]:
                with suppress(ValidationError):
                    relays[stack["StackName"]] = _outputs(stack)
    return relays
