"""Proof that both sides are equal: both are listed and compared by the rules, as the reconcile does it, signatures and
SBOMs included."""

from collections.abc import Callable
from fnmatch import fnmatchcase

from pydantic import Field

from ecr_relay.errors import CopyError
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.shapes import Shape
from ecr_relay.plan import Wanted, missing
from ecr_relay.reconcile.compare import listed


class Difference(Shape):
    """A tag, or an image without one, that the source has otherwise, or that cannot be pulled at the destination."""

    destination: str
    repository: str
    tag: str | None
    digest: str = Field(description="what the source has")
    there: str | None = Field(description="what the tag has there; null: nothing")
    archived: bool = Field(description="what it has there is the same, but archived, so that it cannot be pulled")


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
    relay = deployment.relay
    compared = images = 0
    different: list[Difference] = []
    unverified: list[Unverified] = []
    for name in relay.repositories():
        if repository is not None and not fnmatchcase(name, repository):
            continue
        progress(name)
        compared += 1
        for destination in deployment.config.destinations:
            try:
                _, there, wanted = listed(relay, relay.place(destination, name), whole=True)
            except CopyError as error:
                failure = f"{type(error).__name__}: {error}"
                unverified.append(Unverified(destination=destination.name, repository=name, error=failure))
                continue
            images += sum(not entry.referrer for entry in wanted)
            different += (_difference(entry) for entry in missing(wanted, there))
    return Verified(repositories=compared, images=images, different=different, unverified=unverified)


def _difference(wanted: Wanted) -> Difference:
    return Difference(
        destination=wanted.destination,
        repository=wanted.repository,
        tag=wanted.tag,
        digest=wanted.digest,
        there=wanted.there,
        archived=wanted.archived,
    )
