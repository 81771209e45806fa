"""The nouns: repositories, tags, digests and the references that name them. Pure."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

# OCI distribution specification 1.1, "Pulling manifests"; ECR allows 2 to 256 characters.
_REPOSITORY: Final = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
# OCI distribution specification 1.1, "Referrers Tag Schema"; cosign's specification, "Tag-based Discovery".
_SUBJECT_TAG: Final = re.compile(r"sha256-(?P<hex>[0-9a-f]{64})(\.(sig|att|sbom))?")

INDEX_MEDIA_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_MEDIA_TYPES: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    *INDEX_MEDIA_TYPES,
)
"""What we ask a registry for, so that it never converts a manifest to another type (and digest)."""


IMAGE_CONFIG_MEDIA_TYPES: Final = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
"""What an image that can be run has for a config, and a signature or a chart has not."""


def children(manifest: str | bytes) -> tuple[str, ...]:
    """The digests of the manifests that an index lists; none for an image, an artifact, or what is no JSON object."""
    try:
        listed = json.loads(manifest).get("manifests") or ()
        return tuple(entry["digest"] for entry in listed)
    except (ValueError, AttributeError, KeyError, TypeError):
        return ()


def subject(manifest: str | bytes) -> str | None:
    """The digest that a manifest refers to, as a signature refers to its image; None if it refers to none."""
    try:
        found = json.loads(manifest)["subject"]["digest"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) and is_digest(found) else None


def subject_of_tag(tag: str) -> str | None:
    """The digest that a tag is about by its name alone: cosign's `sha256-<hex>.sig`, `.att` and `.sbom`, and
    `sha256-<hex>`, the index of referrers at a registry without the referrers API. None for any other tag."""
    found = _SUBJECT_TAG.fullmatch(tag)
    return f"sha256:{found['hex']}" if found else None


def subject_tags(digest: str) -> tuple[str, ...]:
    """The tags that are about `digest` by their names: the inverse of `subject_of_tag`."""
    name = digest.replace(":", "-")
    return (name, f"{name}.sig", f"{name}.att", f"{name}.sbom")


@dataclass(frozen=True, slots=True)
class Listed:
    """What a registry's listing says of an image: one for each tag, or one with tag None for an image without any.

    `subject`: the digest that it refers to, if the listing tells; `pushed_at`: of the digest; `size`: bytes of its
    layers, as the registry counts; `archived`: it is there, and cannot be pulled. The three before that only where
    details were asked for, and the registry has them.
    """

    tag: str | None
    digest: str
    subject: str | None = None
    pushed_at: datetime | None = None
    size: int | None = None
    archived: bool = False

    @property
    def refers_to(self) -> str | None:
        """The digest that it is about, by its manifest or by its tag's name."""
        return self.subject or (subject_of_tag(self.tag) if self.tag is not None else None)


def is_repository(name: str) -> bool:
    """Whether ECR takes `name` for a repository: 2 to 256 characters of the distribution grammar."""
    return 2 <= len(name) <= 256 and _REPOSITORY.fullmatch(name) is not None


def is_tag(name: str) -> bool:
    return _TAG.fullmatch(name) is not None


def is_digest(text: str) -> bool:
    """Whether `text` is a sha256 digest, the only algorithm that ECR stores."""
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Reference:
    """`repository[:tag][@digest]`, without a registry host.

    >>> str(Reference.parse("team/app:1.2"))
    'team/app:1.2'
    """

    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError that says which part is no valid name."""
        name, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise ValueError(f"{text!r}: {digest!r} is not a digest (sha256: and 64 hexadecimal digits)")
        repository, colon, tag = name.partition(":")
        if colon and not is_tag(tag):
            raise ValueError(f"{text!r}: {tag!r} is not a tag")
        if not is_repository(repository):
            raise ValueError(f"{text!r}: {repository!r} is not a repository name")
        return cls(repository, tag or None, digest or None)

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
