"""Which images go where, and how. Pure functions of the configuration, the repository and the tag.

For an image and a destination, the first rule that selects it says how. What refers to an image (a signature, an SBOM)
is selected by no key for tags: it goes where its subject is or goes, if the rule that selects the subject has
`referrers`; where no rule does, but the subject is there, if one that concerns the repository has.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from ecr_relay import globs, versions
from ecr_relay.config import Destination, RelayConfig, Rule, expression, image_list
from ecr_relay.config.registries import PLACEHOLDER
from ecr_relay.config.selection import ALL_TAGS
from ecr_relay.images import Listed, subject_of_tag

Backfill = Mapping[int, Set[str]]
"""Rule index -> the tags of one repository that its `newest` takes. A rule without `newest` is not in it."""

PUSHED: Final[Backfill] = MappingProxyType({})
"""What `newest` takes of what is pushed: all."""

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Selection:
    """One destination of an image, and the first rule that selects it there. `index`: of the rule."""

    destination: Destination
    rule: Rule
    index: int


def selections(
    config: RelayConfig, repository: str, tag: str | None, backfill: Backfill = PUSHED
) -> tuple[Selection, ...]:
    """Where an image goes, in the order of the destinations; none if no rule selects it. `tag` None: it has none.

    A tag that is about another image by its name (`sha256-….sig`) is selected by no rule: `referring` has it.
    """
    if tag is not None and subject_of_tag(tag):
        return ()
    rules = [
        (index, rule)
        for index, rule in enumerate(config.rules)
        if _selects(rule, repository, tag) and (tag is None or index not in backfill or tag in backfill[index])
    ]
    return tuple(_first(config, repository, rules))


def destinations(config: RelayConfig, repository: str, tag: str | None) -> tuple[Destination, ...]:
    """Where an image may go: those of `ways`."""
    return tuple(way.destination for way in ways(config, repository, tag))


def ways(config: RelayConfig, repository: str, tag: str | None) -> tuple[Selection, ...]:
    """Where an image may go, and how: `selections`; or `referring`, if its tag is about another image."""
    about = tag is not None and subject_of_tag(tag)
    return referring(config, repository) if about else selections(config, repository, tag)


def referring(config: RelayConfig, repository: str) -> tuple[Selection, ...]:
    """Where a referrer of this repository may go, unless a rule that selects its subject says otherwise: wherever that
    is.

    A rule that copies comes before one that observes, since what is only observed is not there to be referred to.
    """
    rules = [
        (index, rule)
        for index, rule in enumerate(config.rules)
        if rule.referrers and _wants_repository(rule, repository)
    ]
    return tuple(_first(config, repository, sorted(rules, key=lambda one: one[1].mode != "copy")))


def most(ways: Iterable[Selection]) -> Selection | None:
    """Of the ways in which one digest goes to one destination, for each of its tags, the one that does the most: that
    copies, and takes along what refers to it."""
    return min(ways, key=lambda one: (one.rule.mode != "copy", not one.rule.referrers, one.index), default=None)


def are_of_one_mind(config: RelayConfig, destination: Destination, repository: str) -> bool:
    """Whether what refers to an image goes to `destination`, and from it, in one way, whatever the image's tags are."""
    minds = {(rule.mode, rule.referrers, rule.deletes) for rule in concerning(config, destination, repository)}
    return len(minds) < 2


def matters(config: RelayConfig, repository: str, tag: str) -> bool:
    """Whether a tag of the source's is worth a look: a rule may select it, or it is about another image."""
    return subject_of_tag(tag) is not None or bool(selections(config, repository, tag))


def concerning(config: RelayConfig, destination: Destination, repository: str) -> tuple[Rule, ...]:
    """Every rule that may select something in this repository for `destination`."""
    if is_ring(destination, repository):
        return ()
    return tuple(rule for rule in config.rules if _is_for(rule, destination) and _wants_repository(rule, repository))


def concerns(config: RelayConfig, repository: str) -> bool:
    """Whether any rule may select something in this repository, so that listing it is worth the requests."""
    return any(concerning(config, destination, repository) for destination in config.destinations)


def named(config: RelayConfig) -> frozenset[str]:
    """The repositories that rules name without a glob, whether the source has them or not."""
    return frozenset(
        name
        for rule in config.rules
        for name in _repositories(rule)
        if globs.is_literal(name) and _wants_repository(rule, name)
    )


def only_name(config: RelayConfig) -> bool:
    """Whether no rule has a glob of repositories, so that the registry need not be asked which it has."""
    return all(globs.is_literal(glob) for rule in config.rules for glob in _repositories(rule))


def backfill(config: RelayConfig, repository: str, listed: Iterable[Listed]) -> Backfill:
    """What the `newest` of each rule takes of a repository's listing (with details, where it goes by the push)."""
    images = tuple(listed)
    return {
        index: newest(rule, repository, images)
        for index, rule in enumerate(config.rules)
        if rule.newest is not None and _wants_repository(rule, repository)
    }


def newest(rule: Rule, repository: str, listed: Iterable[Listed]) -> frozenset[str]:
    """The tags that a rule takes of a repository's listing: all that it selects, or the `newest` of those.

    Of equal age, those whose names sort last. What has no push date, or is no version, is older than all that has.
    """
    images = {one.tag: one for one in listed if one.tag is not None and not subject_of_tag(one.tag)}
    tags = [tag for tag in images if _selects(rule, repository, tag)]
    if rule.newest is None:
        return frozenset(tags)
    if rule.newest_by == "pushed":
        tags.sort(key=lambda tag: (images[tag].pushed_at or _LONG_AGO, tag), reverse=True)
    else:
        tags.sort(key=_by_version, reverse=True)
    return frozenset(tags[: rule.newest])


def is_ring(destination: Destination, repository: str) -> bool:
    """Whether a source repository looks as if it came from this destination's own naming, so that copying it again
    would go on for ever: relays that face each other make `p/p/…`, or `p/q/p/…` if they have two prefixes.

    `p/app` is one at once; `q/p/app` may be somebody's own name, so only the second round is one.
    """
    pattern = destination.pattern
    if pattern == PLACEHOLDER:
        return False
    head, _, tail = pattern.partition(PLACEHOLDER)
    if repository.startswith(head) and repository.endswith(tail) and len(repository) > len(head) + len(tail):
        return True
    return all(part in {"", "/"} or f"/{repository}/".count(f"/{part.strip('/')}/") > 1 for part in (head, tail))


def _first(config: RelayConfig, repository: str, rules: Iterable[tuple[int, Rule]]) -> Iterator[Selection]:
    """For each destination the first of `rules` that has it."""
    ordered = tuple(rules)
    for destination in config.destinations if ordered else ():
        if is_ring(destination, repository):
            continue
        for index, rule in ordered:
            if _is_for(rule, destination):
                yield Selection(destination, rule, index)
                break


def _is_for(rule: Rule, destination: Destination) -> bool:
    return not rule.destinations or destination.name in rule.destinations


def _repositories(rule: Rule) -> tuple[str, ...]:
    return tuple(image_list(rule.images)) if rule.images is not None else rule.repositories


def _wants_repository(rule: Rule, repository: str) -> bool:
    if globs.matches(repository, rule.exclude_repositories):
        return False
    if rule.images is not None:
        return repository in image_list(rule.images)
    return globs.matches(repository, rule.repositories)


def _selects(rule: Rule, repository: str, tag: str | None) -> bool:
    if not _wants_repository(rule, repository):
        return False
    if tag is None:
        return rule.untagged
    return (
        _names(rule, repository, tag)
        and not globs.matches(tag, rule.exclude_tags)
        and (rule.tag_regex is None or expression(rule.tag_regex).fullmatch(tag) is not None)
        and (rule.semver is None or versions.matches(tag, rule.semver))
    )


def _names(rule: Rule, repository: str, tag: str) -> bool:
    if rule.images is not None:
        tags = image_list(rule.images)[repository]
        return tags is None or tag in tags
    return ALL_TAGS in rule.tags or globs.matches(tag, rule.tags)


def _by_version(tag: str) -> tuple[object, ...]:
    found = versions.version(tag)
    return (found is not None, found.order if found else (), tag)
