"""What must not be in the template."""

import json
import re

import pytest

from stack.bundling import ROOT
from tests.infrastructure.template import Json, Synthesized, as_list, resolved, strings

INTERFACES = ",".join(
    f"ec2:{call}"
    for call in (
        "AssignPrivateIpAddresses",
        "CreateNetworkInterface",
        "DeleteNetworkInterface",
        "DescribeNetworkInterfaces",
        "DescribeSubnets",
        "UnassignPrivateIpAddresses",
    )
)
_WITH_EVENTS = ["example", "example_local", "x86", "existing", "far", "full"]
VARIANTS = pytest.mark.parametrize("variant", [*_WITH_EVENTS, "oci"])
WITH_EVENTS = pytest.mark.parametrize("variant", _WITH_EVENTS)
"""Of a source without events the queue for those that were not delivered stays empty, and nothing names it."""


@pytest.fixture
def synthesized(request: pytest.FixtureRequest, variant: str) -> Synthesized:
    found: Synthesized = request.getfixturevalue(variant)
    return found


def dead_letter_queues(synthesized: Synthesized) -> set[str]:
    """Logical ids of the queues that something names as its dead-letter queue."""
    found = set()
    for queue in synthesized.resources("AWS::SQS::Queue").values():
        if "RedrivePolicy" in queue:
            found.add(queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0])
    for rule in synthesized.resources("AWS::Events::Rule").values():
        for target in rule["Targets"]:
            if "DeadLetterConfig" in target:
                found.add(target["DeadLetterConfig"]["Arn"]["Fn::GetAtt"][0])
    return found


def alarms(synthesized: Synthesized, metric: str) -> set[str]:
    """What the alarms on a metric watch, by the value of their one dimension."""
    found = set()
    for alarm in synthesized.resources("AWS::CloudWatch::Alarm").values():
        if alarm.get("MetricName") == metric:
            assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
            assert alarm["Threshold"] == 0
            [dimension] = alarm["Dimensions"]
            found.add(resolved(dimension["Value"]))
    return found


@WITH_EVENTS
def test_no_queue_without_a_dead_letter_queue(synthesized: Synthesized) -> None:
    queues = synthesized.resources("AWS::SQS::Queue")
    dead = dead_letter_queues(synthesized)
    assert dead <= set(queues)
    assert {name for name, queue in queues.items() if "RedrivePolicy" not in queue} == dead


@WITH_EVENTS
def test_no_dead_letter_queue_without_an_alarm(synthesized: Synthesized) -> None:
    dead = {f"<{name}.QueueName>" for name in dead_letter_queues(synthesized)}
    assert len(dead) == 2
    assert alarms(synthesized, "ApproximateNumberOfMessagesVisible") == dead


@VARIANTS
def test_no_function_without_an_alarm_a_log_group_and_a_role_of_its_own(synthesized: Synthesized) -> None:
    functions = synthesized.resources("AWS::Lambda::Function")
    assert alarms(synthesized, "Errors") == {f"<{name}>" for name in functions}
    assert len({function["LoggingConfig"]["LogGroup"]["Ref"] for function in functions.values()}) == len(functions)
    assert len({function["Role"]["Fn::GetAtt"][0] for function in functions.values()}) == len(functions)


@VARIANTS
def test_no_log_that_is_kept_for_ever(synthesized: Synthesized) -> None:
    groups = synthesized.resources("AWS::Logs::LogGroup")
    assert len(groups) == 3
    assert all(group["RetentionInDays"] for group in groups.values())


@VARIANTS
def test_no_ingress(synthesized: Synthesized) -> None:
    assert not synthesized.resources("AWS::EC2::SecurityGroupIngress")
    for group in synthesized.resources("AWS::EC2::SecurityGroup").values():
        assert "SecurityGroupIngress" not in group
    kinds = {resource["Type"] for resource in synthesized.body["Resources"].values()}
    assert not {kind for kind in kinds if kind.startswith(("AWS::ApiGateway", "AWS::ElasticLoadBalancing"))}
    assert "AWS::Lambda::Url" not in kinds


@VARIANTS
def test_no_stranger_among_principals(synthesized: Synthesized) -> None:
    documents: list[Json] = []
    for role in synthesized.resources("AWS::IAM::Role").values():
        documents.append(role["AssumeRolePolicyDocument"])
        assert "ManagedPolicyArns" not in role
    documents += [policy["PolicyDocument"] for policy in synthesized.resources("AWS::SQS::QueuePolicy").values()]
    for document in documents:
        for statement in document["Statement"]:
            if statement["Effect"] == "Allow":
                assert set(statement["Principal"]) == {"Service"}, statement
    for permission in synthesized.resources("AWS::Lambda::Permission").values():
        assert permission["Principal"] == "events.amazonaws.com"
        assert permission["SourceArn"]


@VARIANTS
def test_no_queue_without_transport_encryption(synthesized: Synthesized) -> None:
    refusing = set()
    for policy in synthesized.resources("AWS::SQS::QueuePolicy").values():
        for statement in policy["PolicyDocument"]["Statement"]:
            if statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}:
                refusing |= {queue["Ref"] for queue in policy["Queues"]}
    assert refusing == set(synthesized.resources("AWS::SQS::Queue"))


@VARIANTS
def test_no_wildcard_but_these(synthesized: Synthesized, variant: str) -> None:
    """What each is for stands beside it in stack/permissions.py and stack/copier.py, or CDK would not have built it."""
    found = set()
    for policy in synthesized.resources("AWS::IAM::Policy").values():
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = as_list(statement["Action"])
            assert not [action for action in actions if "*" in action]
            for resource in resolved(as_list(statement["Resource"])):
                if "*" in resource:
                    service = actions[0].partition(":")[0]
                    _, _, _, _, _, kind = resource.split(":", 5) if resource != "*" else ("",) * 5 + ("*",)
                    found.add((service, kind.partition("/")[0], ",".join(actions) if kind == "*" else ""))
    assert found == {
        ("ecr", "repository", ""),
        ("ecr", "*", "ecr:GetAuthorizationToken"),
        ("ecs", "task", ""),
        ("ecs", "task-definition", ""),
        ("ecs", "*", "ecs:ListTasks"),
    } | ({("ec2", "*", INTERFACES)} if variant == "full" else set())


@VARIANTS
def test_no_arn_that_spans_accounts_or_regions(synthesized: Synthesized) -> None:
    for policy in synthesized.resources("AWS::IAM::Policy").values():
        for text in strings(policy["PolicyDocument"]):
            if text.startswith("arn:") and text.count(":") >= 5:
                _, partition, service, region, account, _ = text.split(":", 5)
                assert "*" not in partition + service + region + account, text


@VARIANTS
def test_no_secret_in_the_clear(synthesized: Synthesized) -> None:
    text = synthesized.path.read_text(encoding="utf-8")
    assert not re.search(r"(AKIA|ASIA)[A-Z0-9]{16}", text)
    assert not synthesized.resources("AWS::SecretsManager::Secret")
    variables: list[str] = []
    for function in synthesized.resources("AWS::Lambda::Function").values():
        variables += function["Environment"]["Variables"]
    for task in synthesized.resources("AWS::ECS::TaskDefinition").values():
        variables += [pair["Name"] for pair in task["ContainerDefinitions"][0]["Environment"]]
    assert not [name for name in variables if re.search(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|ACCESS_KEY", name)]


@VARIANTS
def test_no_function_but_ours_and_no_custom_resource(synthesized: Synthesized) -> None:
    handlers = {function["Handler"] for function in synthesized.resources("AWS::Lambda::Function").values()}
    assert handlers == {"handlers.consumer.handler", "handlers.reconcile.handler"}
    kinds = {resource["Type"] for resource in synthesized.body["Resources"].values()}
    assert not {kind for kind in kinds if not kind.startswith("AWS::")}
    assert not {kind for kind in kinds if kind.startswith(("AWS::CDK::", "AWS::CloudFormation::"))}


@VARIANTS
def test_nothing_to_ask_aws_for_and_nothing_of_this_machine(synthesized: Synthesized) -> None:
    manifest = json.loads((synthesized.out / "manifest.json").read_text(encoding="utf-8"))
    assert "missing" not in manifest
    assert "Parameters" not in synthesized.body
    for path in synthesized.out.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text, path.name
        assert "jsii-kernel" not in text, path.name
