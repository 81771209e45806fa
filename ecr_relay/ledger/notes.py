"""Three small records: why a message was refused, which destination is out of order, and which is paused.

A breaker is opened by a copy that found the destination as a whole refusing (credentials, network, throttling), and
closes by itself: the first message after `until` tries again. A pause is an operator's, and lasts until it is taken
back; messages of both are deferred.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ecr_relay.ledger.table import Clock, read

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

KEEP_S: Final = 21 * 86_400
"""Longer than the copy queue (7 days) and the dead-letter queue (14 days) keep the message."""
BREAKER_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Breaker:
    destination: str
    until: int
    reason: str


class Notes:
    def __init__(self, table: "Table", clock: Clock) -> None:
        self._table = table
        self._clock = clock

    def refuse(self, message_id: str, reason: str) -> None:
        """Remember why a message will lie in the dead-letter queue."""
        now = self._clock()
        self._table.put_item(
            Item={
                "pk": f"MSG#{message_id}",
                "sk": "MSG",
                "reason": reason[:2000],
                "refused_at": now,
                "expires_at": now // 1000 + KEEP_S,
            }
        )

    def refusal(self, message_id: str) -> str | None:
        item = read(self._table, f"MSG#{message_id}", "MSG")
        return None if item is None else item["reason"]

    def open_breaker(self, destination: str, reason: str) -> None:
        now = self._clock()
        self._table.put_item(
            Item={
                "pk": f"BREAKER#{destination}",
                "sk": "BREAKER",
                "until": now + BREAKER_MS,
                "reason": reason[:2000],
                "expires_at": now // 1000 + 86_400,
            }
        )

    def breaker(self, destination: str) -> Breaker | None:
        """The open breaker of a destination, None while it is closed."""
        item = read(self._table, f"BREAKER#{destination}", "BREAKER")
        if item is None or int(item["until"]) <= self._clock():
            return None
        return Breaker(destination, int(item["until"]), item["reason"])

    def pause(self, destination: str) -> bool:
        """Launch nothing for a destination until `resume`; False if it was so before."""
        now = self._clock()
        seen = read(self._table, _paused(destination), "PAUSED")
        if seen is None:
            self._table.put_item(Item={"pk": _paused(destination), "sk": "PAUSED", "since": now})
        return seen is None

    def resume(self, destination: str) -> bool:
        """False if it was not paused."""
        seen = read(self._table, _paused(destination), "PAUSED")
        self._table.delete_item(Key={"pk": _paused(destination), "sk": "PAUSED"})
        return seen is not None

    def paused(self, destination: str) -> int | None:
        """Since when (ms) a destination is paused; None: it is not."""
        item = read(self._table, _paused(destination), "PAUSED")
        return None if item is None else int(item["since"])


def _paused(destination: str) -> str:
    return f"PAUSED#{destination}"
