"""How long pushed images took to arrive, as a histogram of each five minutes: what p50 and p99 of an hour are made of.

Counting costs one small write an arrival, and reading an hour one query of 13 items, however many arrived: the records
of what arrived are in no index, and to find the last hour's among them would read the whole table. All counts are in
one partition, which takes 1,000 writes a second (DynamoDB quotas); PutImage allows 10 arrivals a second in a region.
"""

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from boto3.dynamodb.conditions import Key
from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay.ledger.table import Clock, update

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

SPAN_MS: Final = 300_000
HOUR_MS: Final = 3_600_000
KEEP_S: Final = 86_400
_STEPS: Final = 4
"""Buckets for each doubling, from a second up: a figure is at most 19 % too high, and never too low."""
_LAST: Final = 20 * _STEPS
"""Twelve days: what took longer than the queue keeps a message."""
_PK: Final = "LAG"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lag:
    """Of `count` arrivals; p50 and p99 in seconds, rounded up to the end of their bucket."""

    count: int
    p50: float
    p99: float


class Lags:
    def __init__(self, table: "Table", clock: Clock) -> None:
        self._table = table
        self._clock = clock

    def arrived(self, first_seen: int) -> None:
        """Count a pushed image that is there now. A figure that cannot be noted harms nobody: it raises nothing."""
        now = self._clock()
        start = now - now % SPAN_MS
        try:
            update(
                self._table,
                _PK,
                _sk(start),
                f"SET expires_at = :expires ADD b{_bucket((now - first_seen) / 1000)} :one",
                None,
                {"expires": start // 1000 + KEEP_S, "one": 1},
            )
        except (ClientError, BotoCoreError) as error:
            _log.warning("lag not noted", extra={"error": str(error)})

    def last_hour(self) -> Lag | None:
        """Of what arrived within the last hour, or up to five minutes before; None: nothing did."""
        condition = Key("pk").eq(_PK) & Key("sk").gt(_sk(self._clock() - HOUR_MS - SPAN_MS))
        counts: dict[int, int] = {}
        for item in self._table.query(KeyConditionExpression=condition, ConsistentRead=True)["Items"]:
            for name, value in item.items():
                if name.startswith("b"):
                    counts[int(name[1:])] = counts.get(int(name[1:]), 0) + int(str(value))
        total = sum(counts.values())
        return Lag(total, _percentile(counts, total, 0.50), _percentile(counts, total, 0.99)) if total else None


def _bucket(seconds: float) -> int:
    return min(_LAST, max(0, math.ceil(math.log2(max(seconds, 1.0)) * _STEPS)))


def _percentile(counts: dict[int, int], total: int, share: float) -> float:
    reached = 0
    for bucket in sorted(counts):
        reached += counts[bucket]
        if reached >= share * total:
            break
    return round(2 ** (bucket / _STEPS), 1)


def _sk(start: int) -> str:
    return f"LAG#{start:013d}"
