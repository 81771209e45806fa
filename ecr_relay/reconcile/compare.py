"""One repository at one destination: both listings, and what follows from them."""

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from ecr_relay import plan, rules
from ecr_relay.config import OciSource
from ecr_relay.converge import Place
from ecr_relay.errors import CopyError, Missing
from ecr_relay.images import Listed
from ecr_relay.ledger import TagRecord
from ecr_relay.ledger.lookups import Lookups
from ecr_relay.plan import Wanted
from ecr_relay.relay import Relay

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`as_of` is when the destination was listed, in ms: before the source, so that nothing is missed."""

    as_of: int
    selected: int = 0
    """Tags, and images without, that a rule selects for the destination; what only refers to them not counted."""
    equal: int = 0
    """Of those, what the destination has with the same digest, and can give."""
    only_there: int = 0
    """Tags, and where the source lists such also images without, that the destination has and the source has not."""
    source: list[Listed] = field(default_factory=list)
    there: list[Listed] = field(default_factory=list)
    copies: list[Wanted] = field(default_factory=list)
    """To be enqueued."""
    observed: list[Wanted] = field(default_factory=list)
    """That only a rule with `mode = "observe"` wants."""
    evicted: list[Wanted] = field(default_factory=list)
    """That vanished again after they had been healed, and are left alone."""
    archived: list[Wanted] = field(default_factory=list)
    """That the destination has archived, so that they cannot be pulled, and are left alone."""
    conflicts: list[Wanted] = field(default_factory=list)
    """Whose tag somebody else has moved there, where `on_conflict` says to leave that alone."""
    failing: list[Wanted] = field(default_factory=list)
    """Of those, what is to be enqueued, so that it becomes a dead letter: it is to fail, and has not yet."""
    absent: bool = False
    """The source does not have the repository, and a rule names it."""


def compare(relay: Relay, place: Place) -> Comparison:
    """Raises CopyError where a registry does not answer. A repository that is missing at either side is empty."""
    as_of = relay.ledger.clock()
    try:
        source, there, entries = listed(relay, place, whole=False)
    except Missing:  # if no rule names it: deleted since the repositories were listed
        return Comparison(as_of, absent=place.source_repository in rules.named(relay.config))
    missing = list(plan.missing(entries, there))
    selected, differ = (sum(not entry.referrer for entry in some) for some in (entries, missing))
    beyond = _beyond(source, there, untagged=not isinstance(relay.config.source, OciSource))
    comparison = Comparison(as_of, selected, selected - differ, beyond, source, there)
    wanted = _alone(missing, there)
    evicted = _evicted(relay, place, wanted, there)
    conflicts = _conflicts(relay, place, wanted, as_of)
    for one in wanted:
        kind = comparison.copies
        if one.archived:
            kind = comparison.archived
        elif one.mode == "observe":
            kind = comparison.observed
        elif one.tag in conflicts:
            kind = comparison.conflicts
            if place.settings.on_conflict == "fail" and conflicts[one.tag].failed_at is None:
                comparison.failing.append(one)
        elif one.digest in evicted:
            kind = comparison.evicted
        kind.append(one)
    return comparison


def listed(relay: Relay, place: Place, *, whole: bool) -> tuple[list[Listed], list[Listed], list[Wanted]]:
    """All that the source has, all that the destination has, and what is wanted there, equal or not.

    Raises Missing where the source has no such repository, CopyError as `compare`; with `whole` also where it is only
    what refers to images that cannot be listed, for which otherwise no image is to wait.
    """
    repository = place.source_repository
    there: list[Listed] = []
    with suppress(Missing):  # it will be created by the copier, with the first image
        there = list(place.destination.images(place.destination_repository))
    # Which tags are gone a listing tells that is complete.
    tags = None if relay.config.deletes_at(place.settings) else partial(rules.matters, relay.config, repository)
    source = list(place.source.images(repository, details=True, tags=tags))
    if isinstance(relay.config.source, OciSource) and rules.referring(relay.config, repository):
        try:
            source += _referrers(place, source, there)
        except CopyError as error:
            if whole:
                raise
            facts = {"repository": repository, "destination": place.settings.name}
            _log.warning("referrers not listed", extra=facts | {"class": type(error).__name__, "error": str(error)})
    digests = {one.digest for one in there}
    return source, there, list(plan.wanted(relay.config, place.settings, repository, source, digests))


def _beyond(source: list[Listed], there: list[Listed], *, untagged: bool) -> int:
    """How many the destination has beyond the source."""
    tags, digests = {one.tag for one in source}, {one.digest for one in source}
    return sum(one.tag not in tags if one.tag else untagged and one.digest not in digests for one in there)


def _alone(entries: list[Wanted], there: list[Listed]) -> list[Wanted]:
    """Without what refers to an image that is to be copied, and will bring it along; or to one that is archived, which
    it would wait for."""
    digests = {one.digest for one in there}
    moving = {one.digest for one in entries if one.mode == "copy" and one.digest not in digests}
    archived = {one.digest for one in there if one.archived}
    return [one for one in entries if one.subject not in moving | archived]


def leave(relay: Relay, place: Place, evicted: list[Wanted]) -> None:
    """Let the ledger say no longer that these are there, so that a push of them is not skipped."""
    for one in evicted:
        if one.tag is not None:
            relay.ledger.tags.doubt(place.target, one.tag)
        record = relay.ledger.digests.get(place.target, one.digest)
        if record.status == "copied":
            relay.ledger.digests.forget(record)


def _referrers(place: Place, source: list[Listed], there: list[Listed]) -> list[Listed]:
    """What its tags do not show: what refers to images that are at the destination; to others, the copier looks."""
    digests = {one.digest for one in there}
    return [
        Listed(None, referrer, subject=digest)
        for digest in dict.fromkeys(one.digest for one in source if one.digest in digests)
        for referrer in place.source.referrers(place.source_repository, digest)
    ]


def _evicted(relay: Relay, place: Place, wanted: list[Wanted], there: list[Listed]) -> set[str]:
    digests = {one.digest for one in there}
    # A tag that names another image there was moved, and not removed: what it is to name is wanted anew.
    moved = {one.digest for one in wanted if one.there is not None}
    missing = dict.fromkeys(one.digest for one in wanted if one.digest not in digests | moved)
    records = Lookups(relay.ledger.table).digests((place.target, digest) for digest in missing)
    return {record.digest for record in records.values() if record.evicted}


def _conflicts(relay: Relay, place: Place, wanted: list[Wanted], as_of: int) -> dict[str | None, TagRecord]:
    """The tags of `wanted` that somebody else has moved, where that is not to be overwritten. A read for each tag that
    has another digest there, and none where all is overwritten."""
    if place.settings.on_conflict == "overwrite":
        return {}
    theirs = {one.tag: one.there for one in wanted if one.tag is not None and one.there is not None}
    records = Lookups(relay.ledger.table).tag_records((place.target, tag) for tag in theirs)
    found = {tag: records.get((place.target, tag), TagRecord()) for tag in theirs}
    # What we have put since the listing, that does not show: its message looks under the tag's lock.
    return {tag: one for tag, one in found.items() if one.foreign(theirs[tag]) and (one.verified_at or 0) < as_of}
