"""What the relay asks of a registry, whatever its kind: `ecr` by its API, `oci` by the distribution protocol."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from ecr_relay.config import NewRepository


@dataclass(frozen=True, slots=True)
class Login:
    """What skopeo's auth file needs. Never in a log, an argument or a repr."""

    username: str
    password: str = field(repr=False)
    expires_at: datetime | None = None


class Registry(Protocol):
    """A registry as source or destination. Repositories are named without the host.

    Every method raises CopyError: Missing where the repository itself is absent, RegistryDown for credentials
    and network, Transient for the rest that may pass.
    """

    @property
    def host(self) -> str:
        """`host[:port]`, as skopeo and docker name it, taken from the registry's own answer."""

    def login(self) -> Login | None:
        """Credentials that have hours left; None for anonymous."""

    def resolve(self, repository: str, tag: str) -> str | None:
        """The digest that `tag` has now, None if there is no such tag (or no such repository)."""

    def has(self, repository: str, digest: str) -> bool:
        """Whether the manifest is there and can be pulled."""

    def children(self, repository: str, digest: str) -> tuple[str, ...]:
        """The digests of the manifests that an index lists; none for anything else, or what is not there."""

    def repositories(self) -> Iterator[str]:
        """All repositories, in the registry's own order."""

    def images(self, repository: str) -> Iterable[tuple[str | None, str]]:
        """(tag, digest) pairs, a page at a time; tag None for an image without one. Missing if no repository."""

    def ensure_repository(self, repository: str, settings: NewRepository) -> None:
        """Create it with `settings` if it is absent; an existing one is left alone. Safe when raced."""

    def tag_is_taken(self, repository: str, digest: str, tag: str) -> bool:
        """Whether `tag` is immutable there and names another digest: so that no layer moves for nothing."""

    def put_tag(self, repository: str, digest: str, tag: str) -> None:
        """Let `tag` name `digest`, which must be there; the manifest's bytes and type stay untouched.

        Raises Missing when the manifest is gone, TagTaken when an immutable tag holds another digest. The same
        digest again is success.
        """
