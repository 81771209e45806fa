"""Tag records: which digest did this tag get at this destination, and who is at it now?

    acquire  owner, until set          if nobody owns it, or the owner's time is over by a minute
    intend   digest, put set,          if still mine: before a put, so that after a crash it is known to have been ours
             verified_at removed
    commit   digest, verified_at set   if still mine; the lock goes with it
    release  the lock goes             nothing is said of the digest, unless one was put for now
    gone     gone_since set            the source was seen without it; a commit removes that
    forget   the record goes           with the tag at the destination, under the lock
    doubt    verified_at removed       the lock was lost before the put had landed: nobody may skip on this record
    fail     failed_at, error, its     an immutable tag that holds another digest, or somebody else's tag: permanent;
             class, state set          a commit removes them

Who is refused keeps its message and looks again, and the source is read only under the lock: so the last commit was
made by one that read the source after every message was sent.

A lock lasts LOCK_MS and may be broken LOCK_MS later; its holder puts a tag only with half of it left. ECR has no
conditional put: a process that stalls for longer than that between its check and its socket, and then dies before it
can say so (`doubt`), has put an old digest. The reconcile heals that.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from boto3.dynamodb.conditions import Attr
from botocore.exceptions import ClientError

from ecr_relay.errors import TagTaken
from ecr_relay.ledger.table import SKEW_MS, Clock, Item, Target, condition_failed, read, update

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.service_resource import Table

LOCK_MS: Final = 60_000
REFUSED: Final = "refused"
"""The `state` of a tag that failed, by which the sparse index has it: few, and none that a digest's record says."""


@dataclass(frozen=True, slots=True)
class TagRecord:
    """`digest` is what the tag was given last, `seen_at` when the source was seen to have it there; `put` what we gave
    it last ourselves, and did not find there."""

    digest: str | None = None
    verified_at: int | None = None
    seen_at: int = 0
    owner: str | None = None
    until: int = 0
    failed_at: int | None = None
    error: str | None = None
    error_class: str | None = None
    gone_since: int | None = None
    put: str | None = None

    def says(self, digest: str | None, as_of: int | None) -> bool:
        """Whether the tag was committed to `digest` (any, if None), nobody is at it, and it is believed."""
        return (
            self.owner is None
            and self.digest is not None
            and digest in (None, self.digest)
            and self.verified_at is not None
            and (as_of is None or self.verified_at > as_of + SKEW_MS)
        )

    def settled_since(self, seen_at: int) -> bool:
        """Whether a commit, or a refusal for good, came after the source was seen at `seen_at`."""
        return self.owner is None and max(self.verified_at or 0, self.failed_at or 0) >= seen_at

    def foreign(self, there: str | None) -> bool:
        """Whether what the tag has at the destination was put there by somebody else.

        Where a put of ours may have landed unseen, nothing is known, so nobody else is blamed.
        """
        unsure = self.digest is not None and self.verified_at is None
        return there is not None and there != self.digest and not unsure

    def given_up(self, sent_at: int) -> bool:
        """Whether a message sent at `sent_at` must try no more; a later one starts over."""
        return self.failed_at is not None and sent_at <= self.failed_at


class Tags:
    def __init__(self, table: "Table", clock: Clock) -> None:
        self._table = table
        self._clock = clock

    def get(self, target: Target, tag: str) -> TagRecord:
        """One consistent read."""
        item = read(self._table, target.pk, _sk(tag))
        return TagRecord() if item is None else record(item)

    def acquire(self, target: Target, tag: str, me: str) -> TagRecord | None:
        """Lock the tag; None if another holds it."""
        now = self._clock()
        # Mine already: by a first call whose answer was lost; the SDK repeats it.
        free = Attr("owner").not_exists() | Attr("owner").eq(me) | Attr("until").lt(now - LOCK_MS)
        item = update(
            self._table,
            target.pk,
            _sk(tag),
            "SET #owner = :me, #until = :until",
            free,
            {"me": me, "until": now + LOCK_MS},
        )
        return None if item is None else record(item)

    def held(self, record: TagRecord) -> bool:
        """Whether enough of the lock is left to put a tag under it."""
        return self._clock() < record.until - LOCK_MS // 2

    def intend(self, target: Target, tag: str, held: TagRecord, digest: str) -> bool:
        """Note what the tag is about to be given; False if the lock was lost."""
        item = update(
            self._table,
            target.pk,
            _sk(tag),
            "SET digest = :digest, #put = :digest REMOVE verified_at",
            Attr("owner").eq(held.owner),
            {"digest": digest},
        )
        return item is not None

    def commit(self, target: Target, tag: str, held: TagRecord, digest: str, seen_at: int) -> bool:
        """Say that the tag has `digest`; False if the lock was lost."""
        item = update(
            self._table,
            target.pk,
            _sk(tag),
            "SET digest = :digest, verified_at = :now, seen_at = :seen "
            "REMOVE #owner, #until, failed_at, #error, error_class, #state, changed_at, gone_since",
            Attr("owner").eq(held.owner),
            {"digest": digest, "now": self._clock(), "seen": seen_at},
        )
        return item is not None

    def put_for_now(self, target: Target, tag: str, held: TagRecord, digest: str, seen_at: int) -> bool:
        """Note what the tag was given while a newer digest is still on its way; it is no commit."""
        item = update(
            self._table,
            target.pk,
            _sk(tag),
            "SET digest = :digest, seen_at = :seen REMOVE #owner, #until, verified_at",
            Attr("owner").eq(held.owner),
            {"digest": digest, "seen": seen_at},
        )
        return item is not None

    def release(self, target: Target, tag: str, held: TagRecord) -> None:
        update(self._table, target.pk, _sk(tag), "REMOVE #owner, #until", Attr("owner").eq(held.owner), {})

    def fail(self, target: Target, tag: str, error: TagTaken) -> None:
        """The destination refuses this tag for good. Needs no lock, and leaves one alone."""
        update(
            self._table,
            target.pk,
            _sk(tag),
            "SET failed_at = :now, #error = :error, error_class = :class, #state = :state, changed_at = :now",
            None,
            {"now": self._clock(), "error": str(error), "class": type(error).__name__, "state": REFUSED},
        )

    def gone(self, target: Target, tag: str, digest: str, since: int | None) -> None:
        """Note since when (ms) the source is without this tag, or (None) that it has it again."""
        expression = "REMOVE gone_since" if since is None else "SET gone_since = :since"
        values = {} if since is None else {"since": since}
        update(self._table, target.pk, _sk(tag), expression, Attr("digest").eq(digest), values)

    def forget(self, target: Target, tag: str, held: TagRecord) -> None:
        """The tag is no more at the destination; does nothing if the lock was lost."""
        try:
            self._table.delete_item(
                Key={"pk": target.pk, "sk": _sk(tag)}, ConditionExpression=Attr("owner").eq(held.owner)
            )
        except ClientError as error:
            if not condition_failed(error):
                raise

    def doubt(self, target: Target, tag: str) -> None:
        """Whatever was committed, the destination may have something else now."""
        update(self._table, target.pk, _sk(tag), "REMOVE verified_at", Attr("pk").exists(), {})


def _sk(tag: str) -> str:
    return f"T#{tag}"


def name(item: Item) -> str:
    """Of the tag that an item of the table, or of its index, is about."""
    return str(item["sk"]).removeprefix("T#")


def record(item: Item) -> TagRecord:
    """The record that an item of the table, or of its index, holds."""

    def number(name: str) -> int | None:
        return int(item[name]) if name in item else None

    return TagRecord(
        digest=item.get("digest"),
        verified_at=number("verified_at"),
        seen_at=number("seen_at") or 0,
        owner=item.get("owner"),
        until=number("until") or 0,
        failed_at=number("failed_at"),
        error=item.get("error"),
        # What failed before a release that noted the class.
        error_class=item.get("error_class", TagTaken.__name__ if "failed_at" in item else None),
        gone_since=number("gone_since"),
        put=item.get("put"),
    )
