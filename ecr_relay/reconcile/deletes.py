"""Propagating deletes: what `absences` says, noted in the ledger and, when its time has come, done at the destination.

A tag is removed under its lock, after one more look at the source: a push that comes in between waits for the lock,
and finds the tag gone.
"""

import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from ecr_relay import rules
from ecr_relay.absences import Absences, Put, absences
from ecr_relay.config import Destination
from ecr_relay.converge import Place
from ecr_relay.errors import Permanent
from ecr_relay.images import Listed, subject_of_tag
from ecr_relay.ledger import DigestRecord
from ecr_relay.ledger.lookups import Lookups
from ecr_relay.relay import Relay

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Due(Absences):
    """With the digest records that were read on the way."""

    records: dict[str, DigestRecord] | None = None


def wanted(relay: Relay, destination: Destination, repository: str) -> bool:
    """Whether any rule may have a delete propagated here, so that the ledger is worth reading."""
    return any(
        rule.deletes == "propagate" and (not rule.destinations or destination.name in rule.destinations)
        for rule in relay.config.rules
    ) and rules.concerns(relay.config, repository)


def due(relay: Relay, place: Place, source: Collection[Listed], there: Collection[Listed], listed_at: int) -> Due:
    """What to note, and what to remove. `source` and `there` are complete listings, `listed_at` in ms."""
    lookups, target = Lookups(relay.ledger.table), place.target
    records = {record.digest: record for record in lookups.of_repository(target) if record.status == "copied"}
    rows = [row for row in lookups.tags([target])[target] if row.digest and row.verified_at]
    put = [Put(row.tag, row.digest or "", row.gone_since) for row in rows]
    put += [Put(None, record.digest, record.gone_since) for record in records.values()]

    def propagates(tag: str | None, digest: str) -> bool:
        return _propagates(relay, place, tag, records.get(digest))

    found = absences(put, _pairs(source), _pairs(there), propagates, listed_at)
    return Due(found.began, found.ended, found.remove, records)


def propagate(
    relay: Relay, place: Place, source: Collection[Listed], there: Collection[Listed], listed_at: int, before: int
) -> dict[str, int]:
    """How many were `deleted`, or `held` because with those `before` them in this reconcile they are more than
    `max_deletes`: they wait for an operator.

    Raises CopyError where a registry does not answer.
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
        return {"held": len(found.remove)}
    # Tags first: with its last one goes an index, and only then its children.
    ordered = sorted(found.remove, key=lambda one: one.tag is None)
    return {"deleted": sum(_remove(relay, place, one) for one in ordered)}


def _pairs(listed: Collection[Listed]) -> set[tuple[str | None, str]]:
    return {(one.tag, one.digest) for one in listed}


def _propagates(relay: Relay, place: Place, tag: str | None, record: DigestRecord | None) -> bool:
    config, repository = relay.config, place.source_repository
    if subject_of_tag(tag) if tag is not None else record is not None and record.subject:
        selections = rules.referring(config, repository)
    elif tag is not None:
        selections = rules.selections(config, repository, tag)
    else:  # an image that lost its tag long ago, which any rule for the repository may have brought
        return wanted(relay, place.settings, repository)
    return any(one.rule.deletes == "propagate" for one in selections if one.destination == place.settings)


def _note(relay: Relay, place: Place, one: Put, records: dict[str, DigestRecord], since: int | None) -> None:
    if one.tag is not None:
        relay.ledger.tags.gone(place.target, one.tag, one.digest, since)
    else:
        relay.ledger.digests.gone(records[one.digest], since)


def _remove(relay: Relay, place: Place, one: Put) -> bool:
    children = place.destination.children(place.destination_repository, one.digest)
    if not (_untag(relay, place, one.tag, one.digest) if one.tag is not None else _delete(place, one.digest)):
        return False
    facts = {"repository": place.source_repository, "destination": place.settings.name}
    _log.info("deleted", extra=facts | {"tag": one.tag, "digest": one.digest})
    if not place.destination.has(place.destination_repository, one.digest):
        record = relay.ledger.digests.get(place.target, one.digest)
        if record.status == "copied":
            relay.ledger.digests.forget(record)
        for child in children:
            _delete(place, child)
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
        place.destination.delete(place.destination_repository, digest, tag)
        tags.forget(place.target, tag, held)
    finally:
        tags.release(place.target, tag, held)
    return True


def _delete(place: Place, digest: str) -> bool:
    """By digest; not what the source has, nor what an index at the destination still lists."""
    if place.source.has(place.source_repository, digest):
        return False
    with suppress(Permanent):
        place.destination.delete(place.destination_repository, digest, None)
    return not place.destination.has(place.destination_repository, digest)
