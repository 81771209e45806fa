"""Each variant is synthesized once; CDK's first synthesis in a process takes seconds, a further one half of one."""

from pathlib import Path

import pytest

from stack.bundling import ROOT
from tests.infrastructure.template import Synthesized, synthesize

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


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "cdk.out"
