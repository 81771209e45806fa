"""Proof that both sides are equal: both are listed and compared by the rules, as the reconcile does it, signatures and
SBOMs included."""

from collections.abc import Callable

from pydantic import Field

from ecr_relay import globs, rules
from ecr_relay.errors import CopyError, Missing, RelayError
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.shapes import Shape
from ecr_relay.operate.status import unmatched
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
    absent: list[str] = Field(description="repositories that rules name and the source does not have")

    @property
    def ok(self) -> bool:
        return not self.different and not self.unverified and not self.absent


def verify(
    deployment: Deployment, repository: str | None = None, *, progress: Callable[[str], None] = lambda _name: None
) -> Verified:
    """`repository` may be a glob. What a destination has beyond the source is no difference.

    Listings are the operator's own calls, with the operator's own credentials. Raises CopyError if the source's
    repositories cannot be listed, RelayError if `repository` matches none of them, and none that a rule names.
    """
    relay = deployment.relay
    compared = images = 0
    different: list[Difference] = []
    unverified: list[Unverified] = []
    absent: list[str] = []
    names = [name for name in relay.repositories() if repository is None or globs.matches(name, (repository,))]
    if repository is not None and not names:
        raise RelayError(f"{unmatched(repository)}; `ecr-relay config show`")
    for name in names:
        progress(name)
        compared += 1
        for destination in deployment.config.destinations:
            try:
                _, there, wanted = listed(relay, relay.place(destination, name), whole=True)
            except Missing:
                compared -= 1
                if name in rules.named(relay.config):  # else: deleted since the repositories were listed
                    absent.append(name)
                break
            except CopyError as error:
                failure = f"{type(error).__name__}: {error}"
                unverified.append(Unverified(destination=destination.name, repository=name, error=failure))
                continue
            images += sum(not entry.referrer for entry in wanted)
            different += (_difference(entry) for entry in missing(wanted, there))
    return Verified(repositories=compared, images=images, different=different, unverified=unverified, absent=absent)


def _difference(wanted: Wanted) -> Difference:
    return Difference(
        destination=wanted.destination,
        repository=wanted.repository,
        tag=wanted.tag,
        digest=wanted.digest,
        there=wanted.there,
        archived=wanted.archived,
    )
