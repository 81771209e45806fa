"""How deep a queue is, and how old what it holds."""

from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay.metrics import NAMESPACE, STACK, Metric
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
    queue = ("QueueName", url.rpartition("/")[2])
    points = list(_maxima(deployment, "AWS/SQS", "ApproximateAgeOfOldestMessage", queue).values())
    return int(points[-1]) if points else None


def oldest_push_seconds(deployment: Deployment) -> int | None:
    """Age, from its push, of the oldest that the consumer found waiting within the last five minutes: a push that waits
    is looked at once a minute. None as above, or if there was none.
    """
    stack = (STACK, deployment.stack)
    ages = _maxima(deployment, NAMESPACE, Metric.AGE, stack)
    # An arrival is in both. Where it is the oldest of its minute, one that waits is younger, and in the next minute.
    arrived = _maxima(deployment, NAMESPACE, Metric.LAG, stack) if ages else {}
    waiting = [age for minute, age in ages.items() if age > arrived.get(minute, 0)]
    return int(max(waiting) / 1000) if waiting else None


def _maxima(deployment: Deployment, namespace: str, name: str, dimension: tuple[str, str]) -> dict[datetime, float]:
    """Of each of the last five minutes that has any, in their order."""
    now = datetime.now(UTC)
    try:
        points = deployment.client("cloudwatch").get_metric_statistics(
            Namespace=namespace,
            MetricName=name,
            Dimensions=[{"Name": dimension[0], "Value": dimension[1]}],
            StartTime=now - timedelta(minutes=5),
            EndTime=now,
            Period=60,
            Statistics=["Maximum"],
        )["Datapoints"]
    except (ClientError, BotoCoreError):
        return {}
    return {
        point["Timestamp"]: float(point["Maximum"]) for point in sorted(points, key=lambda point: point["Timestamp"])
    }
