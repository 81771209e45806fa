"""How deep a queue is, and how old what it holds."""

from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.shapes import Shape


class Depth(Shape):
    """About, as SQS counts."""

    waiting: int
    in_flight: int
    delayed: int


def depth(deployment: Deployment, url: str) -> Depth:
    """How deep a queue is."""
    names: Any = [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    ]
    answer = deployment.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    waiting, in_flight, delayed = (int(answer[name]) for name in names)
    return Depth(waiting=waiting, in_flight=in_flight, delayed=delayed)


def oldest_seconds(deployment: Deployment, url: str) -> int | None:
    """Age of the oldest message, from when it was sent last, a minute or two ago: SQS says it to CloudWatch alone.

    None where CloudWatch is not there, or not ours to ask.
    """
    now = datetime.now(UTC)
    try:
        points = deployment.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/SQS",
            MetricName="ApproximateAgeOfOldestMessage",
            Dimensions=[{"Name": "QueueName", "Value": url.rpartition("/")[2]}],
            StartTime=now - timedelta(minutes=5),
            EndTime=now,
            Period=60,
            Statistics=["Maximum"],
        )["Datapoints"]
    except (ClientError, BotoCoreError):
        return None
    latest = max(points, key=lambda point: point["Timestamp"], default=None)
    return None if latest is None else int(latest["Maximum"])
