"""The whole relay on this machine, started once for all tests of this folder."""

from collections.abc import Iterator

import pytest

from local.deploy import Clients
from local.up import LocalCloud, local_cloud


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """`ecr-relay local up` with its own configuration: a source registry, and the destination `west`."""
    with local_cloud(tmp_path_factory.mktemp("local") / "state") as running:
        yield running
        running.check()  # whatever the tests did, nothing of it has crashed


@pytest.fixture(scope="session")
def clients(cloud: LocalCloud) -> Clients:
    """boto3 clients of the relay's account and region: `clients("sqs")`."""
    return cloud.clients


@pytest.fixture(scope="session")
def west(cloud: LocalCloud) -> Clients:
    """boto3 clients of the destination's account and region."""
    destination = cloud.config.destination("west")
    return cloud.servers.at((destination.account, destination.region))
