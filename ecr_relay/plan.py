"""What a destination lacks, from the listings of both sides. Pure."""

from collections import deque
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from typing import Literal

from ecr_relay import rules
from ecr_relay.config import Destination, RelayConfig
from ecr_relay.images import Listed, subject_of_tag
from ecr_relay.rules import Selection


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that is to be made equal at a destination. `there`: what its tag has there now, None if nothing.

    `rule`: index of the rule that says how; `mode`: what it says: `observe` is reported, and not copied.
    `subject`: what it refers to, if it is here as a referrer; if that is here, too, its copy brings this one along.
    `size`: bytes of its layers, where the source's listing tells. `archived`: the destination has just this, but
    cannot give it, since it was archived there.
    """

    destination: str
    repository: str
    tag: str | None
    digest: str
    there: str | None = None
    rule: int = 0
    mode: Literal["copy", "observe"] = "copy"
    subject: str | None = None
    size: int | None = None
    archived: bool = False

    @property
    def referrer(self) -> bool:
        return self.subject is not None


def missing(entries: Iterable[Wanted], there: Iterable[Listed]) -> Iterator[Wanted]:
    """Those that are not equal `there`, which is all that the destination has, with every tag; what is archived there
    is not."""
    tags: dict[str, str] = {}
    digests: set[str] = set()
    archived: set[str] = set()
    for one in there:
        digests.add(one.digest)
        if one.archived:
            archived.add(one.digest)
        if one.tag is not None:
            tags[one.tag] = one.digest
    for entry in entries:
        if entry.tag is None and entry.digest not in digests:
            yield entry
        elif entry.tag is not None and tags.get(entry.tag) != entry.digest:
            yield replace(entry, there=tags.get(entry.tag))
        elif entry.digest in archived:
            yield replace(entry, there=entry.digest, archived=True)


def wanted(
    config: RelayConfig, destination: Destination, repository: str, source: Iterable[Listed], there: Set[str]
) -> Iterator[Wanted]:
    """All that `destination` is to have of `source`, equal or not: images in the source's order, then what refers to
    them, each after its subject. `there`: the destination's digests, whose referrers are wanted, too.

    `source` is all that the repository has, since a rule's `newest` takes of it what it takes in a backfill. An
    untagged child of an index is no entry, unless a rule wants untagged images: the index's copy brings it along. Nor
    is what is archived, since it cannot be pulled.
    """
    images = tuple(one for one in dict.fromkeys(source) if not one.archived)
    backfill = rules.backfill(config, repository, images)
    hows: dict[str, Selection] = {}  # digest -> how it goes there, by all of its tags
    referrers: list[Listed] = []
    for one in images:
        # Without a tag, what refers to another goes with that one, and not by a rule for untagged images.
        alone = one.tag is not None or one.subject is None
        how = _for(destination, rules.selections(config, repository, one.tag, backfill)) if alone else None
        if how is not None:
            hows[one.digest] = rules.most((hows.get(one.digest, how), how)) or how
            yield _entry(repository, one, how)
        elif one.refers_to:
            referrers.append(one)
    usual = _for(destination, rules.referring(config, repository))
    if usual is not None:
        yield from _referrers(repository, referrers, hows, usual, there)


def _referrers(
    repository: str, referrers: list[Listed], hows: dict[str, Selection], usual: Selection, there: Set[str]
) -> Iterator[Wanted]:
    """Those whose subject is wanted, which go as that one does, and what refers to those, and so on; then those whose
    subject is there without being wanted, in the `usual` way."""
    about: dict[str, list[Listed]] = {}
    for one in referrers:
        about.setdefault(one.refers_to or "", []).append(one)
    for known in (hows, there):
        subjects = deque(subject for subject in about if subject in known)
        while subjects:
            subject = subjects.popleft()
            how = hows.get(subject, usual)
            for one in about.pop(subject, ()):
                by_tag = one.tag is not None and subject_of_tag(one.tag) is not None
                if how.rule.referrers and (by_tag or one.digest not in hows):
                    # A tag of its own that no rule selects stays behind; the tags that cosign finds it by do not.
                    yield _entry(repository, one if by_tag else replace(one, tag=None), how, subject)
                hows.setdefault(one.digest, how)
                subjects.append(one.digest)


def _entry(repository: str, one: Listed, how: Selection, subject: str | None = None) -> Wanted:
    return Wanted(
        destination=how.destination.name,
        repository=repository,
        tag=one.tag,
        digest=one.digest,
        rule=how.index,
        mode=how.rule.mode,
        subject=subject,
        size=one.size,
    )


def _for(destination: Destination, selections: Iterable[Selection]) -> Selection | None:
    return next((one for one in selections if one.destination.name == destination.name), None)
