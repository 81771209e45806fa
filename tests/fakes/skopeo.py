"""skopeo between fake registries: copies a manifest, children first, as `copy --all --preserve-digests` does."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ecr_relay.errors import CopyError, Missing, Transient
from ecr_relay.registries import Login
from tests.fakes.registry import FakeRegistry


@dataclass
class FakeSkopeo:
    registries: Mapping[str, FakeRegistry]
    fail: list[CopyError] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    during: Callable[[str], None] = lambda _image: None
    """Called in the middle of every copy, with what is copied: `host/repository@digest`, at the destination."""
    outcome: dict[str, CopyError] = field(default_factory=dict)
    """What a digest's copies end with."""
    swallow: bool = False
    """Say that all is well, and copy nothing."""
    bytes: int = 0
    """What a copy says that it has moved."""
    stopped: bool = False
    logins: int = 0
    """How often it was given new ones."""

    def login(self, logins: Mapping[str, Login]) -> None:
        self.logins += 1

    def copy(
        self,
        source: str,
        digest: str,
        destination: str,
        on_progress: Callable[[int], None],
        *,
        plain_http: bool = False,
        ca_certificate: str | None = None,
    ) -> None:
        self.copied.append(digest)
        on_progress(self.bytes)
        self.during(f"{destination}@{digest}")
        if self.fail:
            raise self.fail.pop(0)
        if digest in self.outcome:
            raise self.outcome[digest]
        if self.stopped:
            raise Transient("stopped")
        if self.swallow:
            return
        self._copy(source, digest, destination)

    def _copy(self, source: str, digest: str, destination: str) -> None:
        host, repository = source.split("/", 1)
        other_host, other_repository = destination.split("/", 1)
        manifests = self.registries[host].content[repository].manifests
        if digest not in manifests:
            raise Missing(f"reading manifest {digest} in {source}: manifest unknown")
        for child in json.loads(manifests[digest])["manifests"]:
            self._copy(source, child["digest"], destination)
        self.registries[other_host].put(other_repository, manifests[digest])

    def stop(self) -> None:
        self.stopped = True
