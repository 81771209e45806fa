"""`[deployment]`: how the relay runs; a change here needs a deployment."""

import re
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from ecr_relay.config.base import Account, Region, Table

FARGATE_MEMORY_MIB: Final = {
    256: (512, 2048, 512),
    512: (1024, 4096, 1024),
    1024: (2048, 8192, 1024),
    2048: (4096, 16384, 1024),
    4096: (8192, 30720, 1024),
}
"""CPU units -> (least, most, step): the task sizes of the ECS developer guide (256 takes 512, 1024 and 2048)."""


def _proxy(url: str) -> str:
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        # Not a word of it: it would stand in the template, in task definitions and in the console.
        raise ValueError("a user and a password have no place in this file; let the proxy admit the relay's network")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"{url!r} is no proxy; allowed: such as 'http://proxy.example.com:3128'")
    return url


def _runbook(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or "#" in url or re.search(r"\s", url):
        example = "'https://git.example.com/ecr-relay/docs/operating.md'"
        raise ValueError(f"{url!r} is no page by https without a #; allowed: such as {example}")
    return url


class Network(Table):
    """An existing network; without it the stack creates a small VPC with public subnets and no NAT."""

    vpc_id: str = Field(
        pattern=r"^vpc-([0-9a-f]{8}|[0-9a-f]{17})$", description="the stack makes a security group in it"
    )
    subnet_ids: tuple[Annotated[str, Field(pattern=r"^subnet-([0-9a-f]{8}|[0-9a-f]{17})$")], ...] = Field(
        min_length=1, description="of that VPC; the copy tasks run there, and must reach ECR, S3 and the rest"
    )
    assign_public_ip: bool = Field(default=False, description="true in public subnets without NAT")
    functions: bool = Field(
        default=False,
        description="the functions run there, too, which a registry in a private network needs; they then reach AWS "
        "and the registries only by NAT or VPC endpoints",
    )

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.functions and self.assign_public_ip:
            raise ValueError(
                "functions: a function has no public address, so in public subnets it reaches nothing; name private "
                "ones, with a NAT gateway or VPC endpoints, and leave assign_public_ip out"
            )
        return self


class Deployment(Table):
    """What needs a deployment to change; the rest of the file is read when it is needed."""

    stack_name: str = Field(
        default="ecr-relay",
        pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$",
        description="of the CloudFormation stack; its ECS cluster and SSM parameter are named after it",
    )
    account: Account | None = Field(
        default=None,
        description="where the relay runs; default: the source's; of an `oci` one, the first destination's",
    )
    region: Region | None = Field(
        default=None,
        description="where the relay runs; default: the source's; of an `oci` one, the first destination's",
    )
    architecture: Literal["arm64", "x86_64"] = Field(default="arm64", description="of the functions and the copier")
    reconcile_at: str = Field(default="03:00", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="daily, UTC")
    network: Network | None = Field(default=None, description="default: a small one of the stack's own")
    https_proxy: Annotated[str, AfterValidator(_proxy)] | None = Field(
        default=None,
        description="for all that the copier and the functions ask by HTTPS, such as `http://proxy.example.com:3128`; "
        "without user and password",
    )
    no_proxy: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]+$")], ...] = Field(
        default=(),
        description="what is asked without it: hosts, or domains such as `.amazonaws.com`, where VPC endpoints answer",
    )
    ca_bundle: str | None = Field(
        default=None,
        min_length=1,
        description="PEM file, by its path from this one, of authorities that the copier and the functions believe "
        "beside the public ones, for all that they ask by HTTPS",
    )
    cluster: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]{1,255}$",
        description="name of an existing ECS cluster; default: one of the stack's own",
    )
    task_cpu: Literal[256, 512, 1024, 2048, 4096] = Field(
        default=1024, description="CPU units of a copy task; 1024 is one vCPU"
    )
    task_memory_mib: int = Field(
        default=2048, ge=512, le=30720, description="memory of a copy task; Fargate has sizes for each `task_cpu`"
    )
    log_retention_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 180, 365] = Field(
        default=30, description="how long the log groups keep a line"
    )
    supervise_seconds: int = Field(
        default=240,
        ge=1,
        le=240,
        description="how long an invocation waits for its copies; what takes longer looks again by itself",
    )

    alarm_email: str | None = Field(
        default=None,
        pattern=r"^[^@\s]+@[^@\s]+$",
        description="who is told of alarms, once the mail that asks for it is answered; default: nobody",
    )
    alarm_topic_arn: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$",
        description="an existing SNS topic for the alarms, which must let CloudWatch publish; default: one of the "
        "stack's own",
    )
    runbook_url: Annotated[str, Field(max_length=400), AfterValidator(_runbook)] | None = Field(
        default=None,
        description="where you read operating.md, such as your repository's page of it; alarms link their part of it. "
        "Default: they name the file",
    )
    alarm_lag_minutes: int = Field(
        default=30, ge=1, le=10_080, description="a push that waits, or took, longer is an alarm"
    )

    @model_validator(mode="after")
    def _one_topic(self) -> Self:
        if self.alarm_email and self.alarm_topic_arn:
            raise ValueError("alarm_email: goes with the stack's own topic; subscribe it to alarm_topic_arn yourself")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.no_proxy and not self.https_proxy:
            raise ValueError("no_proxy goes with https_proxy")
        return self

    @model_validator(mode="after")
    def _fargate_size(self) -> Self:
        least, most, step = FARGATE_MEMORY_MIB[self.task_cpu]
        if not least <= self.task_memory_mib <= most or self.task_memory_mib % step:
            raise ValueError(
                f"task_memory_mib: Fargate gives {self.task_cpu} CPU units {least} to {most} MiB in steps of {step}, "
                f"not {self.task_memory_mib}"
            )
        return self
