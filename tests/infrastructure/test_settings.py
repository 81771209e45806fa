"""Every environment variable in the template is one that the program reads, and none is missing."""

import pytest

from ecr_relay.settings import CommonSettings, ConsumerSettings, CopierSettings, ReconcileSettings
from tests.infrastructure.template import Synthesized, resolved


@pytest.mark.parametrize("variant", ["example", "existing"])
@pytest.mark.parametrize(("part", "model"), [("Consumer", ConsumerSettings), ("Reconcile", ReconcileSettings)])
def test_of_the_functions(request: pytest.FixtureRequest, variant: str, part: str, model: type[CommonSettings]) -> None:
    synthesized: Synthesized = request.getfixturevalue(variant)
    _, function = synthesized.one("AWS::Lambda::Function", part)
    environment = resolved(function["Environment"]["Variables"])
    assert model.from_environment(environment).environment() == environment


def test_of_the_copier_but_for_what_run_task_adds(example: Synthesized) -> None:
    _, task = example.one("AWS::ECS::TaskDefinition")
    [container] = task["ContainerDefinitions"]
    environment = {pair["Name"]: resolved(pair["Value"]) for pair in container["Environment"]}
    complete = environment | {"ECR_RELAY_RUN": "run-1"}
    assert CopierSettings.from_environment(complete).environment() == complete
    assert "ECR_RELAY_RUN" not in environment


def test_values_are_this_stacks(example: Synthesized) -> None:
    _, function = example.one("AWS::Lambda::Function", "Consumer")
    settings = ConsumerSettings.from_environment(resolved(function["Environment"]["Variables"]))
    _, task = example.one("AWS::ECS::TaskDefinition")
    assert settings.queue_url == resolved(example.output("QueueUrl"))
    assert settings.ledger_table == resolved(example.output("LedgerTable"))
    assert settings.config_parameter == resolved(example.output("ConfigParameter"))
    assert settings.cluster == resolved(example.output("Cluster"))
    assert settings.task_definition == resolved(example.output("TaskDefinition"))
    assert settings.container == task["ContainerDefinitions"][0]["Name"]
    assert set(settings.subnets) == {f"<{name}>" for name in example.resources("AWS::EC2::Subnet")}
    assert settings.assign_public_ip


def test_of_an_existing_network_are_what_the_configuration_says(existing: Synthesized) -> None:
    _, function = existing.one("AWS::Lambda::Function", "Consumer")
    settings = ConsumerSettings.from_environment(resolved(function["Environment"]["Variables"]))
    assert settings.subnets == ("subnet-0123456789abcdef0", "subnet-0123456789abcdef1")
    assert not settings.assign_public_ip
    assert settings.cluster == "arn:aws:ecs:us-east-1:111122223333:cluster/shared"
