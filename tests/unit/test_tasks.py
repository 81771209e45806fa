"""Fargate tasks by ECS: what RunTask's answers, and the ways in which a task ends, are to the relay.

The answers are in the words of ECS's API reference, its developer guide ("Stopped task error messages", "API failure
reasons") and of public issues.
"""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError
from botocore.stub import Stubber

from ecr_relay.settings import ConsumerSettings
from ecr_relay.tasks import LEASE_OVER, LaunchRefused, LaunchUnknown, Tasks
from tests.unit.conftest import REGION

ARN = f"arn:aws:ecs:{REGION}:123456789012:task/relay/0123"
SETTINGS = ConsumerSettings.model_validate(
    {
        "stack": "relay",
        "ledger_table": "ledger",
        "config_parameter": "/relay/config",
        "queue_url": "https://sqs/copy",
        "cluster": "relay",
        "task_definition": "copier:7",
        "subnets": ("subnet-1", "subnet-2"),
        "security_groups": ("sg-1",),
        "assign_public_ip": False,
    }
)


class Ecs:
    """`tasks` over a client whose next answers the test says."""

    def __init__(self) -> None:
        client = boto3.client("ecs", region_name=REGION, config=Config(retries={"total_max_attempts": 1}))
        self.tasks = Tasks(client, SETTINGS)
        self.stub = Stubber(client)
        self.events = client.meta.events


@pytest.fixture
def ecs() -> Iterator[Ecs]:
    ecs = Ecs()
    with ecs.stub:
        yield ecs
    ecs.stub.assert_no_pending_responses()


def test_a_launch_says_nothing_but_the_run(ecs: Ecs) -> None:
    asked: dict[str, Any] = {}
    ecs.events.register("provide-client-params.ecs.RunTask", lambda params, **_: asked.update(params))
    ecs.stub.add_response("run_task", {"tasks": [{"taskArn": ARN}], "failures": []})
    assert ecs.tasks.launch("the run") == ARN
    assert (asked["clientToken"], asked["startedBy"], asked["count"]) == ("the run", "the run", 1)
    assert asked["taskDefinition"] == "copier:7"
    assert asked["networkConfiguration"]["awsvpcConfiguration"]["assignPublicIp"] == "DISABLED"
    assert asked["overrides"] == {
        "containerOverrides": [{"name": "copier", "environment": [{"name": "ECR_RELAY_RUN", "value": "the run"}]}]
    }


def test_failures_and_no_task_is_a_refusal_for_now(ecs: Ecs) -> None:
    failure = {"reason": "Capacity is unavailable at this time. Please try again later"}
    ecs.stub.add_response("run_task", {"tasks": [], "failures": [failure]})
    with pytest.raises(LaunchRefused, match="no task: Capacity is unavailable") as refused:
        ecs.tasks.launch("run")
    assert refused.value.passing


@pytest.mark.parametrize(
    ("code", "message", "passing"),
    [
        ("ThrottlingException", "Rate exceeded", True),
        ("ThrottlingException", "You've reached the limit on the number of vCPUs you can run concurrently", True),
        ("ClientException", "Capacity is unavailable at this time. Please try again later", True),
        ("ClientException", "Tasks provisioning capacity limit exceeded.", True),
        (
            "InvalidParameterException",
            "Error retrieving security group information for [sg-1]: Request limit exceeded. "
            "(ErrorCode: RequestLimitExceeded)",
            True,
        ),
        ("LimitExceededException", "The limit for the resource was exceeded.", True),
        ("AccessDeniedException", "User is not authorized to perform: ecs:RunTask", False),
        ("ClusterNotFoundException", "Cluster not found.", False),
        ("ClientException", "TaskDefinition is inactive", False),
        ("PlatformTaskDefinitionIncompatibilityException", "The platform version does not support it", False),
        ("BlockedException", "Your account is currently blocked.", False),
    ],
)
def test_a_refusal_counts_unless_it_is_of_capacity_or_throttling(
    ecs: Ecs, code: str, message: str, passing: bool
) -> None:
    ecs.stub.add_client_error("run_task", code, message, http_status_code=400)
    with pytest.raises(LaunchRefused, match=code) as refused:
        ecs.tasks.launch("run")
    assert refused.value.passing is passing


def test_no_answer_is_no_refusal_there_may_be_a_task(ecs: Ecs) -> None:
    ecs.stub.add_client_error("run_task", "ServerException", "Service Unavailable", http_status_code=503)
    with pytest.raises(LaunchUnknown):
        ecs.tasks.launch("run")

    def times_out(**_: object) -> None:
        raise ReadTimeoutError(endpoint_url="https://ecs")

    ecs.events.register("before-send.ecs.RunTask", times_out)
    ecs.stub.deactivate()
    with pytest.raises(LaunchUnknown):
        ecs.tasks.launch("run")


def described(**task: object) -> dict[str, Any]:
    return {"tasks": [{"taskArn": ARN, **task}], "failures": [{"arn": "gone", "reason": "MISSING"}]}


@pytest.mark.parametrize(
    ("task", "reason", "passing", "started"),
    [
        (
            {
                "stopCode": "EssentialContainerExited",
                "stoppedReason": "Essential container in task exited",
                "containers": [{"exitCode": 137, "reason": "OutOfMemoryError: Container killed due to memory usage"}],
            },
            "Container killed due to memory usage: exit code 137",
            False,
            True,
        ),
        (
            {"stopCode": "TaskFailedToStart", "stoppedReason": "CannotPullContainerError: pull image manifest: denied"},
            "TaskFailedToStart: CannotPullContainerError: pull image manifest: denied",
            False,
            False,
        ),
        (
            {"stopCode": "TaskFailedToStart", "stoppedReason": "Capacity is unavailable at this time."},
            "Capacity is unavailable",
            True,
            False,
        ),
        ({"stopCode": "SpotInterruption", "stoppedReason": "Your Spot Task was interrupted."}, "Spot", True, True),
        ({"stopCode": "TerminationNotice", "stoppedReason": "maintenance"}, "TerminationNotice", True, True),
        ({"stopCode": "UserInitiated", "stoppedReason": "by an operator"}, "by an operator", True, True),
        ({"stopCode": "UserInitiated", "stoppedReason": LEASE_OVER}, "lease is over", False, True),
        ({}, "", False, True),  # a host that vanished
    ],
)
def test_how_a_task_ended(ecs: Ecs, task: dict[str, Any], reason: str, passing: bool, started: bool) -> None:
    ecs.stub.add_response("describe_tasks", described(lastStatus="STOPPED", **task))
    [state] = ecs.tasks.states([ARN, "gone"]).values()
    assert reason in state.reason
    assert (state.arn, state.over, state.pending) == (ARN, True, False)
    assert (state.passing, state.started) == (passing, started)


@pytest.mark.parametrize(
    ("status", "over", "pending"),
    [
        ("PROVISIONING", False, True),
        ("PENDING", False, True),
        ("ACTIVATING", False, True),
        ("RUNNING", False, False),
        ("DEACTIVATING", False, False),
        ("STOPPING", False, False),
        ("DEPROVISIONING", True, False),  # its containers have stopped
        ("STOPPED", True, False),
    ],
)
def test_a_task_is_over_when_its_container_is(ecs: Ecs, status: str, over: bool, pending: bool) -> None:
    ecs.stub.add_response("describe_tasks", described(lastStatus=status))
    [state] = ecs.tasks.states([ARN]).values()
    assert (state.over, state.pending) == (over, pending)


def test_nothing_is_asked_about_nothing(ecs: Ecs) -> None:
    assert ecs.tasks.states([]) == {}


def test_a_run_whose_answer_was_lost_is_found_also_when_its_task_has_stopped(ecs: Ecs) -> None:
    asked = {"cluster": "relay", "startedBy": "run"}
    ecs.stub.add_response("list_tasks", {"taskArns": []}, {**asked, "desiredStatus": "RUNNING"})
    ecs.stub.add_response("list_tasks", {"taskArns": [ARN]}, {**asked, "desiredStatus": "STOPPED"})
    assert ecs.tasks.of_run("run") == ARN
    ecs.stub.add_response("list_tasks", {"taskArns": []})
    ecs.stub.add_response("list_tasks", {"taskArns": []})
    assert ecs.tasks.of_run("never was") is None


def test_a_reason_to_stop_is_no_longer_than_ecs_takes(ecs: Ecs) -> None:
    ecs.stub.add_response("stop_task", {"task": {}}, {"cluster": "relay", "task": ARN, "reason": "x" * 255})
    ecs.tasks.stop(ARN, "x" * 300)
