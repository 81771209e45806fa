"""Propagating deletes: what `absences` says, noted in the ledger and, when its time has come, done at the destination.

A tag is removed under its lock, after one more look at the source: a push that comes in between waits for the lock,
and finds the tag gone. An index goes before its children, which are noted then, and follow a day later by the same
conditions: what has a tag, or what another index lists, stays.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal
from uuid import uuid4

from ecr_relay import rules
from ecr_relay.absences import Absences, Put, absences
from ecr_relay.config import Destination
from ecr_relay.converge import Place
from ecr_relay.errors import Missing, Permanent
from ecr_relay.images import Listed, subject_of_tag
from ecr_relay.ledger import DigestRecord, TagRecord
from ecr_relay.ledger.lookups import Lookups
from ecr_relay.relay import Relay

_EMPTY: Final = "the source's repository is gone or empty, and an empty listing removes nothing"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Due(Absences):
    """With the digest records that were read on the way."""

    records: dict[str, DigestRecord] | None = None


def wanted(relay: Relay, destination: Destination, repository: str) -> bool:
    """Whether any rule may have a delete propagated here, so that the ledger is worth reading."""
    return any(rule.deletes == "propagate" for rule in rules.concerning(relay.config, destination, repository))


def due(relay: Relay, place: Place, source: Collection[Listed], there: Collection[Listed], listed_at: int) -> Due:
    """What to note, and what to remove. `source` and `there` are complete listings, `listed_at` in ms."""
    lookups, target = Lookups(relay.ledger.table), place.target
    records = {record.digest: record for record in lookups.of_repository(target) if record.status == "copied"}
    tagged = Counter(one.digest for one in there if one.tag is not None)
    brought = {digest for digest, record in records.items() if record.brought}
    put = [
        Put(tag, known.digest, known.gone_since)
        for tag, known in lookups.tags([target])[target].items()
        if known.digest and known.put == known.digest
    ]
    put += [Put(None, digest, records[digest].gone_since) for digest in brought]

    def propagates(tag: str | None, digest: str) -> bool:
        return _propagates(relay, place, tag, records.get(digest))

    found = absences(put, _pairs(source), _pairs(there), propagates, listed_at)
    going = Counter(one.digest for one in found.remove if one.tag is not None)
    # With its last tag goes the image, which has to be ours, too.
    remove = tuple(
        one
        for one in found.remove
        if one.tag is None or one.digest in brought or going[one.digest] < tagged[one.digest]
    )
    return Due(found.began, found.ended, remove, records)


def stays(
    relay: Relay, place: Place, tag: str | None, digest: str, tagged: TagRecord, record: DigestRecord
) -> str | None:
    """Why `digest`, which the destination has (under `tag`) and the source has not, is never removed there; None if it
    is. `tagged` and `record` are what the ledger knows of the two. Raises CopyError where a registry does not answer.
    """
    if not wanted(relay, place.settings, place.source_repository):
        return "no rule propagates deletes"
    if not _propagates(relay, place, tag, record if record.status == "copied" else None):
        return "no rule that selects it propagates deletes"
    ours = record.status == "copied" and record.brought
    if not ours if tag is None else not digest == tagged.digest == tagged.put:
        return "this relay did not put it there"
    lines = place.destination.lines(place.destination_repository, digest)
    others = {one.tag for one in lines if one.tag is not None} - {tag}
    if tag is None and others:
        return f"it has a tag there: {min(others)}"
    if not ours and all(_goes(relay, place, other, digest) for other in others):
        return "the image would lose its last tag, and this relay did not bring the image"
    try:
        if next(iter(place.source.images(place.source_repository)), None) is None:
            return _EMPTY
    except Missing:
        return _EMPTY
    return None


def _goes(relay: Relay, place: Place, tag: str, digest: str) -> bool:
    """Whether a tag is this relay's, and the source has lost it, too."""
    known = relay.ledger.tags.get(place.target, tag)
    return digest == known.digest == known.put and place.source.resolve(place.source_repository, tag) is None


def propagate(
    relay: Relay, place: Place, source: Collection[Listed], there: Collection[Listed], listed_at: int, before: int
) -> Iterator[Literal["deleted", "held"]]:
    """One for each that was deleted, as it is; or for each that is held, because with those `before` them in this
    reconcile they are more than `max_deletes`: they wait for an operator.

    Raises CopyError where a registry does not answer, with those behind it that were deleted before.
    """
    found = due(relay, place, source, there, listed_at)
    records = found.records or {}
    for one in found.began:
        _note(relay, place, one, records, listed_at)
    for one in found.ended:
        _note(relay, place, one, records, None)
    if before + len(found.remove) > place.settings.max_deletes:
        facts = {"repository": place.source_repository, "destination": place.settings.name}
        _log.warning(
            "more deletes than max_deletes; none is done until it is raised", extra=facts | {"held": len(found.remove)}
        )
        for _ in found.remove:
            yield "held"
        return
    for one in found.remove:
        if _remove(relay, place, one):
            yield "deleted"


def _pairs(listed: Collection[Listed]) -> set[tuple[str | None, str]]:
    return {(one.tag, one.digest) for one in listed}


def _propagates(relay: Relay, place: Place, tag: str | None, record: DigestRecord | None) -> bool:
    config, repository = relay.config, place.source_repository
    if subject_of_tag(tag) if tag is not None else record is not None and record.subject:
        # Where rules disagree, it would be up to the subject, which the source may have lost, too: so it stays.
        agreed = rules.are_of_one_mind(config, place.settings, repository)
        selections = rules.referring(config, repository) if agreed else ()
    elif tag is not None:
        selections = rules.selections(config, repository, tag)
    else:  # an image that lost its tag long ago, which any rule for the repository may have brought: so all must say so
        return all(rule.deletes == "propagate" for rule in rules.concerning(config, place.settings, repository))
    return any(one.rule.deletes == "propagate" for one in selections if one.destination == place.settings)


def _note(relay: Relay, place: Place, one: Put, records: dict[str, DigestRecord], since: int | None) -> None:
    if one.tag is not None:
        relay.ledger.tags.gone(place.target, one.tag, one.digest, since)
    else:
        relay.ledger.digests.gone(records[one.digest], since)


def _remove(relay: Relay, place: Place, one: Put) -> bool:
    children = place.destination.children(place.destination_repository, one.digest)
    facts = {"repository": place.source_repository, "destination": place.settings.name, "digest": one.digest}
    try:
        done = _untag(relay, place, one.tag, one.digest) if one.tag is not None else _delete(place, one.digest)
    except Permanent as error:  # an index lists it
        _log.info("not deleted", extra=facts | {"tag": one.tag, "reason": str(error)})
        return False
    if not done:
        return False
    _log.info("deleted", extra=facts | {"tag": one.tag})
    if not place.destination.has(place.destination_repository, one.digest):
        record = relay.ledger.digests.get(place.target, one.digest)
        if record.status == "copied":
            relay.ledger.digests.forget(replace(record, healed_at=None))  # by us, so it is no eviction
        for child in children:
            relay.ledger.digests.came_along(place.target, child)
    return True


def _untag(relay: Relay, place: Place, tag: str, digest: str) -> bool:
    tags = relay.ledger.tags
    held = tags.acquire(place.target, tag, uuid4().hex)
    if held is None:
        return False
    try:
        if place.source.resolve(place.source_repository, tag) is not None:
            return False  # it came back since it was listed
        if place.destination.resolve(place.destination_repository, tag) != digest:
            return False  # it is somebody else's now
        if not tags.held(held):
            return False  # and may be put by somebody else at any moment
        place.destination.delete(place.destination_repository, digest, tag)
        tags.forget(place.target, tag, held)
    finally:
        tags.release(place.target, tag, held)
    return True


def _delete(place: Place, digest: str) -> bool:
    """By digest, which takes every tag along; not what the source still has, though it does not list it."""
    if place.source.has(place.source_repository, digest):
        return False
    if any(one.tag is not None for one in place.destination.lines(place.destination_repository, digest)):
        return False  # since it was listed
    place.destination.delete(place.destination_repository, digest, None)
    return True
