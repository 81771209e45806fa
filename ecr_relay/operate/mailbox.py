"""Looking into a queue that has no way to be looked into.

SQS shows a message only by receiving it, which hides it. So all that are looked at are hidden together for as long as
it takes to see each once (HOLD_S at the most, should this process be killed), and are given back before the end.
A message in a dead-letter queue is none the worse for having been received: nothing redrives it from there.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

HOLD_S: Final = 60
WAIT_S: Final = 1
"""A receive that waits asks all of SQS's servers, so that an empty answer means an empty queue (SQS developer guide:
long polling); it returns at once when there is something."""
ALL: Final = 100_000
"""How many are looked at at the most; SQS lets 120,000 be in flight."""
BATCH: Final = 10
"""Messages of one call (SQS quotas)."""
_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it lies there. Times are ms since the epoch."""

    id: str
    body: str
    sent_at: int
    receives: int
    group: str | None
    receipt_handle: str = field(repr=False)


class Mailbox:
    """What was received and is still hidden from others."""

    def __init__(self, client: "SQSClient", url: str) -> None:
        self._client = client
        self._url = url
        self._held: dict[str, Letter] = {}
        self._asking = 0
        self._lock = threading.Lock()

    @property
    def letters(self) -> list[Letter]:
        """What is held, the oldest first."""
        return sorted(self._held.values(), key=lambda letter: (letter.sent_at, letter.id))

    def fetch(self, limit: int, enough: Callable[[Letter], bool] = lambda _letter: False) -> None:
        """Hold all that the queue has, up to about `limit`, or until a letter is `enough`."""
        done = threading.Event()
        arguments: Any = {"QueueUrl": self._url, "AttributeNames": ["ApproximateNumberOfMessages"]}
        waiting = int(self._client.get_queue_attributes(**arguments)["Attributes"]["ApproximateNumberOfMessages"])
        workers = _THREADS if waiting > 5 * BATCH else 1
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self._fetch, limit, waiting, enough, done) for _ in range(workers)]
            try:
                for future in futures:
                    future.result()
            finally:
                done.set()

    def _fetch(self, limit: int, waiting: int, enough: Callable[[Letter], bool], done: threading.Event) -> None:
        while not done.is_set() and len(self._held) < limit:
            with self._lock:
                if self._asking and len(self._held) + BATCH * self._asking >= waiting:
                    return  # those who ask already bring the rest; one more would wait for nothing
                self._asking += 1
            # With all in hand that there should be, a glance is enough; else it is asked for in earnest.
            wait = 0 if self._held and len(self._held) >= waiting else WAIT_S
            received: list[Letter] = []
            try:
                received = [_letter(message) for message in self._receive(wait)]
            finally:
                with self._lock:
                    self._asking -= 1
                    new = [letter for letter in received if letter.id not in self._held]
                    self._held.update({letter.id: letter for letter in received})
            if not new or any(map(enough, new)):
                # Nothing, or only what was seen before: the round is over.
                done.set()

    def _receive(self, wait: int) -> list["MessageTypeDef"]:
        return self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=BATCH,
            VisibilityTimeout=HOLD_S,
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=["All"],
        ).get("Messages", [])

    def delete(self, letters: Sequence[Letter]) -> int:
        """Remove these for good; how many are."""
        gone = 0
        for batch in _batches(letters):
            answer = self._client.delete_message_batch(
                QueueUrl=self._url,
                Entries=[{"Id": str(n), "ReceiptHandle": letter.receipt_handle} for n, letter in enumerate(batch)],
            )
            for entry in answer.get("Successful", []):
                self._held.pop(batch[int(entry["Id"])].id, None)
                gone += 1
        return gone

    def give_back(self) -> None:
        """Let others see what is still held. One that cannot be given back comes back by itself."""
        batches = list(_batches(list(self._held.values())))
        if batches:
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(self._show, batches))
        self._held.clear()

    def _show(self, batch: Sequence[Letter]) -> None:
        try:
            self._client.change_message_visibility_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(n), "ReceiptHandle": letter.receipt_handle, "VisibilityTimeout": 0}
                    for n, letter in enumerate(batch)
                ],
            )
        except ClientError:
            return


@contextmanager
def opened(client: "SQSClient", url: str) -> Iterator[Mailbox]:
    """Whatever happens meanwhile, what is held at the end is given back."""
    mailbox = Mailbox(client, url)
    try:
        yield mailbox
    finally:
        mailbox.give_back()


def _letter(message: "MessageTypeDef") -> Letter:
    attributes = message.get("Attributes", {})
    return Letter(
        id=message["MessageId"],
        body=message["Body"],
        sent_at=int(attributes.get("SentTimestamp", 0)),
        receives=int(attributes.get("ApproximateReceiveCount", 0)),
        group=attributes.get("MessageGroupId"),
        receipt_handle=message["ReceiptHandle"],
    )


def _batches(letters: Sequence[Letter]) -> Iterator[Sequence[Letter]]:
    for start in range(0, len(letters), BATCH):
        yield letters[start : start + BATCH]
