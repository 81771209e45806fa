"""PutImage's quota at a destination, shared out between all tasks: who puts, reserves, and waits for its turn.

One record an account and region, `free_at`: when all that was reserved so far is put, at the rate that was asked for.
So the tasks together keep to the rate, however many they are, and none has to know of another.
"""

from typing import TYPE_CHECKING, Final

from boto3.dynamodb.conditions import Attr

from ecr_relay.ledger.table import Clock, update

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

BURST_MS: Final = 1000
"""What may be put at once after a pause: a second's worth."""


class Quota:
    def __init__(self, table: "Table", clock: Clock) -> None:
        self._table = table
        self._clock = clock

    def reserve(self, registry: str, puts: int, per_second: float, within: float) -> float | None:
        """Reserve `puts` calls of PutImage at a registry (`EcrRegistry.id`); the seconds to wait before the first.

        None, and nothing is reserved, if their turn would not come `within` seconds: what is reserved is always used,
        or the turns of those who gave up would keep all others waiting.
        """
        takes, now = round(puts * 1000 / per_second), self._clock()
        latest = now + BURST_MS + int(within * 1000)
        key = (self._table, f"QUOTA#{registry}", "QUOTA")
        after_others = update(
            *key,
            "SET free_at = free_at + :takes",
            Attr("free_at").gt(now) & Attr("free_at").lte(latest),
            {"takes": takes},
        )
        if after_others is not None:
            return max(0, int(after_others["free_at"]) - takes - BURST_MS - now) / 1000
        first = update(
            *key,
            "SET free_at = :then",
            Attr("free_at").not_exists() | Attr("free_at").lte(now),
            {"then": now + takes},
        )
        return None if first is None else 0.0
