"""An operator's place of work: a deployed relay over moto's SQS, DynamoDB, SSM and Logs, and a terminal to it.

The jobs are real. Registries, skopeo and ECS are the fakes of `World`; CloudFormation and Lambda are `ControlPlane`'s.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from botocore.loaders import create_loader
from click.testing import CliRunner, Result

from ecr_relay.cli import app
from ecr_relay.config import RelayConfig
from ecr_relay.consume import Delivery, consume
from ecr_relay.ledger import Ledger, now_ms
from ecr_relay.messages import Envelope
from ecr_relay.operate import mailbox, sync
from ecr_relay.queues import CopyQueue
from ecr_relay.reconcile import Reconciler, Request
from ecr_relay.relay import Relay
from tests.fakes.control_plane import ControlPlane
from tests.fakes.registry import FakeRegistry
from tests.unit.conftest import REGION, World

LOG_GROUP = "copier-logs"
MAPPING = "7c2fd5d3-6f1b-4c5b-9b1f-0d3c2a1b4e5f"


class Office:
    """`run` is a command line; the rest is the relay that it looks at."""

    def __init__(self, config: RelayConfig, plane: ControlPlane) -> None:
        self.plane = plane
        # moto has none, as some regions.
        self.calls: dict[str, Call] = {
            "StartMessageMoveTask": refused("AWS.SimpleQueueService.UnsupportedOperation", "StartMessageMoveTask")
        }
        """AWS calls that are answered here instead, by operation."""
        self.calls |= self._answers()
        self.made: set[str] = set()
        """Every AWS call so far, as IAM names it."""
        self.world = world = World(config)
        world.ledger = Ledger(world.table, now_ms)
        source, destinations = world.source, world.destinations
        world.relay = Relay(config, world.ledger)
        world.relay.source = source
        world.relay._destinations.update(destinations)
        self.sqs = boto3.client("sqs", region_name=REGION)
        self.dlq_url = self._queue("relay-dead")
        self.event_dlq_url = self._queue("relay-event-dead")
        arn = f"arn:aws:sqs:{REGION}:123456789012:relay-dead"
        redrive = {"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})}
        self.queue_url = self._queue("relay-copy", redrive)
        self.queue = CopyQueue(self.sqs, self.queue_url)
        self.ssm = boto3.client("ssm", region_name=REGION)
        self.ssm.put_parameter(Name="/relay/config", Value=config.to_parameter(), Type="String")
        self.logs = boto3.client("logs", region_name=REGION)
        self.logs.create_log_group(logGroupName=LOG_GROUP)
        plane.stacks["ecr-relay"] = {
            "QueueUrl": self.queue_url,
            "DeadLetterQueueUrl": self.dlq_url,
            "EventDeadLetterQueueUrl": self.event_dlq_url,
            "LedgerTable": "ledger",
            "ConfigParameter": "/relay/config",
            "ConsumerFunction": "consumer",
            "ReconcileFunction": "reconcile",
            "Cluster": "arn:aws:ecs:us-east-1:123456789012:cluster/relay",
            "TaskDefinition": "arn:aws:ecs:us-east-1:123456789012:task-definition/relay:1",
            "CopierLogGroup": LOG_GROUP,
        }
        plane.mappings[MAPPING] = {
            "UUID": MAPPING,
            "EventSourceArn": f"arn:aws:sqs:{REGION}:123456789012:relay-copy",
            "State": "Enabled",
        }
        plane.functions["reconcile"] = self.reconcile
        self._rule()

    def _answers(self) -> "dict[str, Call]":
        """What moto does not know, or would know nothing of, as AWS answers it for a deployment that lacks nothing."""
        role = "arn:aws:iam::123456789012:role/"

        def simulate(arguments: dict[str, Any]) -> Any:
            allowed = [{"EvalActionName": name, "EvalDecision": "allowed"} for name in arguments["ActionNames"]]
            return {"EvaluationResults": allowed}

        def matches(arguments: dict[str, Any]) -> Any:
            event = json.loads(arguments["Event"])
            return {
                "Result": all(event[key] in wanted for key, wanted in json.loads(arguments["EventPattern"]).items())
            }

        return {
            "GetFunctionConfiguration": lambda arguments: {"Role": role + arguments["FunctionName"]},
            "DescribeTaskDefinition": lambda _arguments: {
                "taskDefinition": {"cpu": "1024", "taskRoleArn": f"{role}copier", "executionRoleArn": f"{role}pull"}
            },
            "DescribeClusters": lambda _arguments: {"clusters": [{"status": "ACTIVE"}], "failures": []},
            "SimulatePrincipalPolicy": simulate,
            "TestEventPattern": matches,
            "GetServiceQuota": lambda _arguments: {"Quota": {"Value": 10.0}},
            "ListStackResources": lambda _arguments: {
                "StackResourceSummaries": [
                    {
                        "ResourceType": "AWS::SNS::Topic",
                        "PhysicalResourceId": "arn:aws:sns:us-east-1:123456789012:relay",
                    }
                ]
            },
            "ListSubscriptionsByTopic": lambda arguments: {
                "Subscriptions": [{"SubscriptionArn": f"{arguments['TopicArn']}:1"}]
            },
        }

    def _rule(self) -> None:
        """As the stack's: pushes of the source's account, into the copy queue."""
        events = boto3.client("events", region_name=REGION)
        pattern = {"source": ["aws.ecr"], "account": [self.world.config.source.id.partition(".")[0]]}
        events.put_rule(Name="pushes", EventPattern=json.dumps(pattern))
        arn = f"arn:aws:sqs:{REGION}:123456789012:relay-copy"
        events.put_targets(Rule="pushes", Targets=[{"Id": "queue", "Arn": arn}])

    def _queue(self, name: str, attributes: Any = None) -> str:
        return self.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "0", **(attributes or {})})[
            "QueueUrl"
        ]

    def reconcile(self, payload: dict[str, Any]) -> dict[str, Any]:
        """As the handler does it."""
        reconciler = Reconciler(self.world.relay, self.queue, lambda: True)
        return reconciler.run(Request.model_validate(payload)).model_dump()

    def send(self, body: str) -> str:
        """Into the copy queue; the message's id."""
        return self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=body)["MessageId"]

    def consume(self, rounds: int = 1) -> None:
        """As the event source mapping does it: receive, hand over, delete what did not fail."""
        for _ in range(rounds):
            messages = self.sqs.receive_message(
                QueueUrl=self.queue_url, MaxNumberOfMessages=10, AttributeNames=["All"]
            ).get("Messages", [])
            deliveries = [
                Delivery(
                    message["MessageId"],
                    message["ReceiptHandle"],
                    message["Body"],
                    int(message["Attributes"]["SentTimestamp"]),
                    int(message["Attributes"]["ApproximateReceiveCount"]),
                )
                for message in messages
            ]
            world = self.world
            failed = consume(deliveries, world.relay, _Impatient(self.sqs, self.queue_url), world.tasks, 0.1)  # type: ignore[arg-type]
            for delivery in deliveries:
                if delivery.message_id not in failed:
                    self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=delivery.receipt_handle)

    def bury(self, *bodies: str) -> list[str]:
        """Send these, and let them fail three times; their ids, which they keep as dead letters."""
        ids = [self.send(body) for body in bodies]
        self.consume(rounds=4)
        return ids

    def depth(self, url: str) -> int:
        name: Any = "ApproximateNumberOfMessages"
        return int(self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])

    def run(self, *arguments: str, **options: Any) -> Result:
        """The whole command line, down to its exit status; nothing but SystemExit may come out of it."""
        return CliRunner().invoke(_command, list(arguments), catch_exceptions=False, **options)

    def json(self, *arguments: str, status: int = 0) -> Any:
        """What `--json` prints."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == status, result.output
        return json.loads(result.stdout)


Call = Callable[[dict[str, Any]], Any]


def refused(code: str, operation: str) -> Call:
    """A call that AWS answers with this error."""

    def call(_arguments: dict[str, Any]) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": f"{operation} is refused"}}, operation)

    return call


class _Impatient(CopyQueue):
    """What failed or was deferred comes back at once, so that no test waits for it."""

    def defer(self, envelope: Envelope, now: int) -> int:
        self.send([envelope])
        return 0

    def hide(self, receipt_handle: str, seconds: int) -> None:
        super().hide(receipt_handle, 0)


class _Command:
    """`ecr-relay`, as CliRunner wants a command to be."""

    name = "ecr-relay"

    def main(self, args: list[str], **_: Any) -> None:
        raise SystemExit(app.run(args))


_command: Any = _Command()


def _intercept(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    real = BaseClient._make_api_call  # type: ignore[attr-defined]

    def call(self: BaseClient, operation: str, arguments: dict[str, Any]) -> Any:
        office.made.add(f"{self.meta.service_model.signing_name}:{operation}")
        if operation in office.calls:
            return office.calls[operation](arguments)
        return real(self, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", call)


_LOADER = create_loader()
"""Of botocore's service models, which take a new session longer to parse than a command takes to run."""


@contextmanager
def opened(config: RelayConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """A place of work that waits for nothing."""
    monkeypatch.setattr(mailbox, "WAIT_S", 0)
    monkeypatch.setattr(sync, "POLL_S", 0.02)
    monkeypatch.setattr("botocore.session.create_loader", lambda *_: _LOADER)
    with ControlPlane().serving() as plane:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFORMATION", plane.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", plane.url)
        office = Office(config, plane)
        _intercept(office, monkeypatch)
        registries: dict[str, FakeRegistry] = {config.source.id: office.world.source}
        registries |= {entry.id: office.world.destinations[entry.name] for entry in config.destinations}
        monkeypatch.setattr("ecr_relay.credentials.registry", lambda registry: registries[registry.id])
        yield office
