"""`relay.toml`: one file, read by the stack and, through an SSM parameter, by every function. Pure.

    text --parse--> RelayConfig --to_parameter--> SSM --from_parameter--> RelayConfig

Every error is one line that names the key by its path and says what is allowed there.
"""

import json
import tomllib
from typing import Annotated, Any, Final, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ecr_relay.config.base import Table
from ecr_relay.config.consistency import check
from ecr_relay.config.deployment import FARGATE_MEMORY_MIB, Deployment, Network
from ecr_relay.config.reading import validated
from ecr_relay.config.registries import (
    DOCKER_HUB,
    Credentials,
    Destination,
    EcrRegistry,
    EcrSource,
    NewRepository,
    OciSource,
    RegistryLogin,
)
from ecr_relay.config.selection import Rule, expression, image_list
from ecr_relay.errors import ConfigError

__all__ = [
    "DOCKER_HUB",
    "FARGATE_MEMORY_MIB",
    "Credentials",
    "Deployment",
    "Destination",
    "EcrRegistry",
    "EcrSource",
    "Network",
    "NewRepository",
    "OciSource",
    "RegistryLogin",
    "RelayConfig",
    "Rule",
    "Source",
    "expression",
    "image_list",
    "parse",
]

PARAMETER_LIMIT: Final = 8192
"""Characters that an advanced SSM parameter holds (AWS Systems Manager quotas)."""


def _kind(source: Any) -> str:
    """ECR unless it says otherwise."""
    return source.get("type", "ecr") if isinstance(source, dict) else getattr(source, "type", "ecr")


Source = Annotated[Annotated[EcrSource, Tag("ecr")] | Annotated[OciSource, Tag("oci")], Discriminator(_kind)]


class RelayConfig(Table):
    """A whole `relay.toml`."""

    source: Source = Field(description="where images come from")
    destinations: tuple[Destination, ...] = Field(min_length=1, description="where they go")
    rules: tuple[Rule, ...] = Field(
        default=(Rule(),),
        min_length=1,
        description="which; an image is copied if one rule selects it; default: one rule that selects every tag",
    )
    deployment: Deployment = Field(default=Deployment(), description="how the relay runs")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check(self)
        return self

    @property
    def home(self) -> tuple[str, str]:
        """Account and region that the relay runs in: as said, else the source's, else the first destination's."""
        there = self.source if isinstance(self.source, EcrSource) else self.destinations[0]
        return self.deployment.account or there.account, self.deployment.region or there.region

    def destination(self, name: str) -> Destination:
        """Raises KeyError when the configuration no longer has it."""
        for destination in self.destinations:
            if destination.name == name:
                return destination
        raise KeyError(name)

    def deletes_at(self, destination: Destination) -> bool:
        """Whether a rule has what the source lost removed there, too."""
        return any(
            rule.deletes == "propagate" and (not rule.destinations or destination.name in rule.destinations)
            for rule in self.rules
        )

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
        return validated(cls, text, "SSM parameter")


def parse(text: str, name: str = "relay.toml") -> RelayConfig:
    """Read a `relay.toml`. Raises ConfigError, a line a mistake; `name` is what the lines begin with."""
    try:
        data = tomllib.loads(text.removeprefix("\ufeff"))  # which Windows editors begin a file with
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from None
    # By way of JSON, because only there do arrays satisfy a strict tuple: "1" is no number and "yes" is no boolean.
    return validated(RelayConfig, json.dumps(data, default=str), name)
