"""Each variant is synthesized once; CDK's first synthesis in a process takes seconds, a further one half of one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.bundling import ROOT
from tests.infrastructure.template import Synthesized, synthesize
from tests.integration.conftest import DockerRegistry

BASE = """
source = { account = "111122223333", region = "us-east-1" }
destinations = [{ name = "europe", account = "111122223333", region = "eu-west-1", prefix = "mirror" }]
"""


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """relay.example.toml as it is, for Lambda: what `make synth` writes for who has no relay.toml."""
    toml = (ROOT / "relay.example.toml").read_text(encoding="utf-8")
    return synthesize(toml, tmp_path_factory.mktemp("example"), "lambda")


@pytest.fixture(scope="session")
def example_local(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """The same for the local cloud."""
    toml = (ROOT / "relay.example.toml").read_text(encoding="utf-8")
    return synthesize(toml, tmp_path_factory.mktemp("example_local"), "local")


@pytest.fixture(scope="session")
def x86(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    toml = BASE + 'deployment = { architecture = "x86_64" }'
    return synthesize(toml, tmp_path_factory.mktemp("x86"), "lambda")


@pytest.fixture(scope="session")
def existing(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """In a network and on a cluster that are there already."""
    deployment = """
        [deployment]
        cluster = "shared"
        [deployment.network]
        vpc_id = "vpc-0123456789abcdef0"
        subnet_ids = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
    """
    return synthesize(BASE + deployment, tmp_path_factory.mktemp("existing"))


FAR = """
[source]
account = "444455556666"
region = "us-west-2"
replicas = true
pull_through = true
[[destinations]]
name = "europe"
account = "111122223333"
region = "eu-west-1"
[deployment]
account = "111122223333"
region = "us-east-1"
"""
"""A relay in another account and region than its source."""


@pytest.fixture(scope="session")
def far(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """The relay of FAR."""
    return synthesize(FAR, tmp_path_factory.mktemp("far"))


@pytest.fixture(scope="session")
def forwarder(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """What forwards it the pushes."""
    # It has no function, so that who deploys it needs no certificate.
    return synthesize(FAR + 'ca_bundle = "absent.pem"', tmp_path_factory.mktemp("forwarder"), forwarder=True)


@pytest.fixture(scope="session")
def oci(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """From a registry that is not ECR, with a login."""
    toml = """
    [source]
    type = "oci"
    host = "quay.io"
    poll_minutes = 15
    [[destinations]]
    name = "europe"
    account = "111122223333"
    region = "eu-west-1"
    target = "quay/{repository}"
    [source.credentials]
    secret_arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:quay-AbCdEf"
    kms_key_arn = "arn:aws:kms:eu-west-1:111122223333:key/0a1b2c3d"
    [[rules]]
    repositories = ["team/app"]
    """
    return synthesize(toml, tmp_path_factory.mktemp("oci"))


@pytest.fixture(scope="session")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A registry that speaks TLS, with a certificate that no public authority has signed."""
    registry = DockerRegistry(tmp_path_factory.mktemp("company") / "registry", tls=True)
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory, company: DockerRegistry) -> Synthesized:
    """With what asks for permissions, and functions in a private network behind a proxy that signs by itself."""
    toml = """
    [source]
    account = "111122223333"
    region = "us-east-1"
    [[destinations]]
    name = "europe"
    account = "111122223333"
    region = "eu-west-1"
    target = "hub/{repository}/mirror"
    [destinations.new_repository]
    lifecycle_policy = '{"rules": [{"rulePriority": 1, "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 14}, "action": {"type": "expire"}}]}'
    repository_policy = '{"Version": "2012-10-17", "Statement": []}'
    tags = { owner = "platform" }
    [[rules]]
    deletes = "propagate"
    [deployment]
    https_proxy = "http://proxy.example.com:3128"
    no_proxy = [".amazonaws.com", "registry.example.com"]
    ca_bundle = "registry/certificate.pem"
    [deployment.network]
    vpc_id = "vpc-0123456789abcdef0"
    subnet_ids = ["subnet-0123456789abcdef0"]
    functions = true
    """  # noqa: E501 - one policy, one line
    return synthesize(toml, tmp_path_factory.mktemp("full"), file=company.folder.with_name("relay.toml"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "cdk.out"
