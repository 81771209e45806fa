"""A registry's client of the bench's own, which is none of those that are measured."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import urllib3

from ecr_relay.config import NewRepository
from ecr_relay.errors import Missing
from ecr_relay.manifests import Manifest
from ecr_relay.registries import Login
from ecr_relay.registries.oci import Oci
from local.images import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, digest_of
from tests.bench.figures import BenchError


class Client:
    """Speaks plain HTTP. Threads may share it. Raises BenchError for what a registry refuses."""

    def __init__(self, host: str, login: Login | None = None) -> None:
        self.host = host
        self._pool = urllib3.PoolManager(retries=False, timeout=60, maxsize=16)
        self._headers = urllib3.make_headers(basic_auth=f"{login.username}:{login.password}") if login else {}

    def blob(self, repository: str, content: bytes, media_type: str) -> Descriptor:
        """Upload it; its descriptor."""
        digest = digest_of(content)
        location = self._request("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
        where = location + ("&" if "?" in location else "?") + f"digest={digest}"
        self._request("PUT", where, content, {"Content-Type": "application/octet-stream"})
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def layer(self, repository: str, content: bytes) -> Descriptor:
        return self.blob(repository, content, OCI_LAYER)

    def image(self, repository: str, name: str, layers: Sequence[Descriptor]) -> bytes:
        """Upload a config that makes it an image of its own, and return its manifest, which is not put yet."""
        # Nobody here unpacks it, so the layers' own digests do.
        rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
        content = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"name": name}}, "rootfs": rootfs}
        config = self.blob(repository, json.dumps(content).encode(), OCI_CONFIG)
        return manifest(config, layers)

    def put(self, repository: str, reference: str, content: bytes) -> str:
        """The manifest under a tag, or its own digest; the digest."""
        path = f"/v2/{repository}/manifests/{reference}"
        self._request("PUT", path, content, {"Content-Type": OCI_MANIFEST})
        return digest_of(content)

    def digest(self, repository: str, reference: str) -> str:
        """Of the bytes that the registry serves; "" if there are none."""
        url = f"http://{self.host}/v2/{repository}/manifests/{reference}"
        answer = self._pool.request("GET", url, headers={**self._headers, "Accept": OCI_MANIFEST})
        return "sha256:" + hashlib.sha256(answer.data).hexdigest() if answer.status == 200 else ""

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        url = path if path.startswith("http") else f"http://{self.host}{path}"
        answer = self._pool.request(method, url, body=body, headers={**self._headers, **(headers or {})})
        if answer.status >= 300:
            raise BenchError(f"{method} {url}: {answer.status} {answer.data[:300].decode(errors='replace')}")
        return answer


def manifest(config: Descriptor, layers: Sequence[Descriptor], **annotations: str) -> bytes:
    content: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config,
        "layers": list(layers),
    }
    return json.dumps(content | ({"annotations": annotations} if annotations else {})).encode()


class OciDestination(Oci):
    """A docker-registry in the place of ECR: the relay itself only ever reads from such a registry."""

    def __init__(self, host: str) -> None:
        super().__init__(host, scheme="http")
        self._client = Client(host)

    def ensure_repository(self, repository: str, settings: NewRepository) -> None:
        """A push makes it."""

    def differences(self, repository: str, settings: NewRepository) -> tuple[str, ...]:
        return ()

    def tag_is_taken(self, repository: str, digest: str, tag: str) -> bool:
        return False

    def put_tag(self, repository: str, digest: str, tag: str) -> None:
        found = self.manifest(repository, digest)
        if found is None:
            raise Missing(f"{repository}@{digest} is not there")
        self._client.put(repository, tag, found.content)

    def put_manifest(self, repository: str, manifest: Manifest) -> None:
        self._client.put(repository, manifest.digest, manifest.content)

    def delete(self, repository: str, digest: str, tag: str | None) -> None:
        raise NotImplementedError("the bench deletes nothing")
