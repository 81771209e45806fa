"""What a program reads from its environment, once, at its entry point.

The stack writes these environments with the same models (`environment()`), so a name is spelled in one place.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ecr_relay.errors import ConfigError

PREFIX: Final = "ECR_RELAY_"


def _split(value: object) -> object:
    return tuple(part for part in value.split(",") if part) if isinstance(value, str) else value


CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_split)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Raises ConfigError that names every variable that is missing or wrong."""
        values = {name: environ[PREFIX + name.upper()] for name in cls.model_fields if PREFIX + name.upper() in environ}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            wrong = "; ".join(f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"environment: {wrong}") from None

    def environment(self) -> dict[str, str]:
        """The inverse of `from_environment`."""
        return {
            PREFIX + name.upper(): ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in ((name, getattr(self, name)) for name in type(self).model_fields)
        }


class CommonSettings(_Settings):
    """What all three programs read."""

    stack: str = Field(min_length=1, description="name of the CloudFormation stack; the dimension of every metric")
    ledger_table: str = Field(min_length=1)
    config_parameter: str = Field(min_length=1, description="name of the SSM parameter that holds the configuration")


class ReconcileSettings(CommonSettings):
    queue_url: str = Field(min_length=1)


class ConsumerSettings(CommonSettings):
    queue_url: str = Field(min_length=1)
    cluster: str = Field(min_length=1, description="ECS cluster, by ARN")
    task_definition: str = Field(min_length=1, description="ARN, with its revision")
    container: str = Field(default="copier", min_length=1)
    subnets: CommaSeparated = Field(min_length=1)
    security_groups: CommaSeparated = Field(min_length=1)
    assign_public_ip: bool = Field(description="true in public subnets without NAT")
    supervise_seconds: int = Field(
        default=240,
        ge=1,
        le=240,
        description="how long an invocation watches its tasks; its timeout is 300 s",
    )


class CopierSettings(CommonSettings):
    """`run` comes with RunTask, as the only override; the rest is the task definition's."""

    run: str = Field(min_length=1)
