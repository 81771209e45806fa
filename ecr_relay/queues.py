"""The copy queue, by SQS: sending envelopes, deferring them, and saying when a failed one comes back."""

import random
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ecr_relay.errors import RelayError
from ecr_relay.messages import Envelope, Lane

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

RECONCILE_GROUP: Final = "reconcile"
"""All reconcile messages are one tenant of the fair queue, so that a backfill is served after pushes."""
_SEND_BATCH: Final = 10
"""SendMessageBatch takes 10 messages (SQS quotas)."""
REPEAT_S: Final = 60
"""How long a message waits while AWS does not answer the relay as it should."""
_DELAYS_S: Final[dict[Lane, tuple[int, int]]] = {"push": (5, 60), "reconcile": (120, 600)}
"""The shortest and longest wait of a deferred message; a push waits longer the older it is."""


class CopyQueue:
    def __init__(self, client: "SQSClient", url: str) -> None:
        self._client = client
        self.url = url

    def send(self, envelopes: Iterable[Envelope]) -> int:
        """Enqueue all of them; how many. Raises RelayError if SQS refuses one for good."""
        sent = 0
        remaining = iter(envelopes)
        while batch := list(islice(remaining, _SEND_BATCH)):
            self._send(batch)
            sent += len(batch)
        return sent

    def _send(self, batch: list[Envelope]) -> None:
        entries: list[Any] = [
            {"Id": str(index), "MessageBody": envelope.body(), **_group(envelope.lane)}
            for index, envelope in enumerate(batch)
        ]
        for _ in range(3):
            failed = self._client.send_message_batch(QueueUrl=self.url, Entries=entries).get("Failed", [])
            if not failed:
                return
            again = {failure["Id"] for failure in failed}
            entries = [entry for entry in entries if entry["Id"] in again]
        raise RelayError(
            f"SQS refused {len(entries)} of {len(batch)} messages: {failed[0].get('Message', 'no reason')}"
        )

    def defer(self, envelope: Envelope, now: int) -> int:
        """Send it again, to be seen after a wait; the wait in seconds. What called this then succeeds."""
        delay = wait_seconds(envelope.lane, (now - envelope.first_seen) / 1000)
        self._client.send_message(
            QueueUrl=self.url, MessageBody=envelope.deferred(now).body(), DelaySeconds=delay, **_group(envelope.lane)
        )
        return delay

    def repeat(self, body: str) -> int:
        """Send a message's own body once more, to be seen after a wait; the wait in seconds."""
        delay = round(REPEAT_S * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        lane: Lane = "reconcile" if '"lane":"reconcile"' in body else "push"
        self._client.send_message(QueueUrl=self.url, MessageBody=body, DelaySeconds=delay, **_group(lane))
        return delay

    def hide(self, receipt_handle: str, seconds: int) -> None:
        """Let a received message come back after `seconds` (0: at once; the redrive is SQS's to do)."""
        self._client.change_message_visibility(
            QueueUrl=self.url, ReceiptHandle=receipt_handle, VisibilityTimeout=seconds
        )

    def waiting(self) -> int:
        """About how many messages wait to be received, deferred ones included."""
        answer = self._client.get_queue_attributes(
            QueueUrl=self.url, AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed"]
        )["Attributes"]
        return int(answer["ApproximateNumberOfMessages"]) + int(answer["ApproximateNumberOfMessagesDelayed"])


def wait_seconds(lane: Lane, age: float) -> int:
    """How long a message of this age (seconds) waits: about half its age, within the lane's bounds, jittered."""
    shortest, longest = _DELAYS_S[lane]
    base = min(longest, max(shortest, age / 2))
    return round(min(longest, base * random.uniform(1.0, 1.5)))  # noqa: S311 - jitter, no secret


def backoff_seconds(attempt: int) -> int:
    """How long before attempt + 1: 10 s, 30 s, 90 s, halved at the most by jitter."""
    return int(10 * 3.0 ** (attempt - 1) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret


def _group(lane: Lane) -> dict[str, Any]:
    return {"MessageGroupId": RECONCILE_GROUP} if lane == "reconcile" else {}
