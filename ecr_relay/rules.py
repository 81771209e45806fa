"""Which images go where. Pure functions of the configuration, the repository and the tag."""

from ecr_relay import globs
from ecr_relay.config import Destination, RelayConfig, Rule


def _selects(rule: Rule, repository: str, tag: str | None) -> bool:
    if not globs.matches(repository, rule.repositories) or globs.matches(repository, rule.exclude_repositories):
        return False
    if tag is None:
        return rule.untagged
    return globs.matches(tag, rule.tags) and not globs.matches(tag, rule.exclude_tags)


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
        globs.matches(repository, rule.repositories) and not globs.matches(repository, rule.exclude_repositories)
        for rule in config.rules
    )
