"""Which images go where. Pure functions of the configuration, the repository and the tag."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from ecr_relay.config import Destination, RelayConfig, Rule


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _selects(rule: Rule, repository: str, tag: str | None) -> bool:
    if not _matches(repository, rule.repositories) or _matches(repository, rule.exclude_repositories):
        return False
    if tag is None:
        return rule.untagged
    return _matches(tag, rule.tags) and not _matches(tag, rule.exclude_tags)


def destinations(config: RelayConfig, repository: str, tag: str | None) -> tuple[Destination, ...]:
    """Where an image goes, in the configuration's order; empty if no rule selects it."""
    wanted: set[str] = set()
    for rule in config.rules:
        if _selects(rule, repository, tag):
            wanted.update(rule.destinations or (destination.name for destination in config.destinations))
    return tuple(destination for destination in config.destinations if destination.name in wanted)


def concerns(config: RelayConfig, repository: str) -> bool:
    """Whether any rule may select something in this repository, so that listing it is worth the requests."""
    return any(
        _matches(repository, rule.repositories) and not _matches(repository, rule.exclude_repositories)
        for rule in config.rules
    )
