"""Real registries and a real skopeo: what the tests of this folder share.

Registries are Debian's docker-registry, each a process of ours on a free loopback port, ended by its process id.
"""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import urllib3

from ecr_relay.registries import Login
from local.images import Made

USER: Final = Login("relay", "correct horse")
# bcrypt (5 rounds, made with libxcrypt) of the password above: docker-registry takes nothing weaker.
_HTPASSWD: Final = "relay:$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n"

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
SCHEMA2: Final = "application/vnd.docker.distribution.manifest.v2+json"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def installed(program: str) -> str:
    """Its path; fails the test with the remedy if it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.fail(f"{program} is not installed: apt-get install {program}")
    return found


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Poll until `condition` is true; fail the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@dataclass
class DockerRegistry:
    """A docker-registry process. Pushes and reads by plain HTTP, so that what skopeo does is checked by other means."""

    folder: Path
    login: Login | None = None
    tls: bool = False
    """With a certificate of its own, `certificate`, and no other."""
    process: "subprocess.Popen[bytes] | None" = None
    host: str = ""
    pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False, timeout=20))

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        auth: dict[str, Any] = {}
        if self.login:
            (self.folder / "htpasswd").write_text(_HTPASSWD)
            auth = {"auth": {"htpasswd": {"realm": "test", "path": str(self.folder / "htpasswd")}}}
        configuration = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}, "delete": {"enabled": True}},
            # The same port again after a restart; 0 lets the kernel choose one.
            "http": {"addr": self.host or "127.0.0.1:0", **self._certified()},
            **auth,
        }
        (self.folder / "config.yml").write_text(json.dumps(configuration))  # JSON is YAML
        log = self.folder / "log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [installed("docker-registry"), "serve", str(self.folder / "config.yml")],
                stdout=output,
                stderr=output,
            )
        wait_for(lambda: re.search(r"listening on ([0-9.:]+)", log.read_text()))
        found = re.search(r"listening on ([0-9.:]+)", log.read_text())
        assert found
        self.host = found[1]

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    def _certified(self) -> dict[str, Any]:
        if not self.tls:
            return {}
        key = self.folder / "key.pem"
        command = [installed("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        made = ["-nodes", "-days", "2", "-keyout", str(key), "-out", str(self.certificate)]
        name = ["-subj", "/CN=registry.test", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*command, *made, *name], check=True, capture_output=True)
        self.pool = urllib3.PoolManager(retries=False, timeout=20, ca_certs=str(self.certificate))
        return {"tls": {"certificate": str(self.certificate), "key": str(key)}}

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
        self.pool.clear()

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        headers = dict(headers or {})
        if self.login:
            pair = f"{self.login.username}:{self.login.password}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        url = path if path.startswith("http") else f"http{'s' if self.tls else ''}://{self.host}{path}"
        answer = self.pool.request(method, url, body=body, headers=headers)
        assert answer.status < 300, (method, path, answer.status, answer.data)
        return answer

    def push_blob(self, repository: str, content: bytes, media_type: str) -> dict[str, Any]:
        """Upload it and return its descriptor."""
        digest = digest_of(content)
        upload = self.request("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
        self.request("PUT", f"{upload}&digest={digest}", content, headers={"Content-Type": "application/octet-stream"})
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def push_manifest(self, repository: str, manifest: dict[str, Any] | bytes, media_type: str, tag: str = "") -> str:
        content = manifest if isinstance(manifest, bytes) else json.dumps(manifest, indent=1).encode()
        digest = digest_of(content)
        name = tag or digest
        self.request("PUT", f"/v2/{repository}/manifests/{name}", content, headers={"Content-Type": media_type})
        return digest

    def push_image(self, repository: str, tag: str = "", *, layers: tuple[bytes, ...] = (b"layer",)) -> str:
        """A single OCI image with these layers; returns its digest."""
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [digest_of(x) for x in layers]},
            }
        )
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.push_blob(repository, config.encode(), OCI_CONFIG),
            "layers": [self.push_blob(repository, layer, OCI_LAYER) for layer in layers],
        }
        return self.push_manifest(repository, manifest, OCI_MANIFEST, tag)

    def push_index(self, repository: str, tag: str, children: list[str]) -> str:
        manifests = [
            {
                "mediaType": OCI_MANIFEST,
                "digest": child,
                "size": len(self.manifest(repository, child)),
                "platform": {"os": "linux", "architecture": architecture},
            }
            for child, architecture in zip(children, ("amd64", "arm64"), strict=False)
        ]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
        return self.push_manifest(repository, index, OCI_INDEX, tag)

    def load(self, made: Made, repository: str, tag: str) -> None:
        """Push an image of `local.images`, as a person does."""
        credentials = [f"--dest-creds={self.login.username}:{self.login.password}"] if self.login else []
        command = [installed("skopeo"), "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]
        subprocess.run([*command, *credentials, made.source, f"docker://{self.host}/{repository}:{tag}"], check=True)

    def manifest(self, repository: str, reference: str) -> bytes:
        accept = ", ".join((OCI_MANIFEST, OCI_INDEX, SCHEMA2))
        return self.request("GET", f"/v2/{repository}/manifests/{reference}", headers={"Accept": accept}).data

    def lose_blob(self, digest: str) -> None:
        """Delete a layer's bytes behind the registry's back; manifests go on naming it."""
        hexadecimal = digest.removeprefix("sha256:")
        shutil.rmtree(self.storage / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal)


@pytest.fixture
def start_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., DockerRegistry]]:
    """Starts a registry, `start_registry(login=USER)` one with Basic auth; skopeo may speak plain HTTP to it."""
    started: list[DockerRegistry] = []
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))

    def start(login: Login | None = None, *, tls: bool = False) -> DockerRegistry:
        registry = DockerRegistry(tmp_path / f"registry{len(started)}", login, tls)
        started.append(registry)
        registry.start()
        allow_plain_http(home, [each.host for each in started if not each.tls])
        return registry

    yield start
    for registry in started:
        registry.stop()


def allow_plain_http(home: Path, hosts: list[str]) -> None:
    """Let a skopeo with this HOME speak plain HTTP to these hosts."""
    path = home / ".config/containers/registries.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n' for host in hosts))
