"""The reconcile function: by its schedules, by `ecr-relay sync`, or by `aws lambda invoke`."""

import os
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.utilities.typing import LambdaContext

from ecr_relay.metrics import Measured, Metric
from ecr_relay.queues import CopyQueue
from ecr_relay.reconcile import Reconciler, Request
from ecr_relay.relay import BOUNDED, Composer
from ecr_relay.settings import ReconcileSettings
from handlers.measures import publish

logger = Logger(service="reconcile")
copy_config_to_registered_loggers(logger, include={"ecr_relay"})
settings = ReconcileSettings.from_environment(os.environ)
composer = Composer(settings)
queue = CopyQueue(boto3.client("sqs", config=BOUNDED), settings.queue_url)

KEEP_MS = 120_000
"""What is kept of the function's time: one repository of 100,000 images takes about a minute to list on both sides."""


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    request = Request.model_validate(event)
    # As the rules are now: who has just published some, and asks for a sync, means those.
    relay = composer.relay(age=0)
    measured = Measured()
    measured.add(Metric.SLOTS, len(relay.ledger.slots.held()))
    publish(measured, settings.stack)
    reconciler = Reconciler(relay, queue, lambda: context.get_remaining_time_in_millis() > KEEP_MS)
    answer = reconciler.run(request)
    if answer.status == "done" and not request.dry_run:
        measured = Measured()
        measured.reconciled(answer.counts)
        publish(measured, settings.stack)
    logger.info("reconcile", extra=answer.model_dump(exclude={"plan"}))
    return answer.model_dump()
