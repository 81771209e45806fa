"""ECS, SQS and Lambda, as MiniStack 1.5.33 has them and as AWS has them. See `test_local_gaps.py`."""

import io
import json
import subprocess
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.deploy import ROOT
from local.servers import MINISTACK, Servers
from tests.integration import local_clouds as clouds
from tests.integration.local_clouds import Case, case, parametrized

CASES: list[Case] = []


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Servers, Servers]]:
    for raw, corrected in clouds.both(tmp_path_factory):
        for cloud in (raw, corrected):
            prepare_tasks(cloud)
        yield raw, corrected


@parametrized(CASES)
def test_ministack_differs(gap: Case, pair: tuple[Servers, Servers]) -> None:
    assert gap.observe(pair[0]) != gap.aws


@parametrized(CASES)
def test_corrected_it_is_as_aws(gap: Case, pair: tuple[Servers, Servers]) -> None:
    assert gap.observe(pair[1]) == gap.aws


# ECS --------------------------------------------------------------------------------------------------------------


def prepare_tasks(cloud: Servers) -> None:
    ecs = cloud.clients("ecs")
    ecs.create_cluster(clusterName="here")
    ecs.register_task_definition(
        family="shell",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        containerDefinitions=[
            {
                "name": "copier",
                "image": "any",
                "essential": True,
                "stopTimeout": 2,
                "logConfiguration": {
                    "logDriver": "awslogs",
                    "options": {
                        "awslogs-group": "shell",
                        "awslogs-region": "us-east-1",
                        "awslogs-stream-prefix": "it",
                        "awslogs-create-group": "true",
                    },
                },
            }
        ],
    )


def run(cloud: Servers, script: str = "sleep 60", **more: Any) -> Any:
    overrides = {"containerOverrides": [{"name": "copier", "command": [script]}]}
    request = {
        "cluster": "here",
        "taskDefinition": "shell",
        "launchType": "FARGATE",
        "networkConfiguration": clouds.NETWORK,
    }
    return cloud.clients("ecs").run_task(**{**request, "overrides": overrides, **more})


def wait(cloud: Servers, task: str, status: str, seconds: float = 10) -> Any:
    """The task, once it has that status."""
    deadline = time.monotonic() + seconds
    while True:
        (found,) = cloud.clients("ecs").describe_tasks(cluster="here", tasks=[task])["tasks"]
        if found["lastStatus"] == status:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


@case(CASES, 1)
def a_client_token_starts_one_task(cloud: Servers) -> int:
    token = uuid.uuid4().hex
    return len({run(cloud, "true", clientToken=token)["tasks"][0]["taskArn"] for _ in range(3)})


@case(CASES, "ConflictException")
def a_client_token_is_for_one_request(cloud: Servers) -> Any:
    token = uuid.uuid4().hex
    run(cloud, "true", clientToken=token)
    return run(cloud, "false", clientToken=token)["failures"]


@case(CASES, "ClusterNotFoundException")
def no_cluster_is_made_by_running_in_it(cloud: Servers) -> Any:
    return run(cloud, "true", cluster="nowhere")["failures"]


@case(CASES, "InvalidParameterException")
def awsvpc_needs_a_network(cloud: Servers) -> Any:
    return run(cloud, "true", networkConfiguration={})["failures"]


@case(CASES, "InvalidParameterException")
def overrides_are_8192_characters_at_the_most(cloud: Servers) -> Any:
    return run(cloud, "true" + " " * 8192)["failures"]


@case(CASES, ("RUNNING", "STOPPED"))
def stop_task_answers_before_the_task_has_stopped(cloud: Servers) -> tuple[str, str]:
    task = run(cloud)["tasks"][0]["taskArn"]
    wait(cloud, task, "RUNNING")
    answer = cloud.clients("ecs").stop_task(cluster="here", task=task)["task"]
    return answer["lastStatus"], answer["desiredStatus"]


@case(CASES, 143)
def a_stopped_task_has_its_own_exit_code(cloud: Servers) -> Any:
    task = run(cloud)["tasks"][0]["taskArn"]
    wait(cloud, task, "RUNNING")
    cloud.clients("ecs").stop_task(cluster="here", task=task)
    return wait(cloud, task, "STOPPED")["containers"][0].get("exitCode")


@case(CASES, 137)
def what_ignores_sigterm_is_killed(cloud: Servers) -> Any:
    task = run(cloud, 'trap "" TERM; while :; do sleep 1; done')["tasks"][0]["taskArn"]
    wait(cloud, task, "RUNNING")
    time.sleep(0.3)  # for the trap
    cloud.clients("ecs").stop_task(cluster="here", task=task)
    return wait(cloud, task, "STOPPED")["containers"][0].get("exitCode")


# IAM --------------------------------------------------------------------------------------------------------------


@case(CASES, ["allowed", "implicitDeny"])
def the_simulator_judges_conditions_by_the_context_it_is_given(cloud: Servers) -> list[str]:
    iam, name = cloud.clients("iam"), f"role-{uuid.uuid4().hex[:8]}"
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument='{"Version": "2012-10-17", "Statement": []}')
    condition = {"ArnEquals": {"ecs:cluster": "arn:aws:ecs:us-east-1:000000000000:cluster/here"}}
    statement = {"Effect": "Allow", "Action": "ecs:RunTask", "Resource": "*", "Condition": condition}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName=name, PolicyName="run", PolicyDocument=policy)
    decisions = []
    for cluster in ("here", "there"):
        value = f"arn:aws:ecs:us-east-1:000000000000:cluster/{cluster}"
        entry = {"ContextKeyName": "ecs:cluster", "ContextKeyValues": [value], "ContextKeyType": "string"}
        answer = iam.simulate_principal_policy(
            PolicySourceArn=role["Role"]["Arn"], ActionNames=["ecs:RunTask"], ContextEntries=[entry]
        )
        decisions.append(answer["EvaluationResults"][0]["EvalDecision"])
    return decisions


# SQS --------------------------------------------------------------------------------------------------------------


def queue(cloud: Servers, **attributes: str) -> tuple[str, str]:
    """URL and ARN of a new queue."""
    sqs = cloud.clients("sqs")
    url = sqs.create_queue(QueueName=f"q-{uuid.uuid4().hex[:8]}", Attributes=attributes)["QueueUrl"]
    return url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def bodies(cloud: Servers, url: str, most: int = 10) -> list[str]:
    answer = cloud.clients("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=most)
    return [message["Body"] for message in answer.get("Messages", [])]


def dead_letters(cloud: Servers, *texts: str) -> tuple[str, str]:
    """(URL of a queue, ARN of its dead-letter queue, in which the messages are)"""
    dead_url, dead_arn = queue(cloud)
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 1})
    url, _ = queue(cloud, RedrivePolicy=redrive, VisibilityTimeout="0")
    sqs = cloud.clients("sqs")
    for text in texts:
        sqs.send_message(QueueUrl=url, MessageBody=text)
    bodies(cloud, url)
    assert bodies(cloud, url) == []
    assert int(sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["All"])["Attributes"][
        "ApproximateNumberOfMessages"
    ]) == len(texts)  # fmt: skip
    return url, dead_arn


@case(CASES, ["a", "b"])
def dead_letters_can_be_moved_back(cloud: Servers) -> list[str]:
    url, dead_arn = dead_letters(cloud, "a", "b")
    cloud.clients("sqs").start_message_move_task(SourceArn=dead_arn)
    return bodies(cloud, url)


@case(CASES, [("COMPLETED", 1)])
def a_move_tells_how_far_it_is(cloud: Servers) -> list[tuple[str, int]]:
    _, dead_arn = dead_letters(cloud, "a")
    sqs = cloud.clients("sqs")
    sqs.start_message_move_task(SourceArn=dead_arn)
    found = sqs.list_message_move_tasks(SourceArn=dead_arn)["Results"]
    return [(move["Status"], move["ApproximateNumberOfMessagesMoved"]) for move in found]


@case(CASES, "quiet")
def a_noisy_group_is_served_after_quiet_messages(cloud: Servers) -> str:
    url, _ = queue(cloud)
    sqs = cloud.clients("sqs")
    for number in range(40):
        sqs.send_message(QueueUrl=url, MessageBody="noisy", MessageGroupId="reconcile", DelaySeconds=0)
        if number % 10 == 9 and number < 39:
            bodies(cloud, url)  # ten more in flight
    sqs.send_message(QueueUrl=url, MessageBody="quiet")
    return bodies(cloud, url, 1)[0]


RACE = """
import asyncio, sys, threading
from local.cloud import configure
from local.spec import CloudSpec
spec = CloudSpec(4566, (), (), "tcp://127.0.0.1:9", "/nonexistent")
configure(spec)
from ministack import app
from ministack.services import sqs
if sys.argv[1] == "corrected":
    from local.corrections import sqs as correction
    correction.apply()
url = sqs._HANDLERS["CreateQueue"]({"QueueName": "q"}, "")["QueueUrl"]
queue = sqs._get_q(url)
sender = threading.Thread(target=lambda: sqs._HANDLERS["SendMessage"]({"QueueUrl": url, "MessageBody": "b"}, url))

class Interleaved(list):
    "A list whose reader is overtaken by a sender, as threads are."
    def __iter__(self):
        yield from super().__iter__()
        if not sender.ident:
            sender.start()
            sender.join(0.5)

sqs._HANDLERS["SendMessage"]({"QueueUrl": url, "MessageBody": "a"}, url)
queue["messages"] = Interleaved(queue["messages"])
sqs._delete_messages_for_esm(url, {"some other receipt"})
sender.join()
print(len(queue["messages"]))
"""


@pytest.mark.parametrize(("kind", "left"), [("as it is", "1"), ("corrected", "2")])
def test_a_message_sent_while_another_is_deleted_is_lost_only_as_it_is(kind: str, left: str) -> None:
    command = [str(MINISTACK), "-c", RACE, kind]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == left


# CloudWatch -------------------------------------------------------------------------------------------------------


@case(CASES, "CREATE_COMPLETE")
def an_alarm_on_an_expression_is_created(cloud: Servers) -> str:
    metric = {"Metric": {"Namespace": "it", "MetricName": "failed"}, "Period": 60, "Stat": "Sum"}
    alarm = {
        "Metrics": [{"Id": "m", "MetricStat": metric, "ReturnData": False}, {"Id": "e", "Expression": "m * 2"}],
        "ComparisonOperator": "GreaterThanThreshold",
        "EvaluationPeriods": 1,
        "Threshold": 0,
    }
    name = f"alarm-{uuid.uuid4().hex[:8]}"
    template = {"Resources": {"Alarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm}}}
    cloudformation = cloud.clients("cloudformation")
    cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(template))
    deadline = time.monotonic() + 20
    while True:
        status = str(cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
        if not status.endswith("_IN_PROGRESS") or time.monotonic() > deadline:
            return status
        time.sleep(0.1)


def embedded(x: str) -> str:
    """A log line that counts 1 and 2 by {a} and by {a, b} (embedded metric format specification)."""
    metrics = {"Namespace": "it", "Dimensions": [["a"], ["a", "b"]], "Metrics": [{"Name": "n", "Unit": "Count"}]}
    about = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [metrics]}
    return json.dumps({"_aws": about, "a": x, "b": "y", "n": [1, 2]})


def sums(cloud: Servers, x: str) -> list[float]:
    """What was counted by {a} and by {a, b}, once it is there."""

    def counted(**dimensions: str) -> float:
        answer = cloud.clients("cloudwatch").get_metric_statistics(
            Namespace="it",
            MetricName="n",
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
            StartTime=time.time() - 300,
            EndTime=time.time() + 60,
            Period=60,
            Statistics=["Sum"],
        )
        return sum(float(point["Sum"]) for point in answer["Datapoints"])

    deadline = time.monotonic() + 1
    while True:
        found = [counted(a=x), counted(a=x, b="y")]
        if any(found) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


@case(CASES, [3.0, 3.0])
def a_log_line_of_a_function_is_a_metric(cloud: Servers) -> list[float]:
    x = uuid.uuid4().hex
    name = function(cloud, f"def handler(event, context):\n    print({embedded(x)!r})\n")
    cloud.clients("lambda").invoke(FunctionName=name, Payload=b"{}")
    return sums(cloud, x)


@case(CASES, [3.0, 3.0])
def a_log_line_of_a_task_is_a_metric(cloud: Servers) -> list[float]:
    x = uuid.uuid4().hex
    wait(cloud, run(cloud, f"echo '{embedded(x)}'")["tasks"][0]["taskArn"], "STOPPED")
    return sums(cloud, x)


# Lambda -----------------------------------------------------------------------------------------------------------


def function(cloud: Servers, source: str, **variables: str) -> str:
    name = f"f-{uuid.uuid4().hex[:8]}"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", source)
    cloud.clients("lambda").create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="index.handler",
        Role="arn:aws:iam::000000000000:role/any",
        Code={"ZipFile": packed.getvalue()},
        Timeout=30,
        Environment={"Variables": variables},
    )
    return name


def logged(cloud: Servers, name: str, seconds: float) -> list[str]:
    """The lines of a function that begin with `>`, waiting for the first."""
    deadline = time.monotonic() + seconds
    while True:
        groups = cloud.clients("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{name}")["logGroups"]
        if groups:
            events = cloud.clients("logs").filter_log_events(logGroupName=groups[0]["logGroupName"])["events"]
            found = [event["message"] for event in events if event["message"].startswith(">")]
            if found:
                return found
        assert time.monotonic() < deadline
        time.sleep(0.1)


@case(CASES, ["> 3"])
def a_batch_waits_for_its_window(cloud: Servers) -> list[str]:
    url, arn = queue(cloud, VisibilityTimeout="60")
    name = function(cloud, "def handler(event, context):\n    print('>', len(event['Records']))\n")
    cloud.clients("lambda").create_event_source_mapping(
        FunctionName=name, EventSourceArn=arn, BatchSize=10, MaximumBatchingWindowInSeconds=1
    )
    for number in range(3):
        cloud.clients("sqs").send_message(QueueUrl=url, MessageBody=str(number))
        time.sleep(0.2)
    return logged(cloud, name, 10)


@case(CASES, True)
def what_a_function_writes_is_in_a_file_before_it_ends(cloud: Servers) -> bool:
    name = function(cloud, "import time\ndef handler(event, context):\n    print('> now')\n    time.sleep(4)\n")
    cloud.clients("lambda").invoke(FunctionName=name, InvocationType="Event", Payload=b"{}")
    log = Path(cloud.spec.log_dir) / f"lambda-{name}.log"
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        if log.exists() and "> now" in log.read_text(encoding="utf-8"):
            return True
        time.sleep(0.05)
    return False


@case(CASES, ["> True"])
def no_variable_names_a_file_of_its_code_in_vain(cloud: Servers) -> list[str]:
    source = "import os\ndef handler(event, context):\n"
    source += "    names = 'SSL_CERT_FILE', 'AWS_CA_BUNDLE'\n"
    source += "    print('>', all(os.path.exists(os.environ.get(name, '/')) for name in names))\n"
    name = function(cloud, source, SSL_CERT_FILE="/var/task/index.py", AWS_CA_BUNDLE="/var/task/index.py")
    cloud.clients("lambda").invoke(FunctionName=name, InvocationType="Event", Payload=b"{}")
    return logged(cloud, name, 10)
