"""What each role may do, to the letter; and that it is what the programs do."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from stack.bundling import SERVICES
from stack.permissions import allow
from tests.infrastructure.calls import calls
from tests.infrastructure.template import Synthesized, as_list, resolved, synthesize

SOURCE = "arn:aws:ecr:us-east-1:111122223333:repository/*"
MIRROR = "arn:aws:ecr:eu-west-1:111122223333:repository/mirror/*"
CLUSTER = {"ArnEquals": {"ecs:cluster": "arn:aws:ecs:us-east-1:111122223333:cluster/shared"}}

ROLES = {
    "Consumer": "handlers.consumer",
    "Reconcile": "handlers.reconcile",
    "CopierTaskRole": "ecr_relay.copy.__main__",
}

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


def common(synthesized: Synthesized, *more: str) -> Granted:
    """What all three may do: read and write the ledger, read the configuration; and, of the ledger, what one may do
    more."""
    [table] = synthesized.resources("AWS::DynamoDB::Table")
    [parameter] = synthesized.resources("AWS::SSM::Parameter")
    actions = ("GetItem", "PutItem", "Query", "UpdateItem", *more)
    return {f"dynamodb:{action}": {f"<{table}.Arn>"} for action in actions} | {
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
        "ecr:DescribeImages": {SOURCE},
        "ecr:PutImage": {MIRROR},
    }


def test_of_the_reconcile(existing: Synthesized) -> None:
    queue = f"<{existing.output('QueueUrl')['Ref']}.Arn>"
    assert granted(existing, "Reconcile") == common(existing, "BatchGetItem", "DeleteItem") | logs(
        existing, "Reconcile"
    ) | {
        "sqs:GetQueueAttributes": {queue},
        "sqs:SendMessage": {queue},
        "ecr:BatchGetImage": {SOURCE},
        "ecr:DescribeImages": {SOURCE},
        "ecr:DescribeRepositories": {SOURCE, MIRROR},
        "ecr:ListImages": {MIRROR},
    }


def test_of_the_copiers_task(existing: Synthesized) -> None:
    both = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")
    only_destination = (
        "CompleteLayerUpload",
        "CreateRepository",
        "DescribeRepositories",
        "InitiateLayerUpload",
        "PutImage",
        "UploadLayerPart",
    )
    assert granted(existing, "CopierTaskRole") == common(existing) | {
        f"ecr:{action}": {SOURCE, MIRROR} for action in both
    } | {f"ecr:{action}": {MIRROR} for action in only_destination} | {
        "ecr:DescribeImages": {SOURCE},
        "ecr:GetAuthorizationToken": {"*"},
    }


def test_what_only_some_configurations_ask_for(existing: Synthesized, full: Synthesized) -> None:
    """And only of who does it, and only where."""
    there = "arn:aws:ecr:eu-west-1:111122223333:repository/hub/*/mirror"
    more = {
        part: {
            action: resources
            for action, resources in ecr(granted(full, part)).items()
            if any("/mirror" in resource for resource in resources) and action not in granted(existing, part)
        }
        for part in ROLES
    }
    policies = ("ListTagsForResource", "PutLifecyclePolicy", "SetRepositoryPolicy", "TagResource", "UntagResource")
    assert more == {
        "Consumer": {},
        "Reconcile": {"ecr:BatchDeleteImage": {there}},
        "CopierTaskRole": {f"ecr:{action}": {there} for action in policies},
    }
    assert granted(full, "Reconcile")["ecr:BatchGetImage"] == {SOURCE, there}


def test_from_a_registry_that_is_not_ecr(oci: Synthesized) -> None:
    secret = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:quay-AbCdEf"
    key = "arn:aws:kms:eu-west-1:111122223333:key/0a1b2c3d"
    only = {"StringEquals": {"kms:EncryptionContext:SecretARN": secret}}
    for part in ROLES:
        found = granted(oci, part)
        assert found["secretsmanager:GetSecretValue"] == {secret}
        assert found["kms:Decrypt"] == {f"{key} if {only}"}
        there = "arn:aws:ecr:eu-west-1:111122223333:repository/quay/*"
        assert {resource for resources in ecr(found).values() for resource in resources} <= {there, "*"}


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


# What the programs do, read from their source.

PROGRAMS = pytest.mark.parametrize(("part", "entry_point"), list(ROLES.items()))

SKOPEO = {
    "ecr:BatchCheckLayerAvailability",
    "ecr:CompleteLayerUpload",
    "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
}
"""What IAM asks for where skopeo speaks the distribution protocol (ECR user guide, pushing an image)."""

ELSEWHERE = {
    "Consumer": {
        "dynamodb:DeleteItem",  # `forget` is what digests have, and of tags only the reconcile forgets
        "ecr:GetAuthorizationToken",  # the registry's property `host` may ask for it, and is the copier's
    },
    "Reconcile": {"ecr:GetAuthorizationToken"},
    "CopierTaskRole": {"dynamodb:DeleteItem"},
}
"""What a name says that a program comes to, and it does not."""


@PROGRAMS
def test_no_call_that_the_role_may_not_make(full: Synthesized, part: str, entry_point: str) -> None:
    made = calls(entry_point, "ecr", "dynamodb", "ecs", "events", "sqs", "ssm")
    assert len({action.partition(":")[0] for action in made}) >= 3
    assert made - ELSEWHERE[part] <= set(granted(full, part))


@PROGRAMS
def test_no_call_that_the_role_may_make_and_the_program_does_not(
    full: Synthesized, part: str, entry_point: str
) -> None:
    made = calls(entry_point, "ecr", "dynamodb", "events", "ssm")
    services = {action.partition(":")[0] for action in made}
    allowed = {action for action in granted(full, part) if action.partition(":")[0] in services}
    # TagResource comes with CreateRepository.
    skopeo = SKOPEO | {"ecr:TagResource"} if part == "CopierTaskRole" else set()
    assert allowed <= made | skopeo


@PROGRAMS
def test_what_is_said_to_be_elsewhere_is_no_lie(part: str, entry_point: str) -> None:
    assert ELSEWHERE[part] <= calls(entry_point, "ecr", "dynamodb")


def test_services_that_the_policies_name_are_those_of_the_asset(existing: Synthesized) -> None:
    named = {action.partition(":")[0] for part in ("Consumer", "Reconcile") for action in granted(existing, part)}
    assert named - {"iam", "logs"} <= set(SERVICES)
