"""What a destination lacks, from the listings of both sides. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ecr_relay import rules
from ecr_relay.config import Destination, RelayConfig

Listed = tuple[str | None, str]
"""(tag, digest); tag None for an image without one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that is to be made equal at a destination. `there`: what its tag has there now, None if nothing."""

    destination: str
    repository: str
    tag: str | None
    digest: str
    there: str | None = None


def difference(
    config: RelayConfig,
    destination: Destination,
    repository: str,
    source: Iterable[Listed],
    there: Iterable[Listed],
) -> Iterator[Wanted]:
    """What of `source` is selected for `destination` and not equal `there`; each once, in the source's order."""
    tags: dict[str, str] = {}
    digests: set[str] = set()
    for tag, digest in there:
        digests.add(digest)
        if tag is not None:
            tags[tag] = digest
    seen: set[Listed] = set()
    for tag, digest in source:
        equal = digest in digests if tag is None else tags.get(tag) == digest
        if equal or (tag, digest) in seen:
            continue
        seen.add((tag, digest))
        if destination in rules.destinations(config, repository, tag):
            yield Wanted(destination.name, repository, tag, digest, tags.get(tag) if tag is not None else None)
