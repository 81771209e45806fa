"""What the relay asks of a registry, whatever its kind: `ecr` by its API, `oci` by the distribution protocol."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from ecr_relay.config import NewRepository
from ecr_relay.images import Listed
from ecr_relay.manifests import Manifest


@dataclass(frozen=True, slots=True)
class Login:
    """What skopeo's auth file needs. Never in a log, an argument or a repr."""

    username: str
    password: str = field(repr=False)
    expires_at: datetime | None = None


class Registry(Protocol):
    """A registry that images are read from. Repositories are named without the host.

    Every method raises CopyError: Missing where the repository itself is absent, RegistryDown for credentials
    and network, Transient for the rest that may pass.
    """

    @property
    def host(self) -> str:
        """`host[:port]`, as skopeo and docker name it, taken from the registry's own answer."""

    @property
    def plain_http(self) -> bool:
        """Whether it is reached without TLS."""

    @property
    def ca_certificate(self) -> str | None:
        """PEM text of the authority that signed its certificate; None if a public one did."""

    def login(self) -> Login | None:
        """Credentials that have hours left; None for anonymous."""

    def resolve(self, repository: str, tag: str) -> str | None:
        """The digest that `tag` has now, None if there is no such tag (or no such repository)."""

    def has(self, repository: str, digest: str) -> bool:
        """Whether the manifest is there and can be pulled."""

    def manifest(self, repository: str, digest: str) -> Manifest | None:
        """None if it is not there. Raises Permanent for one that is archived, and cannot be pulled."""

    def children(self, repository: str, digest: str) -> tuple[str, ...]:
        """The digests of the manifests that an index lists; none for anything else, or what is not there."""

    def referrers(self, repository: str, digest: str) -> tuple[str, ...]:
        """The digests of the manifests that refer to `digest` directly, by their `subject`; none for what is not there.

        Cosign's tags (`sha256-….sig`) are no referrers of this kind: `resolve` finds them.
        """

    def lines(self, repository: str, digest: str) -> tuple[Listed, ...]:
        """What `images` with details says of one digest: its tags, and what it refers to; none if it is not there, or
        if the registry cannot be asked by digest."""

    def repositories(self) -> Iterator[str]:
        """All repositories, in the registry's own order."""

    def images(
        self, repository: str, *, details: bool = False, tags: Callable[[str], bool] | None = None
    ) -> Iterable[Listed]:
        """A line for each tag and for each image without one, a page at a time. Missing if no repository.

        `tags` are those that matter: a registry that must be asked about each may leave out the others.
        """


class Writable(Registry, Protocol):
    """A registry that images are copied to."""

    def ensure_repository(self, repository: str, settings: NewRepository) -> None:
        """Create it with `settings` if it is absent; an existing one is left alone. Safe when raced, and when a
        creation that was cut off is tried again."""

    def differences(self, repository: str, settings: NewRepository) -> tuple[str, ...]:
        """What an existing repository has otherwise than `settings` ask, a sentence each; none if it is absent."""

    def tag_is_taken(self, repository: str, digest: str, tag: str) -> bool:
        """Whether `tag` is immutable there and names another digest: so that no layer moves for nothing."""

    def put_tag(self, repository: str, digest: str, tag: str) -> None:
        """Let `tag` name `digest`, which must be there; the manifest's bytes and type stay untouched.

        Raises Missing when the manifest is gone, TagTaken when an immutable tag holds another digest. The same
        digest again is success.
        """

    def put_manifest(self, repository: str, manifest: Manifest) -> None:
        """Put a manifest by its digest, without a tag; all that it lists must be there. The same again is success."""

    def delete(self, repository: str, digest: str, tag: str | None) -> None:
        """Remove `tag` from `digest`, the image with its last tag; with None, the image with all its tags. Absent is
        success, and a tag that names another digest by now is left alone.

        Raises Permanent for an image that an index lists.
        """
