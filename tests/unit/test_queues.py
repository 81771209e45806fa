"""The copy queue over moto's SQS: batches, groups, delays, visibility."""

import json
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from ecr_relay.errors import RelayError
from ecr_relay.messages import Envelope, Lane
from ecr_relay.queues import CopyQueue, backoff_seconds, wait_seconds


def envelope(number: int, lane: Lane = "push") -> Envelope:
    digest = f"sha256:{number:064x}"
    return Envelope(lane=lane, source="s", destination="west", repository="team/app", digest=digest, first_seen=0)


@pytest.fixture
def queue() -> CopyQueue:
    client = boto3.client("sqs")
    return CopyQueue(client, client.create_queue(QueueName="copy")["QueueUrl"])


def test_any_number_is_sent_in_batches(queue: CopyQueue) -> None:
    assert queue.send(envelope(number) for number in range(23)) == 23
    assert queue.waiting() == 23


def test_reconcile_work_is_one_tenant_and_a_push_is_its_own(queue: CopyQueue) -> None:
    queue.send([envelope(1, "reconcile"), envelope(2, "push")])
    client = boto3.client("sqs")
    messages = client.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10, AttributeNames=["All"])["Messages"]
    groups = {json.loads(m["Body"])["lane"]: m["Attributes"].get("MessageGroupId") for m in messages}
    assert groups == {"reconcile": "reconcile", "push": None}


@pytest.mark.parametrize(("lane", "group"), [("reconcile", "reconcile"), ("push", None)])
def test_what_waits_keeps_its_tenant(queue: CopyQueue, lane: Lane, group: str | None) -> None:
    asked: list[str | None] = []
    queue._client.meta.events.register(
        "provide-client-params.sqs.SendMessage", lambda params, **_: asked.append(params.get("MessageGroupId"))
    )
    queue.defer(envelope(1, lane), now=0)
    queue.repeat(envelope(1, lane).body())
    assert asked == [group, group]


def answers(client: Any, *failures: list[str]) -> list[list[str]]:
    """The next batches that are sent fail in these ids; returns what they hold, when they are sent."""
    sent: list[list[str]] = []
    left = list(failures)

    def call(params: dict[str, Any], **_: object) -> Any:
        sent.append([entry["Id"] for entry in json.loads(params["body"])["Entries"]])
        failed = [{"Id": name, "Code": "InternalError", "SenderFault": False} for name in left.pop(0)]
        return SimpleNamespace(status_code=200), {"Failed": failed, "Successful": []}

    client.meta.events.register("before-call.sqs.SendMessageBatch", call)
    return sent


def test_what_sqs_does_not_take_is_sent_again_and_nothing_else(queue: CopyQueue) -> None:
    sent = answers(queue._client, ["1", "3"], ["3"], [])
    assert queue.send(envelope(number) for number in range(4)) == 4
    assert sent == [["0", "1", "2", "3"], ["1", "3"], ["3"]]


def test_what_sqs_never_takes_is_told(queue: CopyQueue) -> None:
    answers(queue._client, ["1"], ["1"], ["1"])
    with pytest.raises(RelayError, match="SQS refused 1 of 2 messages"):
        queue.send([envelope(0), envelope(1)])


def test_a_deferred_message_is_the_same_later(queue: CopyQueue) -> None:
    delay = queue.defer(envelope(1), now=1000)
    assert 5 <= delay <= 8
    assert boto3.client("sqs").receive_message(QueueUrl=queue.url).get("Messages") is None
    assert queue.waiting() == 1


def test_a_repeated_message_is_the_same_later(queue: CopyQueue) -> None:
    assert 30 <= queue.repeat("as it was") <= 60
    assert queue.waiting() == 1
    assert boto3.client("sqs").receive_message(QueueUrl=queue.url).get("Messages") is None


def test_a_hidden_message_comes_back(queue: CopyQueue) -> None:
    client = boto3.client("sqs")
    queue.send([envelope(1)])
    (message,) = client.receive_message(QueueUrl=queue.url, VisibilityTimeout=100)["Messages"]
    queue.hide(message["ReceiptHandle"], 0)
    assert len(client.receive_message(QueueUrl=queue.url)["Messages"]) == 1


@pytest.mark.parametrize(
    ("lane", "age", "shortest", "longest"),
    [("push", 0, 5, 8), ("push", 60, 30, 45), ("push", 100_000, 60, 60), ("reconcile", 0, 120, 180)],
)
def test_an_older_message_waits_longer(lane: Lane, age: float, shortest: int, longest: int) -> None:
    assert all(shortest <= wait_seconds(lane, age) <= longest for _ in range(50))


def test_backoff_grows() -> None:
    assert all(5 <= backoff_seconds(1) <= 10 and 45 <= backoff_seconds(3) <= 90 for _ in range(50))
