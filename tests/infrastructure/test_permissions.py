"""What each role may do, to the letter; and that it is what the programs do."""

import ast
from collections import defaultdict
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from stack.bundling import ENTRY_POINTS, ROOT, SERVICES
from stack.permissions import allow
from stack.sources import reachable
from tests.infrastructure.template import Synthesized, as_list, resolved, synthesize

SOURCE = "arn:aws:ecr:us-east-1:111122223333:repository/*"
DESTINATION = "arn:aws:ecr:eu-west-1:111122223333:repository/*"
MIRROR = "arn:aws:ecr:eu-west-1:111122223333:repository/mirror/*"
CLUSTER = {"ArnEquals": {"ecs:cluster": "arn:aws:ecs:us-east-1:111122223333:cluster/shared"}}

Granted = dict[str, set[str]]


def granted(synthesized: Synthesized, part: str) -> Granted:
    """Resources by action; a condition is part of the resource, as text."""
    found: Granted = defaultdict(set)
    for statement in resolved(synthesized.statements(part)):
        assert statement["Effect"] == "Allow"
        condition = f" if {statement['Condition']}" if "Condition" in statement else ""
        for action in as_list(statement["Action"]):
            found[action] |= {resource + condition for resource in as_list(statement["Resource"])}
    return dict(found)


def ecr(of: Granted) -> Granted:
    return {action: resources for action, resources in of.items() if action.startswith("ecr:")}


def common(synthesized: Synthesized) -> Granted:
    """What all three may do: read and write the ledger, read the configuration."""
    [table] = synthesized.resources("AWS::DynamoDB::Table")
    [parameter] = synthesized.resources("AWS::SSM::Parameter")
    actions = ("BatchGetItem", "DeleteItem", "GetItem", "PutItem", "UpdateItem")
    return {f"dynamodb:{action}": {f"<{table}.Arn>"} for action in actions} | {
        "dynamodb:Query": {f"<{table}.Arn>", f"<{table}.Arn>/index/by-state"},
        "ssm:GetParameter": {f"arn:aws:ssm:us-east-1:111122223333:parameter<{parameter}>"},
    }


def logs(synthesized: Synthesized, part: str) -> Granted:
    name, _ = synthesized.one("AWS::Logs::LogGroup", part)
    return {action: {f"<{name}.Arn>"} for action in ("logs:CreateLogStream", "logs:PutLogEvents")}


def test_of_the_consumer(existing: Synthesized) -> None:
    queue = f"<{existing.output('QueueUrl')['Ref']}.Arn>"
    roles = {f"<{existing.one('AWS::IAM::Role', f'Copier{name}')[0]}.Arn>" for name in ("TaskRole", "ExecutionRole")}
    task = "arn:aws:ecs:us-east-1:111122223333:task/shared/*"
    definition = "arn:aws:ecs:us-east-1:111122223333:task-definition/ecr-relay-copier:*"
    calls = ("ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes", "ReceiveMessage", "SendMessage")
    to_tasks = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    assert granted(existing, "Consumer") == common(existing) | logs(existing, "Consumer") | {
        f"sqs:{call}": {queue} for call in calls
    } | {
        "events:PutEvents": {"arn:aws:events:us-east-1:111122223333:event-bus/default"},
        "ecs:RunTask": {f"{definition} if {CLUSTER}"},
        "ecs:DescribeTasks": {f"{task} if {CLUSTER}"},
        "ecs:StopTask": {f"{task} if {CLUSTER}"},
        "ecs:ListTasks": {f"* if {CLUSTER}"},
        "ecs:TagResource": {f"{task} if {{'StringEquals': {{'ecs:CreateAction': 'RunTask'}}}}"},
        "iam:PassRole": {f"{role} if {to_tasks}" for role in roles},
        "ecr:BatchGetImage": {SOURCE, MIRROR},
        "ecr:PutImage": {MIRROR},
    }


def test_of_the_reconcile(existing: Synthesized) -> None:
    queue = f"<{existing.output('QueueUrl')['Ref']}.Arn>"
    assert granted(existing, "Reconcile") == common(existing) | logs(existing, "Reconcile") | {
        "sqs:GetQueueAttributes": {queue},
        "sqs:SendMessage": {queue},
        "ecr:BatchGetImage": {SOURCE, MIRROR},
        "ecr:ListImages": {SOURCE, MIRROR},
        "ecr:DescribeRepositories": {SOURCE, DESTINATION},
    }


def test_of_the_copiers_task(existing: Synthesized) -> None:
    both = ("BatchCheckLayerAvailability", "BatchGetImage", "DescribeRepositories", "GetDownloadUrlForLayer")
    only_destination = (
        "CompleteLayerUpload",
        "CreateRepository",
        "DescribeImages",
        "InitiateLayerUpload",
        "PutImage",
        "PutLifecyclePolicy",
        "TagResource",
        "UploadLayerPart",
    )
    assert granted(existing, "CopierTaskRole") == common(existing) | {
        f"ecr:{action}": {SOURCE, MIRROR} for action in both
    } | {f"ecr:{action}": {MIRROR} for action in only_destination} | {"ecr:GetAuthorizationToken": {"*"}}


def test_of_the_copiers_execution(existing: Synthesized) -> None:
    image = "arn:aws:ecr:us-east-1:111122223333:repository/cdk-hnb659fds-container-assets-111122223333-us-east-1"
    pull = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")
    assert granted(existing, "CopierExecutionRole") == logs(existing, "Copier") | {
        f"ecr:{action}": {image} for action in pull
    } | {"ecr:GetAuthorizationToken": {"*"}}


def test_the_task_role_is_for_tasks_of_this_account_and_region(existing: Synthesized) -> None:
    _, role = existing.one("AWS::IAM::Role", "CopierTaskRole")
    [statement] = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": "111122223333"},
        "ArnLike": {"aws:SourceArn": "arn:aws:ecs:us-east-1:111122223333:*"},
    }


def test_a_registry_with_credentials_is_reached_with_those_alone(out: Path) -> None:
    role = "arn:aws:iam::444455556666:role/relay"
    secret = "arn:aws-cn:secretsmanager:us-east-1:111122223333:secret:china-AbCdEf"
    synthesized = synthesize(
        f"""
        [source]
        account = "111122223333"
        region = "us-east-1"
        credentials = {{ role_arn = "{role}", external_id = "relay" }}
        [[destinations]]
        name = "china"
        account = "111122223333"
        region = "cn-north-1"
        credentials = {{ secret_arn = "{secret}" }}
        new_repository = {{ kms_key = "arn:aws-cn:kms:cn-north-1:111122223333:key/1" }}
        """,
        out,
    )
    for part in ("Consumer", "Reconcile", "CopierTaskRole"):
        found = granted(synthesized, part)
        assert not ecr(found)
        assert found["sts:AssumeRole"] == {role}
        assert found["secretsmanager:GetSecretValue"] == {secret}
        assert not [action for action in found if action.startswith("kms:")]


def test_another_partition_and_a_key_for_new_repositories(out: Path) -> None:
    key = "arn:aws-cn:kms:cn-north-1:111122223333:key/1"
    synthesized = synthesize(
        f"""
        [source]
        account = "111122223333"
        region = "cn-northwest-1"
        [[destinations]]
        name = "north"
        account = "111122223333"
        region = "cn-north-1"
        new_repository = {{ kms_key = "{key}" }}
        """,
        out,
    )
    copier = granted(synthesized, "CopierTaskRole")
    assert copier["ecr:PutImage"] == {"arn:aws-cn:ecr:cn-north-1:111122223333:repository/*"}
    assert [copier[f"kms:{call}"] for call in ("CreateGrant", "DescribeKey", "RetireGrant")] == [{key}] * 3
    assert not [action for action in granted(synthesized, "Consumer") if action.startswith("kms:")]
    assert "arn:aws:" not in synthesized.path.read_text(encoding="utf-8")


def test_a_wildcard_takes_a_reason() -> None:
    role: Any = None  # it does not come so far
    with pytest.raises(ValueError, match=r"team/\*: a wildcard needs a reason"):
        allow(role, ["ecr:PutImage"], "arn:aws:ecr:us-east-1:111122223333:repository/team/*")


# What the programs do, read from their source: every method of a client, by name.


def calls(entry_points: tuple[str, ...], *services: str) -> set[str]:
    """IAM actions of the AWS operations whose method names occur in the modules that an entry point imports."""
    operations: dict[str, str] = {}
    session = botocore.session.get_session()
    for service in services:
        model = session.get_service_model(service)
        operations |= {xform_name(name): f"{service}:{name}" for name in model.operation_names}
    found = set()
    for path in reachable(ROOT, entry_points):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in operations:
                found.add(operations[node.attr])
            if isinstance(node, ast.Constant) and node.value in operations:  # a paginator's or a waiter's
                found.add(operations[node.value])
    return {action.removesuffix("Batch") for action in found}  # IAM knows a batch of messages as many


@pytest.mark.parametrize(("part", "entry_point"), list(zip(("Consumer", "Reconcile"), ENTRY_POINTS, strict=True)))
def test_no_call_that_the_role_may_not_make(existing: Synthesized, part: str, entry_point: str) -> None:
    # Not SQS for the reconcile: it sends by a module that can do what the consumer needs as well.
    services = ("dynamodb", "ssm") if part == "Reconcile" else ("dynamodb", "ecs", "events", "sqs", "ssm")
    made = calls((entry_point,), *services)
    assert made
    assert made <= set(granted(existing, part))


def test_no_call_to_ecr_that_no_role_may_make(existing: Synthesized) -> None:
    # Modules are shared, so which program makes a call is not to be read from its imports.
    made = calls((*ENTRY_POINTS, "ecr_relay.copy.__main__"), "ecr")
    assert made
    roles = ("Consumer", "Reconcile", "CopierTaskRole")
    assert made <= {action for part in roles for action in granted(existing, part)}


def test_services_that_the_policies_name_are_those_of_the_asset(existing: Synthesized) -> None:
    named = {action.partition(":")[0] for part in ("Consumer", "Reconcile") for action in granted(existing, part)}
    assert named - {"iam", "logs"} <= set(SERVICES)
