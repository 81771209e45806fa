"""What no single table can know: names that must fit, places that two would write, rings, rules that disagree.

Each check raises ValueError whose text begins with the path of the key to change.
"""

from itertools import combinations, product
from typing import TYPE_CHECKING, Final

from ecr_relay import globs
from ecr_relay.config.registries import ECR_HOST, PLACEHOLDER, Destination, OciSource
from ecr_relay.config.selection import Rule, image_list
from ecr_relay.regions import PARTITION_OF_REGION

if TYPE_CHECKING:
    from ecr_relay.config import RelayConfig

_HOW: Final = ("mode", "deletes", "referrers")
"""What only one rule can decide for an image."""


def check(config: "RelayConfig") -> None:
    """Raises ValueError for the first that is wrong."""
    _names(config)
    _places(config)
    _home(config)
    _partitions(config)
    for index, destination in enumerate(config.destinations):
        if destination.id == config.source.id:
            _no_ring(config, index, destination)
    for index, rule in enumerate(config.rules):
        _no_host(config, index, rule)
        _comes_back(config, index, rule)
        if isinstance(config.source, OciSource):
            _for_oci(config.source, index, rule)
    for (first, rule), (second, other) in combinations(enumerate(config.rules), 2):
        _agree(config, first, rule, second, other)


def _names(config: "RelayConfig") -> None:
    names = [destination.name for destination in config.destinations]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(f"destinations[{index}].name: {name!r} is used twice; names are unique")
    for index, rule in enumerate(config.rules):
        for name in rule.destinations:
            if name not in names:
                raise ValueError(
                    f"rules[{index}].destinations: {name!r} is not a destination; allowed: {', '.join(names)}"
                )


def _key(destination: Destination) -> str:
    return "target" if destination.target else "prefix"


def inside(destination: Destination, glob: str = "*") -> str:
    """A glob of what becomes there of the source repositories that `glob` matches: by default all that is ours."""
    return destination.pattern.replace(PLACEHOLDER, glob)


def _places(config: "RelayConfig") -> None:
    """No two destinations write one repository: two of the source's would become one, or two settings fight."""
    for (_, one), (index, other) in combinations(enumerate(config.destinations), 2):
        if one.id == other.id and (shared := _shared(config, one, other)):
            raise ValueError(
                f"destinations[{index}].{_key(other)}: {other.name!r} and {one.name!r} would write the same place, "
                f"{shared}; change this one, or exclude repositories in the rules of one of the two"
            )


def _shared(config: "RelayConfig", one: Destination, other: Destination) -> str | None:
    """What both may write, by the rules for each; None if nothing."""
    mine, theirs = ([rule for rule in config.rules if _is_for(rule, each)] for each in (one, other))
    for rule, their in product(mine, theirs):
        excluded = [inside(one, glob) for glob in rule.exclude_repositories]
        excluded += [inside(other, glob) for glob in their.exclude_repositories]
        for first, second in product(_repositories(rule), _repositories(their)):
            place, place_too = inside(one, first), inside(other, second)
            if globs.intersect(place, place_too) and not any(
                globs.covers(glob, place) or globs.covers(glob, place_too) for glob in excluded
            ):
                return f"{place!r} and {place_too!r}" if place != place_too else repr(place)
    return None


def _is_for(rule: Rule, destination: Destination) -> bool:
    return not rule.destinations or destination.name in rule.destinations


def _home(config: "RelayConfig") -> None:
    """The events of a source reach the relay."""
    if isinstance(config.source, OciSource):
        return
    region = config.home[1]
    here, there = PARTITION_OF_REGION[region], PARTITION_OF_REGION[config.source.region]
    if here != there:
        raise ValueError(
            f"deployment.region: {region} is in partition {here}, and events of the source do not leave {there}; run "
            "the relay on the source's side, where it reaches the destination with an access key"
        )


def _no_ring(config: "RelayConfig", index: int, destination: Destination) -> None:
    """What is copied into the source's own registry is pushed there, and must not be copied again."""
    if destination.pattern == PLACEHOLDER:
        raise ValueError(f"destinations[{index}].prefix: needed, since this destination is the source's own registry")
    ours = inside(destination)
    for number, rule in enumerate(config.rules):
        if any(globs.intersect(glob, ours) for glob in _repositories(rule)) and not any(
            globs.covers(glob, ours) for glob in rule.exclude_repositories
        ):
            raise ValueError(
                f"rules[{number}].exclude_repositories: must contain {ours!r}, since destination "
                f"{destination.name!r} lies in the source's own registry"
            )


def _partitions(config: "RelayConfig") -> None:
    """No role is assumed across partitions."""
    home = PARTITION_OF_REGION[config.home[1]]
    for index, destination in enumerate(config.destinations):
        there = PARTITION_OF_REGION[destination.region]
        if there != home and (destination.credentials is None or destination.credentials.secret_arn is None):
            raise ValueError(
                f"destinations[{index}].credentials: {destination.region} is in partition {there}, and the relay runs "
                f"in {home}, whose roles count for nothing there; needs secret_arn, an access key of a user over there"
            )


def _comes_back(config: "RelayConfig", index: int, rule: Rule) -> None:
    """What a rule asks for by name is not what `rules.is_ring` drops."""
    for destination in config.destinations:
        ours = inside(destination)
        if destination.pattern == PLACEHOLDER or not _is_for(rule, destination):
            continue
        if glob := next((glob for glob in _repositories(rule) if globs.covers(ours, glob)), None):
            raise ValueError(
                f"rules[{index}].{_named_by(rule)}: {glob!r} looks like what destination {destination.name!r} is "
                f"given, {ours!r}, and would be dropped as a copy that comes back; give that destination another "
                f"{_key(destination)}, or the rule other destinations"
            )


def _no_host(config: "RelayConfig", index: int, rule: Rule) -> None:
    """A repository's name does not begin with its registry's."""
    source = config.source
    for name in _repositories(rule):
        host, slash, rest = name.partition("/")
        ours = source.is_host(host) if isinstance(source, OciSource) else ECR_HOST.fullmatch(host) is not None
        if slash and ours:
            raise ValueError(
                f"rules[{index}].{_named_by(rule)}: {name!r} begins with a registry's host; leave that out, as in "
                f"{rest!r}"
            )


def _named_by(rule: Rule) -> str:
    return "repositories" if rule.images is None else "images"


def _for_oci(source: OciSource, index: int, rule: Rule) -> None:
    for name in _repositories(rule) if source.id == "docker.io" else ():
        host, slash, _ = name.partition("/")
        if slash and "." in host:  # Docker Hub's names have no dot before the slash
            raise ValueError(
                f"rules[{index}].{_named_by(rule)}: {name!r} is of another registry, {host}; a relay has one source, "
                "so give that registry a relay of its own"
            )
    if rule.images is None and (glob := next((name for name in rule.repositories if not globs.is_literal(name)), None)):
        raise ValueError(
            f"rules[{index}].repositories: {glob!r}: {source.host} cannot be asked what repositories it has, so name "
            f"each, without * ? ["
        )
    if rule.untagged:
        raise ValueError(
            f"rules[{index}].untagged: {source.host} lists tags only; untagged images cannot be found there"
        )
    if rule.newest and rule.newest_by == "pushed":
        raise ValueError(f'rules[{index}].newest_by: {source.host} tells no push dates; use newest_by = "version"')


def _agree(config: "RelayConfig", first: int, rule: Rule, second: int, other: Rule) -> None:
    """Two rules that surely select some image for one destination say the same of how."""
    differ = next((key for key in _HOW if getattr(rule, key) != getattr(other, key)), None)
    if differ is None or not _overlap(config, rule, other):
        return
    raise ValueError(
        f"rules[{second}].{differ}: {getattr(other, differ)!r} here and {getattr(rule, differ)!r} in rules[{first}], "
        "which selects some of the same images for the same destination; exclude them from one of the two"
    )


def _overlap(config: "RelayConfig", rule: Rule, other: Rule) -> bool:
    """Whether both may select one image. Expressions and ranges count as disjoint, since what they share cannot be
    known, unless both rules say the same of tags."""
    every = {destination.name for destination in config.destinations}
    if not set(rule.destinations or every) & set(other.destinations or every):
        return False
    mine, others = ((each.tags, each.exclude_tags, each.tag_regex, each.semver) for each in (rule, other))
    if mine != others and any(each.tag_regex or each.semver for each in (rule, other)):
        return False
    return any(
        _meet(rule, other, one, two)
        for one in _repositories(rule)
        for two in _repositories(other)
        if globs.intersect(one, two)
    )


def _meet(rule: Rule, other: Rule, one: str, two: str) -> bool:
    """Whether they share a tag, of repositories that both `one` and `two` match."""
    excluded = (*rule.exclude_repositories, *other.exclude_repositories)
    if any(globs.covers(glob, one) or globs.covers(glob, two) for glob in excluded):
        return False
    if rule.untagged and other.untagged:
        return True
    no_tags = (*rule.exclude_tags, *other.exclude_tags)
    return any(
        globs.intersect(a, b) and not any(globs.covers(glob, a) or globs.covers(glob, b) for glob in no_tags)
        for a in _tags(rule, one)
        for b in _tags(other, two)
    )


def _repositories(rule: Rule) -> tuple[str, ...]:
    return tuple(image_list(rule.images)) if rule.images is not None else rule.repositories


def _tags(rule: Rule, repository: str) -> tuple[str, ...]:
    if rule.images is not None:
        listed = image_list(rule.images)[repository]
        return ("*",) if listed is None else tuple(listed)
    return tuple("*" if glob == "ALL_TAGS" else glob for glob in rule.tags)
