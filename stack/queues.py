"""The copy queue, its dead-letter queue, and the dead-letter queue of the events that never reached it."""

from typing import Final

from aws_cdk import Duration
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stack.permissions import acknowledge

CONSUMER_TIMEOUT: Final = Duration.seconds(300)
"""Of the function that receives from the copy queue: up to 240 s of watching its tasks, and time to decide."""

_VISIBILITY: Final = Duration.seconds(360)
"""Longer than the consumer's timeout, as Lambda demands; a consumer that died costs its messages this long."""

_RECEIVES: Final = 3

_COPY_RETENTION: Final = Duration.days(7)
_DEAD_RETENTION: Final = Duration.days(14)
"""Longer than the copy queue's, since a dead letter's age counts from its first enqueueing; SQS's maximum."""


class Queues(Construct):
    """`copy` with redrive to `dead_letters`; `event_dead_letters` for what EventBridge could not deliver.

    Encryption is SQS's own: EventBridge cannot deliver to a queue under the key that KMS manages for SQS.
    """

    def __init__(self, scope: Construct, id: str) -> None:
        super().__init__(scope, id)
        self.dead_letters = self._queue("DeadLetters", retention_period=_DEAD_RETENTION)
        self.event_dead_letters = self._queue("EventDeadLetters", retention_period=_DEAD_RETENTION)
        self.copy = self._queue(
            "Copy",
            retention_period=_COPY_RETENTION,
            visibility_timeout=_VISIBILITY,
            dead_letter_queue=sqs.DeadLetterQueue(queue=self.dead_letters, max_receive_count=_RECEIVES),
        )
        acknowledge(self.event_dead_letters, "SQS3", "it is the dead-letter queue of the EventBridge rule's target")

    def _queue(
        self,
        id: str,
        *,
        retention_period: Duration,
        visibility_timeout: Duration | None = None,
        dead_letter_queue: sqs.DeadLetterQueue | None = None,
    ) -> sqs.Queue:
        return sqs.Queue(
            self,
            id,
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=retention_period,
            visibility_timeout=visibility_timeout,
            dead_letter_queue=dead_letter_queue,
        )
