"""What a dry run answers: an entry for each thing that a reconcile would do, or leave."""

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ecr_relay.converge import Place
from ecr_relay.plan import Wanted
from ecr_relay.reconcile import deletes
from ecr_relay.reconcile.compare import Comparison
from ecr_relay.relay import Relay

Action = Literal["copy", "retag", "delete", "observe", "evicted", "archived", "keep", "conflict"]


class Planned(BaseModel):
    """One image that would be copied, tag that would be put, or what else a reconcile would do with it."""

    model_config = ConfigDict(frozen=True)

    action: Action = Field(
        description="retag: the digest is there, and only gets the tag; observe: the rule copies nothing; evicted: it "
        "vanished there again after it had been healed, and is left alone until it is pushed again; archived: the "
        "destination has archived it, so that it cannot be pulled, and it is left alone; keep, conflict: somebody else "
        "has moved the tag there, and `on_conflict` says to leave that alone; conflict: it is a dead letter, too"
    )
    destination: str
    repository: str
    tag: str | None
    digest: str
    there: str | None = Field(default=None, description="what the tag has there now; null: nothing")
    rule: int | None = Field(default=None, description="index of the rule that says so")
    bytes: int | None = Field(
        default=None, description="as the source counts them, layers that are there already included; null: not told"
    )
    puts: int = Field(default=0, description="calls of PutImage, one for each manifest of an index and for the tag")


def planned(relay: Relay, place: Place, found: Comparison) -> Iterator[Planned]:
    """Raises CopyError where a registry does not answer. Changes nothing."""
    there = {one.digest for one in found.there if not one.archived}  # an archived one must be pushed to be tagged
    for one in found.copies:
        known = one.digest in there
        there.add(one.digest)  # a second tag of it is only put
        puts = (one.tag is not None) + (0 if known else 1 + len(place.source.children(one.repository, one.digest)))
        yield _entry("retag" if known else "copy", one, None if known else one.size, puts)
    for one in found.observed:
        yield _entry("observe", one, one.size)
    for one in found.evicted:
        yield _entry("evicted", one, one.size)
    for one in found.archived:
        yield _entry("archived", one, one.size)
    for one in found.conflicts:
        yield _entry("keep" if place.settings.on_conflict == "keep" else "conflict", one, one.size)
    if deletes.wanted(relay, place.settings, place.source_repository):
        for put in deletes.due(relay, place, found.source, found.there, found.as_of).remove:
            yield Planned(
                action="delete",
                destination=place.settings.name,
                repository=place.source_repository,
                tag=put.tag,
                digest=put.digest,
                there=put.digest,
            )


def _entry(action: Action, one: Wanted, size: int | None, puts: int = 0) -> Planned:
    return Planned(
        action=action,
        destination=one.destination,
        repository=one.repository,
        tag=one.tag,
        digest=one.digest,
        there=one.there,
        rule=one.rule,
        bytes=size,
        puts=puts,
    )
