"""Digest records: has this manifest, with all that it refers to, arrived at this destination?

              claim              copied
    absent ----------> copying ----------> copied      and back: claim when not believed (a heal),
                       |  |  ^                         forget when the destination has lost it
              release, |  |  |
    interrupt (m < 10) |  |  | claim
                       v  |  |
                 waiting -|--+   the attempt is given back: not launched, stopped by Spot, destination down; or
                          |  |   its task ended and left no outcome, for the m-th time in a row
                    fail, |  |
      interrupt (m >= 10) v  |
                 failed (n < 3)
                 exhausted (n = 3, or permanent)     a claim for a message sent after `failed_at`, by another than
                                                     us, starts over at n = 1, m = 0

An attempt is a claim; `attempts` (n) counts them. `interruptions` (m) are counted apart: a host that vanished says
nothing about the image, until it has happened so often that the image may be what kills its copier. What is copied, or
starts over, has none. Every arrow is one write, conditional on the `version` that was read.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from boto3.dynamodb.conditions import Attr
from botocore.exceptions import ClientError

from ecr_relay.errors import CopyError, Permanent
from ecr_relay.ledger.table import SKEW_MS, Clock, Item, Target, condition_failed, read

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

ATTEMPTS: Final = 3
"""The queue's maxReceiveCount, and as many claims."""
INTERRUPTIONS: Final = 10
"""So many tasks in a row that ended under an image are its own doing; each further one is a failed attempt."""
REST_MS: Final = 10_000
"""How long an image is left alone after the first interruption; each further one doubles it, up to REST_MAX_MS."""
REST_MAX_MS: Final = 300_000
ERROR_LIMIT: Final = 2000
"""Characters of an error that are kept."""

Status = Literal["absent", "copying", "copied", "waiting", "failed", "exhausted"]


@dataclass(frozen=True, slots=True)
class DigestRecord:
    """What the ledger knows of one digest at one destination. `status` absent: no record.

    `verified_at` is when the destination was last seen to have it, `arrived_at` when this copy of it was first.
    `healed_at`: when the reconcile had to have it copied again, and no push has brought it since; `gone_since`: when
    the source was first seen without it; `subject`: what it refers to, if it is a referrer; `brought`: by a copy of
    ours, and not there before.
    """

    target: Target
    digest: str
    status: Status = "absent"
    version: int = 0
    run: str | None = None
    attempts: int = 0
    interruptions: int = 0
    first_seen: int | None = None
    verified_at: int | None = None
    arrived_at: int | None = None
    failed_at: int | None = None
    error: str | None = None
    error_class: str | None = None
    changed_at: int = 0
    subject: str | None = None
    healed_at: int | None = None
    gone_since: int | None = None
    brought: bool = False

    def believed(self, as_of: int | None) -> bool:
        """Whether it counts as copied for one who listed the destination at `as_of`."""
        return self.status == "copied" and (as_of is None or (self.verified_at or 0) > as_of + SKEW_MS)

    def given_up(self, sent_at: int) -> bool:
        """Whether a message sent at `sent_at` must launch nothing more; a later one starts over."""
        return self.status == "exhausted" and sent_at <= (self.failed_at or 0)

    def for_message(self, sent_at: int) -> "DigestRecord":
        """As a message finds it that was sent at `sent_at`, and not to wait: one sent after a failure starts over.

        So a redrive has fresh attempts, also when SQS gave the message up before the image was: consumers that die use
        up receives, and no attempts.
        """
        after = self.failed_at is not None and sent_at > self.failed_at + SKEW_MS
        return replace(self, attempts=0, interruptions=0) if self.status == "failed" and after else self

    @property
    def rests_until(self) -> int:
        """ms since the epoch: an image whose task has just ended under it is not claimed again before."""
        if self.status != "waiting" or not self.interruptions:
            return 0
        return self.changed_at + min(REST_MAX_MS, REST_MS << (self.interruptions - 1))

    @property
    def evicted(self) -> bool:
        """Of what is missing there: whether the destination removes what is brought, since it was healed before.

        However long ago: a lifecycle policy that counts days may count many.
        """
        return self.status in ("copied", "absent") and self.healed_at is not None

    def claimed(
        self, run: str, now: int, first_seen: int, *, heals: bool = False, subject: str | None = None
    ) -> "DigestRecord":
        over = self.status in ("copied", "exhausted")
        healed_at = (now if self.status == "copied" else self.healed_at) if heals else None
        return replace(
            self,
            status="copying",
            run=run,
            attempts=1 if over else self.attempts + 1,
            interruptions=0 if over else self.interruptions,
            first_seen=first_seen,
            arrived_at=None,
            changed_at=now,
            subject=subject or self.subject,
            healed_at=healed_at,
            gone_since=None,
        )

    def copied(self, now: int, *, brought: bool = False) -> "DigestRecord":
        return replace(
            self,
            status="copied",
            brought=brought or self.brought,
            verified_at=now,
            arrived_at=self.arrived_at or now,
            changed_at=now,
            attempts=0,
            interruptions=0,
            failed_at=None,
            error=None,
            error_class=None,
        )

    def failed(self, now: int, error: CopyError) -> "DigestRecord":
        final = isinstance(error, Permanent) or self.attempts >= ATTEMPTS
        return replace(
            self,
            status="exhausted" if final else "failed",
            failed_at=now,
            changed_at=now,
            error=str(error)[:ERROR_LIMIT],
            error_class=type(error).__name__,
        )

    def released(self, now: int, error: CopyError) -> "DigestRecord":
        """As before the claim, so that the attempt does not count."""
        return replace(
            self,
            status="waiting",
            attempts=max(0, self.attempts - 1),
            changed_at=now,
            error=str(error)[:ERROR_LIMIT],
            error_class=type(error).__name__,
        )

    def interrupted(self, now: int, error: CopyError) -> "DigestRecord":
        """Its task ended and left no outcome: no attempt, until that has happened too often."""
        again = replace(self, interruptions=self.interruptions + 1)
        return again.failed(now, error) if again.interruptions >= INTERRUPTIONS else again.released(now, error)


_INDEXED: Final = ("copying", "waiting", "failed", "exhausted")
_STORED: Final = tuple(field.name for field in fields(DigestRecord) if field.name not in ("target", "digest"))


class Digests:
    def __init__(self, table: "Table", clock: Clock) -> None:
        self._table = table
        self._clock = clock

    def get(self, target: Target, digest: str) -> DigestRecord:
        """One consistent read."""
        item = read(self._table, target.pk, _sk(digest))
        return DigestRecord(target, digest) if item is None else record(item)

    def claim(
        self, seen: DigestRecord, run: str, first_seen: int, *, heals: bool = False, subject: str | None = None
    ) -> DigestRecord | None:
        """The digest is `run`'s to copy; None if somebody else changed the record since it was seen.

        `heals`: the reconcile asks for it, not a push.
        """
        return self._write(seen, seen.claimed(run, self._clock(), first_seen, heals=heals, subject=subject))

    def copied(self, target: Target, digest: str, run: str, *, brought: bool = True) -> DigestRecord | None:
        """The manifest was verified at the destination; None if the claim is no longer `run`'s.

        `brought`: by this run; else it was there.
        """
        return self._end(target, digest, run, lambda record: record.copied(self._clock(), brought=brought))

    def present(self, seen: DigestRecord) -> DigestRecord | None:
        """The destination was asked and has it, so no copy is needed. None if the record changed meanwhile."""
        return self._write(seen, seen.copied(self._clock()))

    def fail(self, target: Target, digest: str, run: str, error: CopyError) -> DigestRecord | None:
        """The attempt failed; None if the claim is no longer `run`'s."""
        return self._end(target, digest, run, lambda record: record.failed(self._clock(), error))

    def release(self, target: Target, digest: str, run: str, error: CopyError) -> DigestRecord | None:
        """The attempt does not count; None if the claim is no longer `run`'s."""
        return self._end(target, digest, run, lambda record: record.released(self._clock(), error))

    def interrupt(self, target: Target, digest: str, run: str, error: CopyError) -> DigestRecord | None:
        """The run's task is no more, and left no outcome; None if the claim is no longer `run`'s."""
        return self._end(target, digest, run, lambda record: record.interrupted(self._clock(), error))

    def came_along(self, target: Target, digest: str) -> None:
        """An index that we brought, and that is gone, has left this child of its behind; unless it has a record."""
        now = self._clock()
        self._write(
            DigestRecord(target, digest), DigestRecord(target, digest, gone_since=now).copied(now, brought=True)
        )

    def gone(self, seen: DigestRecord, since: int | None) -> bool:
        """The source was seen without it, or (None) with it again; False if the record changed meanwhile."""
        return self._write(seen, replace(seen, gone_since=since)) is not None

    def forget(self, seen: DigestRecord) -> bool:
        """The destination has lost what the ledger says it has; False if the record changed meanwhile."""
        lost = replace(
            seen,
            status="absent",
            run=None,
            verified_at=None,
            arrived_at=None,
            brought=False,
            gone_since=None,
            changed_at=self._clock(),
        )
        return self._write(seen, lost) is not None

    def _end(
        self, target: Target, digest: str, run: str, change: Callable[[DigestRecord], DigestRecord]
    ) -> DigestRecord | None:
        seen = self.get(target, digest)
        if seen.status != "copying" or seen.run != run:
            return None
        return self._write(seen, change(seen))

    def _write(self, seen: DigestRecord, new: DigestRecord) -> DigestRecord | None:
        written = replace(new, version=seen.version + 1)
        values = {name: getattr(written, name) for name in _STORED if getattr(written, name) is not None}
        if written.status in _INDEXED:
            values["state"] = written.status
        condition: Any = Attr("version").eq(seen.version) if seen.version else Attr("pk").not_exists()
        try:
            self._table.put_item(
                Item={"pk": seen.target.pk, "sk": _sk(seen.digest), **values}, ConditionExpression=condition
            )
        except ClientError as error:
            if not condition_failed(error):
                raise
            # The SDK repeats a call whose answer was lost, and then finds its own first write in the way.
            return written if self.get(seen.target, seen.digest) == written else None
        return written


def _sk(digest: str) -> str:
    return f"D#{digest}"


def record(item: Item) -> DigestRecord:
    """The record that an item of the table, or of its index, holds."""
    values = {name: item[name] for name in _STORED if name in item}
    numbers = {name: int(value) for name, value in values.items() if isinstance(value, Decimal)}
    return DigestRecord(Target.of(item["pk"]), item["sk"].removeprefix("D#"), **{**values, **numbers})
