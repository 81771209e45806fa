"""The consumer of the copy queue: a batch in, the messages that failed out."""

import math
import os
import time
from collections.abc import Sequence
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

from ecr_relay.bus import Bus
from ecr_relay.consume import Delivery, Told, consume, repeat
from ecr_relay.consume.told import announcements, measure
from ecr_relay.errors import ConfigError
from ecr_relay.queues import CopyQueue
from ecr_relay.relay import BOUNDED, Composer
from ecr_relay.settings import ConsumerSettings
from ecr_relay.tasks import Tasks
from handlers.measures import publish

logger = Logger(service="consumer")
copy_config_to_registered_loggers(logger, include={"ecr_relay"})
settings = ConsumerSettings.from_environment(os.environ)
composer = Composer(settings)
queue = CopyQueue(boto3.client("sqs", config=BOUNDED), settings.queue_url)
tasks = Tasks(boto3.client("ecs", config=BOUNDED), settings)
# An event is no more than news: it may cost a message a few seconds, and no more.
bus = Bus(boto3.client("events", config=Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 2})))

SETTLE_S = 30
"""What is kept of the function's time for telling SQS the outcome of up to ten messages."""


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
    deliveries = [
        Delivery(
            message_id=record["messageId"],
            receipt_handle=record["receiptHandle"],
            body=record["body"],
            sent_at=int(record["attributes"]["SentTimestamp"]),
            receives=int(record["attributes"]["ApproximateReceiveCount"]),
        )
        for record in event["Records"]
    ]
    received = time.monotonic()
    try:
        relay = composer.relay()
    except ConfigError:
        # No message is to blame, so none may use up a receive. The error is in the log, and in the alarm on lag.
        logger.exception("no configuration; the messages are sent again")
        repeat(deliveries, queue, "no configuration", lambda told: publish(measure(told), settings.stack))
        return {"batchItemFailures": []}

    def report(told: Sequence[Told]) -> None:
        publish(measure(told), settings.stack)
        bus.announce(announcements(told, composer.relay(math.inf).config))

    failed = consume(
        deliveries,
        relay,
        queue,
        tasks,
        settings.supervise_seconds,
        seconds_left=lambda: context.get_remaining_time_in_millis() / 1000 - SETTLE_S,
        report=report,
        since=lambda sent_at: composer.relay_since(sent_at, received),
    )
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}
