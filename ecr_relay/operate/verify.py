"""Proof that both sides are equal: both are listed and compared by the rules, as the reconcile does it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase

from pydantic import Field

from ecr_relay import rules
from ecr_relay.config import Destination
from ecr_relay.errors import CopyError, Missing
from ecr_relay.images import Listed
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.shapes import Shape
from ecr_relay.operate.sync import Difference
from ecr_relay.plan import difference


class Unverified(Shape):
    """A repository that could not be compared at a destination."""

    destination: str
    repository: str
    error: str


class Verified(Shape):
    """`verify`."""

    repositories: int
    images: int = Field(description="tags and untagged digests of the source that rules select, for each destination")
    different: list[Difference]
    unverified: list[Unverified]

    @property
    def ok(self) -> bool:
        return not self.different and not self.unverified


def verify(
    deployment: Deployment, repository: str | None = None, *, progress: Callable[[str], None] = lambda _name: None
) -> Verified:
    """`repository` may be a glob. What a destination has beyond the source is no difference.

    Listings are the operator's own calls, with the operator's own credentials. Raises CopyError if the source's
    repositories cannot be listed.
    """
    config, relay = deployment.config, deployment.relay
    compared = images = 0
    different: list[Difference] = []
    unverified: list[Unverified] = []
    for name in sorted(relay.source.repositories()):
        if not rules.concerns(config, name) or (repository is not None and not fnmatchcase(name, repository)):
            continue
        progress(name)
        compared += 1
        for destination in config.destinations:
            try:
                listed = _selected(deployment, destination, name)
                wanted = list(_compare(deployment, destination, name, listed))
                different += wanted
                images += len(listed)
            except CopyError as error:
                failure = f"{type(error).__name__}: {error}"
                unverified.append(Unverified(destination=destination.name, repository=name, error=failure))
    return Verified(repositories=compared, images=images, different=different, unverified=unverified)


def _selected(deployment: Deployment, destination: Destination, repository: str) -> list[Listed]:
    with suppress(Missing):  # deleted since the repositories were listed
        return [
            each
            for each in deployment.relay.source.images(repository)
            if destination in rules.destinations(deployment.config, repository, each.tag)
        ]
    return []


def _compare(
    deployment: Deployment, destination: Destination, repository: str, listed: list[Listed]
) -> Iterator[Difference]:
    there: list[Listed] = []
    with suppress(Missing):
        there = list(deployment.relay.destination(destination).images(destination.repository(repository)))
    for wanted in difference(deployment.config, destination, repository, listed, there):
        yield Difference(
            destination=wanted.destination,
            repository=wanted.repository,
            tag=wanted.tag,
            digest=wanted.digest,
            there=wanted.there,
        )
