"""The ledger, image by image."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Final, Literal

from pydantic import Field

from ecr_relay import globs
from ecr_relay.ledger import DigestRecord, TagRecord
from ecr_relay.ledger.digests import Status
from ecr_relay.ledger.queries import BadCursor, Entry
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.failures import Unusable
from ecr_relay.operate.shapes import Shape, at

INDEXED: Final = ("copying", "waiting", "failed", "exhausted")
STATUSES: Final = (*INDEXED, "copied")


class Image(Shape):
    """One digest at one destination."""

    destination: str
    repository: str
    digest: str
    tags: list[str] = Field(description="that the relay last gave to this digest there")
    status: Literal["absent", "copying", "copied", "waiting", "failed", "exhausted"]
    attempts: int = Field(description="of the copy that is on or has failed; 0 when copied")
    first_seen: datetime | None = Field(description="when it was pushed, or found missing")
    verified_at: datetime | None = Field(description="when the destination was last seen to have it")
    arrived_at: datetime | None = Field(description="when it was first; not moved by a heal that found it there")
    lag_seconds: float | None = Field(description="from first_seen to arrived_at")
    failed_at: datetime | None
    error_class: str | None
    error: str | None
    run: str | None = Field(description="the last that had it to copy")


class Images(Shape):
    images: list[Image]
    next: str | None = Field(description="where the next page begins (`--after`); null: there is none")


class Selection(Shape):
    """What is asked for; None: all. `repository` may be a glob."""

    repository: str | None = None
    destination: str | None = None
    status: Status | None = None

    def takes(self, record: DigestRecord) -> bool:
        return (
            (self.repository is None or globs.matches(record.target.repository, [self.repository]))
            and self.destination in (None, record.target.destination)
            and self.status in (None, record.status)
        )


def images(deployment: Deployment, selection: Selection, limit: int = 100, after: str | None = None) -> Images:
    """By the cheapest way there is: a repository's own records, the index of what runs or failed, else all of them.

    Raises Unusable for a destination that is not configured or an `after` that no page ended with.
    """
    deployment.destinations(selection.destination)
    entries = (entry for entry in _entries(deployment, selection, after) if selection.takes(entry[0]))
    try:
        found = list(islice(entries, limit))
        more = len(found) == limit and next(entries, None) is not None
    except BadCursor as error:
        raise Unusable(f"--after: {error}; take `next` of the page before") from None
    tags = deployment.queries.tags(record.target for record, _ in found)
    return Images(
        images=[image(record, tags[record.target]) for record, _ in found], next=found[-1][1] if more else None
    )


def image(record: DigestRecord, tags: dict[str, TagRecord]) -> Image:
    """`tags`: of its repository, whatever their digest."""
    arrived, first = record.arrived_at, record.first_seen
    return Image(
        destination=record.target.destination,
        repository=record.target.repository,
        digest=record.digest,
        tags=sorted(tag for tag, known in tags.items() if known.digest == record.digest),
        status=record.status,
        attempts=record.attempts,
        first_seen=at(first),
        verified_at=at(record.verified_at),
        arrived_at=at(arrived),
        lag_seconds=round((arrived - first) / 1000, 3) if arrived and first and arrived >= first else None,
        failed_at=at(record.failed_at),
        error_class=record.error_class,
        error=record.error,
        run=record.run,
    )


def _entries(deployment: Deployment, selection: Selection, after: str | None) -> Iterator[Entry]:
    queries = deployment.queries
    if selection.repository is not None and globs.is_literal(selection.repository):
        names = deployment.destinations(selection.destination)
        return queries.of_repositories([deployment.target(name, selection.repository) for name in names], after)
    if selection.status in INDEXED:
        return queries.in_state(selection.status, after)
    return queries.everything(after, status=selection.status)
