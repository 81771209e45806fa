"""The ledger: one DynamoDB table, the only thing that the consumer and the copier share.

    pk                                   sk          record         module
    R#<source>#<destination>#<repository> D#<digest>  digest         digests
    R#<source>#<destination>#<repository> T#<tag>     tag            tags
    SLOTS                                SLOT#<0-9>  slot           slots
    RUN#<id>                             RUN         run            runs
    MSG#<message id>                     MSG         refused one    notes
    BREAKER#<destination>                BREAKER     breaker        notes
    PAUSED#<destination>                 PAUSED      paused         notes
    RECONCILE#<source>                   PROGRESS    reconcile      progress
    QUOTA#<account>.<region>             QUOTA       PutImage       quota
    LAG                                  LAG#<ms>    five minutes   lags

Times are milliseconds since the epoch (`now_ms`), but for `expires_at`, DynamoDB's TTL, in seconds. `state` and
`changed_at` are the keys of the sparse index `by-state`: only what runs or failed is in it, tags that were refused too.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ecr_relay.ledger.digests import DigestRecord, Digests
from ecr_relay.ledger.lags import Lag, Lags
from ecr_relay.ledger.notes import Notes
from ecr_relay.ledger.progress import Progress, ProgressRecord
from ecr_relay.ledger.quota import Quota
from ecr_relay.ledger.runs import Job, Run, Runs, WantedTag
from ecr_relay.ledger.slots import Slot, Slots
from ecr_relay.ledger.table import Clock, Target, now_ms, open_table
from ecr_relay.ledger.tags import TagRecord, Tags

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

__all__ = [
    "Clock",
    "DigestRecord",
    "Digests",
    "Job",
    "Lag",
    "Lags",
    "Ledger",
    "Notes",
    "Progress",
    "ProgressRecord",
    "Quota",
    "Run",
    "Runs",
    "Slot",
    "Slots",
    "TagRecord",
    "Tags",
    "Target",
    "WantedTag",
    "now_ms",
    "open_table",
]


class Ledger:
    """All records over one table, and the clock that they go by. Safe to share between threads."""

    def __init__(self, table: "Table", clock: Clock = now_ms, sleep: Callable[[float], None] = time.sleep) -> None:
        self.table = table
        self.clock = clock
        self.sleep = sleep
        self.digests = Digests(table, clock)
        self.tags = Tags(table, clock)
        self.slots = Slots(table, clock)
        self.runs = Runs(table, clock)
        self.notes = Notes(table, clock)
        self.lags = Lags(table, clock)
        self.progress = Progress(table, clock)
        self.quota = Quota(table, clock)
