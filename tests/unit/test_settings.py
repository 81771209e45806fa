"""The environment: written by the stack and read by the programs with the same models."""

import pytest

from ecr_relay.errors import ConfigError
from ecr_relay.settings import ConsumerSettings, CopierSettings

CONSUMER = ConsumerSettings(
    stack="ecr-relay",
    ledger_table="ledger",
    config_parameter="/ecr-relay/config",
    queue_url="https://queue",
    cluster="arn:cluster",
    task_definition="arn:task:1",
    subnets=("subnet-1", "subnet-2"),
    security_groups=("sg-1",),
    assign_public_ip=True,
)


def test_what_is_written_is_read() -> None:
    assert ConsumerSettings.from_environment(CONSUMER.environment()) == CONSUMER
    assert CONSUMER.environment()["ECR_RELAY_SUBNETS"] == "subnet-1,subnet-2"


def test_other_variables_are_left_alone() -> None:
    assert (
        ConsumerSettings.from_environment(CONSUMER.environment() | {"PATH": "/bin", "ECR_RELAY_RUN": "x"}) == CONSUMER
    )


def test_every_missing_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="ECR_RELAY_CONFIG_PARAMETER: Field required; ECR_RELAY_RUN: Field required"):
        CopierSettings.from_environment({"ECR_RELAY_LEDGER_TABLE": "ledger", "ECR_RELAY_STACK": "relay"})
