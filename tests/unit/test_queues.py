"""The copy queue over moto's SQS: batches, groups, delays, visibility."""

import json

import boto3
import pytest

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
