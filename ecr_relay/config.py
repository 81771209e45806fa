"""`relay.toml`: one file, read by the stack and, through an SSM parameter, by every function. Pure.

    text --parse--> RelayConfig --to_parameter--> SSM --from_parameter--> RelayConfig

Every error is one line that names the key by its path and says what is allowed there.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Annotated, Final, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ecr_relay.errors import ConfigError
from ecr_relay.images import is_repository
from ecr_relay.regions import PARTITION_OF_REGION

PARAMETER_LIMIT: Final = 8192
"""Characters that an advanced SSM parameter holds (AWS Systems Manager quotas)."""


FARGATE_MEMORY_MIB: Final = {
    256: (512, 2048, 512),
    512: (1024, 4096, 1024),
    1024: (2048, 8192, 1024),
    2048: (4096, 16384, 1024),
    4096: (8192, 30720, 1024),
}
"""CPU units -> (least, most, step): the task sizes of the ECS developer guide (256 takes 512, 1024 and 2048)."""


def _known_region(region: str) -> str:
    if region not in PARTITION_OF_REGION:
        close = get_close_matches(region, PARTITION_OF_REGION, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"{region!r} is no AWS region; {hint}allowed: {', '.join(PARTITION_OF_REGION)}")
    return region


def _usable_prefix(prefix: str) -> str:
    if prefix and not is_repository(prefix + "/x"):
        raise ValueError(
            f"{prefix!r} makes no valid repository name; allowed: lower-case path such as 'mirror' or 'team/mirror'"
        )
    return prefix


def _json_policy(text: str) -> str:
    try:
        json.loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not 100 <= len(text) <= 30_720:
        raise ValueError(f"{len(text)} characters; ECR takes 100 to 30,720")
    return text


Region = Annotated[str, AfterValidator(_known_region)]
Account = Annotated[str, Field(pattern=r"^[0-9]{12}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Glob = Annotated[str, Field(min_length=1, max_length=256)]


_M = TypeVar("_M", bound="_Model")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Credentials(_Model):
    """How to become somebody else: a role to assume, or an access key pair for another partition; one of the two."""

    role_arn: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$",
        description="the role to assume; it must trust the relay's own roles",
    )
    external_id: str | None = Field(
        default=None,
        min_length=2,
        max_length=1224,
        description="what that role's trust policy asks for; only with `role_arn`",
    )
    secret_arn: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+-[A-Za-z0-9]{6}$",
        description="complete, with its six random characters; a JSON object with `access_key_id` and "
        "`secret_access_key`",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.role_arn is None) == (self.secret_arn is None):
            raise ValueError("needs either role_arn or secret_arn")
        if self.external_id and not self.role_arn:
            raise ValueError("external_id goes with role_arn")
        return self


class EcrRegistry(_Model):
    """One Amazon ECR private registry: an account in a region."""

    region: Region = Field(description="AWS region, such as `eu-west-1`; the partition follows from it")
    account: Account = Field(description="AWS account, twelve digits in quotes")
    credentials: Credentials | None = Field(default=None, description="default: the relay's own roles")
    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^/]+$",
        description="ECR API endpoint, for PrivateLink without private DNS; default: AWS's own",
    )

    @property
    def id(self) -> str:
        """How the ledger names it."""
        return f"{self.account}.{self.region}"


class EcrSource(EcrRegistry):
    """The registry that images are pushed to."""

    type: Literal["ecr"] = Field(default="ecr", description="the only kind of source yet")


class NewRepository(_Model):
    """What a repository gets that we create at a destination. An existing one is left as it is."""

    immutable_tags: bool = Field(
        default=False, description="no tag can be moved there; one that moves at the source then fails for good"
    )
    scan_on_push: bool = Field(default=False, description="let ECR scan what is pushed")
    kms_key: str | None = Field(default=None, description="key ARN; default: AES-256 by ECR")
    lifecycle_policy: Annotated[str, AfterValidator(_json_policy)] | None = Field(
        default=None,
        description="the policy's JSON text, 100 to 30,720 characters; a tagged image that it removes is copied again "
        "by the next reconcile, as long as the source has it",
    )
    tags: dict[str, str] = Field(default_factory=dict, description="resource tags")


class Destination(EcrRegistry):
    """A registry that images are copied to. No two may write the same place."""

    name: Name = Field(description="how rules, the ledger and the commands call it; unique")
    prefix: Annotated[str, AfterValidator(_usable_prefix)] = Field(
        default="",
        description="`mirror` puts `team/app` into `mirror/team/app`; needed if this is the source's own registry, and "
        "`prefix/*` then excluded by every rule",
    )
    max_tasks: int | None = Field(
        default=None,
        ge=1,
        le=10,
        description="copy tasks at once for this destination; default: all 10, or, where there are several "
        "destinations, so many that slow ones never starve another",
    )
    put_image_per_second: float = Field(
        default=8.0,
        ge=0.1,
        le=1000,
        description="PutImage calls a second of all copy tasks together; an account's quota in a region is 10, which "
        "others push by, too; an index is one for each manifest",
    )
    new_repository: NewRepository = Field(
        default=NewRepository(), description="what a repository gets that is created there"
    )

    def repository(self, source_repository: str) -> str:
        """The destination's name for a source repository; injective, since a prefix is."""
        return f"{self.prefix}/{source_repository}" if self.prefix else source_repository


class Rule(_Model):
    """Selects images. A list of globs selects what one of them matches; an exclude always wins."""

    repositories: tuple[Glob, ...] = Field(
        default=("*",), min_length=1, description="globs of the source's names; `*` matches `/`, too"
    )
    exclude_repositories: tuple[Glob, ...] = Field(default=(), description="globs; not these, whatever else matches")
    tags: tuple[Glob, ...] = Field(default=("*",), min_length=1, description="globs of tags")
    exclude_tags: tuple[Glob, ...] = Field(default=(), description="globs; not these, whatever else matches")
    untagged: bool = Field(default=False, description="also images without a tag, children of indexes included")
    destinations: tuple[Name, ...] = Field(default=(), description="names of destinations; default: all")


class Network(_Model):
    """An existing network; without it the stack creates a small VPC with public subnets and no NAT."""

    vpc_id: str = Field(
        pattern=r"^vpc-([0-9a-f]{8}|[0-9a-f]{17})$", description="the stack makes a security group in it"
    )
    subnet_ids: tuple[Annotated[str, Field(pattern=r"^subnet-([0-9a-f]{8}|[0-9a-f]{17})$")], ...] = Field(
        min_length=1, description="of that VPC; the copy tasks run there, and must reach ECR, S3 and the rest"
    )
    assign_public_ip: bool = Field(default=False, description="true in public subnets without NAT")


class Deployment(_Model):
    """What needs a deployment to change; the rest of the file is read when it is needed."""

    stack_name: str = Field(
        default="ecr-relay",
        pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$",
        description="of the CloudFormation stack; its ECS cluster and SSM parameter are named after it",
    )
    account: Account | None = Field(default=None, description="where the relay runs; default: the source's")
    region: Region | None = Field(default=None, description="where the relay runs; default: the source's")
    architecture: Literal["arm64", "x86_64"] = Field(default="arm64", description="of the functions and the copier")
    reconcile_at: str = Field(default="03:00", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="daily, UTC")
    network: Network | None = Field(default=None, description="default: a small one of the stack's own")
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
    alarm_lag_minutes: int = Field(
        default=30, ge=1, le=10_080, description="a push that waits, or took, longer is an alarm"
    )

    @model_validator(mode="after")
    def _one_topic(self) -> Self:
        if self.alarm_email and self.alarm_topic_arn:
            raise ValueError("alarm_email: goes with the stack's own topic; subscribe it to alarm_topic_arn yourself")
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


class RelayConfig(_Model):
    """A whole `relay.toml`."""

    source: EcrSource = Field(description="where images come from")
    destinations: tuple[Destination, ...] = Field(min_length=1, description="where they go")
    rules: tuple[Rule, ...] = Field(
        default=(Rule(),),
        min_length=1,
        description="which; an image is copied if one rule selects it; default: one rule that selects every tag",
    )
    deployment: Deployment = Field(default=Deployment(), description="how the relay runs")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [destination.name for destination in self.destinations]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"destinations[{index}].name: {name!r} is used twice; names are unique")
        targets: dict[tuple[str, str], str] = {}
        for index, destination in enumerate(self.destinations):
            other = targets.setdefault((destination.id, destination.prefix), destination.name)
            if other != destination.name:
                raise ValueError(
                    f"destinations[{index}].prefix: {destination.name!r} and {other!r} would write the same place"
                )
        for index, rule in enumerate(self.rules):
            for name in rule.destinations:
                if name not in names:
                    raise ValueError(
                        f"rules[{index}].destinations: {name!r} is not a destination; allowed: {', '.join(names)}"
                    )
        for index, destination in enumerate(self.destinations):
            if destination.id == self.source.id:
                self._refuse_ring(index, destination)
        return self

    def _refuse_ring(self, index: int, destination: Destination) -> None:
        if not destination.prefix:
            raise ValueError(
                f"destinations[{index}].prefix: needed, since this destination is the source's own registry"
            )
        inside = destination.prefix + "/*"
        for number, rule in enumerate(self.rules):
            if not any(glob in (inside, destination.prefix + "*") for glob in rule.exclude_repositories):
                raise ValueError(
                    f"rules[{number}].exclude_repositories: must contain {inside!r}, since destination "
                    f"{destination.name!r} lies in the source's own registry"
                )

    def destination(self, name: str) -> Destination:
        """Raises KeyError when the configuration no longer has it."""
        for destination in self.destinations:
            if destination.name == name:
                return destination
        raise KeyError(name)

    def max_tasks(self, destination: Destination) -> int:
        """How many copy tasks it may have: of n destinations, n - 1 slow ones leave at least one slot to the last."""
        if destination.max_tasks is not None:
            return destination.max_tasks
        others = len(self.destinations) - 1
        return 10 if others == 0 else max(1, 9 // others)

    def to_parameter(self) -> str:
        """The text of the SSM parameter: this configuration as JSON, defaults left out."""
        text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), separators=(",", ":"), sort_keys=True)
        if len(text) > PARAMETER_LIMIT:
            raise ConfigError(
                f"configuration: {len(text)} characters as JSON; an SSM parameter holds {PARAMETER_LIMIT}"
            )
        return text

    @classmethod
    def from_parameter(cls, text: str) -> Self:
        """The inverse of `to_parameter`. Raises ConfigError."""
        return _validated(cls, text, "SSM parameter")


def parse(text: str, name: str = "relay.toml") -> RelayConfig:
    """Read a `relay.toml`. Raises ConfigError, a line a mistake; `name` is what the lines begin with."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from None
    # By way of JSON, because only there do arrays satisfy a strict tuple: "1" is no number and "yes" is no boolean.
    return _validated(RelayConfig, json.dumps(data, default=str), name)


def _validated(model: type[_M], text: str, name: str) -> _M:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        found = error.errors()
        lines = [f"{name}: {_line(model, wrong)}" for wrong in found if not _follows(wrong, found)]
        raise ConfigError("\n".join(lines)) from None


def _follows(wrong: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """Whether it only says that a list is too short, because its items have mistakes of their own."""
    location = wrong["loc"]
    return wrong["type"] == "too_short" and any(
        len(other["loc"]) > len(location) and other["loc"][: len(location)] == location for other in found
    )


def _line(model: type[BaseModel], wrong: ErrorDetails) -> str:
    location = wrong["loc"]
    path = re.sub(r"\.\[", "[", ".".join(f"[{part}]" if isinstance(part, int) else part for part in location))
    if wrong["type"] == "extra_forbidden":
        allowed = sorted(_fields(model, location[:-1]))
        close = get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{path}: unknown key; {hint}allowed: {', '.join(allowed)}"
    message = wrong["msg"].removeprefix("Value error, ")
    if wrong["type"] == "missing":
        return f"{path}: missing; this key is required"
    if wrong["type"] == "string_pattern_mismatch":
        message = f"{wrong['input']!r} does not match {wrong['ctx']['pattern']}"
    elif not path or wrong["type"] == "value_error":
        return f"{path}: {message}" if path else message
    else:
        message = f"{message[0].lower()}{message[1:]}, not {wrong['input']!r}"
    return f"{path}: {message}"


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """The keys that are allowed in the table at `location`."""
    for part in location:
        if isinstance(part, str):
            model = next(_models(model.model_fields[part].annotation))
    return set(model.model_fields)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
