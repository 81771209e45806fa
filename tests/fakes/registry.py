"""A registry in memory, as strict as ECR: no push into a missing repository, no tag on a missing manifest, no index
without its children. `tests/integration/test_registries.py` runs the same contract on it and on the real ones."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ecr_relay.config import NewRepository
from ecr_relay.errors import CopyError, Missing, Permanent, TagTaken, Transient
from ecr_relay.images import INDEX_MEDIA_TYPES, MANIFEST_MEDIA_TYPES, Listed, children
from ecr_relay.images import subject as subject_of
from ecr_relay.manifests import Manifest
from ecr_relay.registries import Login


@dataclass
class Repository:
    settings: NewRepository = field(default_factory=NewRepository)
    manifests: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeRegistry:
    """`fail` makes the next calls raise: a queue of errors, one a call."""

    host: str = "registry.test"
    content: dict[str, Repository] = field(default_factory=dict)
    fail: list[CopyError] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    pushed_at: dict[str, datetime] = field(default_factory=dict)
    """By digest, of which a listing with details tells."""
    archived: set[str] = field(default_factory=set)
    """Digests that are there and cannot be pulled, until they are pushed again."""

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.fail:
            raise self.fail.pop(0)

    def push(
        self, repository: str, content: str, *tags: str, children: tuple[str, ...] = (), subject: str | None = None
    ) -> str:
        """As a client does: the manifest, then its tags; the digest. The repository is made if need be."""
        told: dict[str, Any] = {"content": content, "manifests": [{"digest": child} for child in children]}
        if subject:
            told["subject"] = {"digest": subject}
        place = self.content.setdefault(repository, Repository())
        digest = self.put(repository, json.dumps(told))
        place.tags.update(dict.fromkeys(tags, digest))
        return digest

    def put(self, repository: str, manifest: str) -> str:
        """One manifest, by digest. Raises Missing as ECR does."""
        if repository not in self.content:
            raise Missing(f"name unknown: The repository with name '{repository}' does not exist")
        place = self.content[repository]
        for child in json.loads(manifest)["manifests"]:
            if child["digest"] not in place.manifests:
                raise Transient(f"manifest unknown: Images with digests '[{child['digest']}]' required for pushing")
        digest = "sha256:" + hashlib.sha256(manifest.encode()).hexdigest()
        place.manifests[digest] = manifest
        self.archived.discard(digest)
        return digest

    def delete(self, repository: str, digest: str, tag: str | None = None) -> None:
        self._called("delete")
        place = self.content.get(repository, Repository())
        if tag is not None:
            if place.tags.get(tag) != digest:
                return
            if list(place.tags.values()).count(digest) > 1:
                del place.tags[tag]
                return
        if any(digest in children(manifest) for manifest in place.manifests.values()):
            raise Permanent(f"{repository}@{digest}: referenced by manifest list")
        place.manifests.pop(digest, None)
        place.tags = {name: named for name, named in place.tags.items() if named != digest}

    @property
    def plain_http(self) -> bool:
        return False

    @property
    def ca_certificate(self) -> str | None:
        return None

    def login(self) -> Login | None:
        return None

    def resolve(self, repository: str, tag: str) -> str | None:
        self._called("resolve")
        digest = self.content[repository].tags.get(tag) if repository in self.content else None
        return None if digest in self.archived else digest

    def has(self, repository: str, digest: str) -> bool:
        self._called("has")
        return repository in self.content and digest in self.content[repository].manifests.keys() - self.archived

    def manifest(self, repository: str, digest: str) -> Manifest | None:
        self._called("manifest")
        text = self.content.get(repository, Repository()).manifests.get(digest)
        if text is None:
            return None
        if digest in self.archived:
            raise Permanent(f"{repository}@{digest}: the image is archived")
        types = INDEX_MEDIA_TYPES if children(text) else MANIFEST_MEDIA_TYPES
        return Manifest(digest, types[0], text.encode())

    def children(self, repository: str, digest: str) -> tuple[str, ...]:
        self._called("children")
        return children(self.content[repository].manifests.get(digest, "")) if repository in self.content else ()

    def referrers(self, repository: str, digest: str) -> tuple[str, ...]:
        self._called("referrers")
        manifests = self.content.get(repository, Repository()).manifests
        return tuple(name for name, manifest in manifests.items() if subject_of(manifest) == digest)

    def lines(self, repository: str, digest: str) -> tuple[Listed, ...]:
        if repository not in self.content:
            return ()
        return tuple(one for one in self.images(repository, details=True) if one.digest == digest)

    def repositories(self) -> Iterator[str]:
        self._called("repositories")
        yield from self.content

    def images(
        self, repository: str, *, details: bool = False, tags: Callable[[str], bool] | None = None
    ) -> Iterator[Listed]:
        self._called("images")
        if repository not in self.content:
            raise Missing(f"the repository '{repository}' does not exist")
        place = self.content[repository]
        tagless = ((None, digest) for digest in place.manifests if digest not in place.tags.values())
        for tag, digest in (*place.tags.items(), *tagless):
            if tags is not None and tag is not None and not tags(tag):
                continue
            if details:
                text = place.manifests.get(digest, "{}")
                pushed_at, archived = self.pushed_at.get(digest), digest in self.archived
                yield Listed(tag, digest, subject_of(text), pushed_at, len(text), archived)
            else:
                yield Listed(tag, digest, archived=digest in self.archived)

    def ensure_repository(self, repository: str, settings: NewRepository) -> None:
        self._called("ensure_repository")
        self.content.setdefault(repository, Repository(settings))

    def differences(self, repository: str, settings: NewRepository) -> tuple[str, ...]:
        self._called("differences")
        place = self.content.get(repository)
        if place is None or place.settings.immutable_tags == settings.immutable_tags:
            return ()
        return ("tags MUTABLE, asked IMMUTABLE",) if settings.immutable_tags else ("tags IMMUTABLE, asked MUTABLE",)

    def tag_is_taken(self, repository: str, digest: str, tag: str) -> bool:
        self._called("tag_is_taken")
        place = self.content[repository]
        return place.settings.immutable_tags and place.tags.get(tag, digest) != digest

    def put_manifest(self, repository: str, manifest: Manifest) -> None:
        self._called("put_manifest")
        self.put(repository, manifest.content.decode())

    def put_tag(self, repository: str, digest: str, tag: str) -> None:
        self._called("put_tag")
        if repository not in self.content or digest not in self.content[repository].manifests.keys() - self.archived:
            raise Missing(f"{repository}@{digest}: image not found")
        place = self.content[repository]
        if place.settings.immutable_tags and place.tags.get(tag, digest) != digest:
            raise TagTaken(f"the image tag '{tag}' already exists in '{repository}' and cannot be overwritten")
        place.tags[tag] = digest
