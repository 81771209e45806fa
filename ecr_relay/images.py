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


def children(manifest: str | bytes) -> tuple[str, ...]:
    """The digests of the manifests that an index lists; none for an image, an artifact, or what is no JSON object."""
    try:
        listed = json.loads(manifest).get("manifests") or ()
        return tuple(entry["digest"] for entry in listed)
    except (ValueError, AttributeError, KeyError, TypeError):
        return ()


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


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a registry's listing: a tag and its digest, or a digest without a tag."""

    tag: str | None
    digest: str
    subject: str | None = None
    """What it refers to, if it is a referrer and the registry's listing tells."""
    pushed_at: datetime | None = None
    """When the digest was pushed, not its tag; only where details were asked for, and the registry has dates."""
    size: int | None = None
    """Bytes of its layers, as the registry counts them; only with details."""
