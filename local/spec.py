"""What `up` tells the server process: registries and ports. Standard library only, for both interpreters."""

import json
from dataclasses import asdict, dataclass
from typing import Final, Self

WARM_PATH: Final = "/_local/warm/"
"""On the API's port, followed by the name of a function: starts it without invoking it."""

TRUST: Final = frozenset({"AWS_CA_BUNDLE", "SSL_CERT_FILE"})
"""Variables that name a file in the image or in Lambda. Functions and tasks here believe whom this machine believes."""


@dataclass(frozen=True, slots=True)
class Registry:
    """One ECR private registry (an account in a region) on a loopback port of its own."""

    account: str
    region: str
    port: int
    create_on_push: bool = False
    """As with an ECR repository creation template that is applied for CREATE_ON_PUSH."""
    told_port: int | None = None
    """The port that ECR's answers name instead: a proxy's, before this one."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def told_host(self) -> str:
        return f"127.0.0.1:{self.told_port or self.port}"

    @property
    def aws_host(self) -> str:
        """The name that AWS would give it; MiniStack finds account and region by it."""
        return f"{self.account}.dkr.ecr.{self.region}.amazonaws.com"


@dataclass(frozen=True, slots=True)
class CloudSpec:
    """Everything that `local.cloud` needs. `listen` holds inherited, listening sockets: no port is raced for."""

    api_port: int
    registries: tuple[Registry, ...]
    listen: tuple[int, ...]
    docker_host: str
    log_dir: str
    default_account: str = "000000000000"
    default_region: str = "us-east-1"
    told_api_port: int | None = None
    """The API's port for functions and tasks, where it is another: a proxy's, before the API."""
    corrected: bool = True
    """False shows MiniStack as it is: only for the tests that assert its gaps."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        values["registries"] = tuple(Registry(**registry) for registry in values["registries"])
        values["listen"] = tuple(values["listen"])
        return cls(**values)
