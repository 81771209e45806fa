"""Real images, made on the spot without a container engine: `dir:` and `oci:` layouts that skopeo pushes.

Every function writes into an empty or new folder and says what it made; `seed` makes the bytes, so that the same
call gives the same digests and another seed gives an image that nobody has seen.
"""

import gzip
import hashlib
import io
import json
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
HELM_CONFIG: Final = "application/vnd.cncf.helm.config.v1+json"
HELM_LAYER: Final = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
IN_TOTO: Final = "application/vnd.in-toto+json"

Descriptor = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """An image in a folder. `source` is what skopeo reads it by."""

    source: str
    digest: str
    media_type: str
    manifest: bytes
    children: tuple[str, ...] = ()
    """Digests of the manifests that an index lists, attestations included."""
    layers: tuple[str, ...] = ()


def layer(seed: str, size: int) -> bytes:
    """A gzipped tar with one incompressible file of `size` bytes."""
    content = random.Random(seed).randbytes(size)  # noqa: S311 - contents, not secrets
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(f"layer-{hashlib.sha256(seed.encode()).hexdigest()[:8]}")
        entry.size = size
        archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), compresslevel=1, mtime=0)


def _json(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def digest_of(data: bytes) -> str:
    """sha256, as registries name it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class _Layout:
    """An OCI image layout (image-spec 1.1) with a single entry."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)

    def blob(self, data: bytes, media_type: str, **more: Any) -> Descriptor:
        digest = digest_of(data)
        (self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def diff_id(self, entry: Descriptor) -> str:
        """The digest of a layer's uncompressed tar, which a config lists."""
        data = (self.folder / "blobs" / "sha256" / entry["digest"].removeprefix("sha256:")).read_bytes()
        return digest_of(gzip.decompress(data)) if entry["mediaType"].endswith("gzip") else str(entry["digest"])

    def image(self, seed: str, layers: list[Descriptor], platform: Descriptor | None = None) -> bytes:
        about = platform or {"architecture": "amd64", "os": "linux"}
        rootfs = {"type": "layers", "diff_ids": [self.diff_id(entry) for entry in layers]}
        config = _json({**about, "config": {"Labels": {"seed": seed}}, "rootfs": rootfs})
        return _json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": self.blob(config, OCI_CONFIG),
                "layers": layers,
            }
        )

    def finish(
        self, manifest: bytes, media_type: str, children: tuple[str, ...] = (), layers: tuple[str, ...] = ()
    ) -> Made:
        entry = self.blob(manifest, media_type, annotations={"org.opencontainers.image.ref.name": "it"})
        (self.folder / "index.json").write_bytes(
            _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
        )
        (self.folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
        return Made(f"oci:{self.folder}:it", entry["digest"], media_type, manifest, children, layers)


def single(folder: Path, seed: str, sizes: tuple[int, ...] = (2048, 4096), shared: tuple[str, ...] = ()) -> Made:
    """An OCI image; the layers that `shared` seeds are the same in every image that shares them."""
    layout = _Layout(folder)
    seeds = [*shared, *(f"{seed}/{number}" for number in range(len(shared), len(sizes)))]
    layers = [layout.blob(layer(name, size), OCI_LAYER) for name, size in zip(seeds, sizes, strict=True)]
    return layout.finish(layout.image(seed, layers), OCI_MANIFEST, layers=tuple(entry["digest"] for entry in layers))


def index(folder: Path, seed: str, architectures: tuple[str, ...] = ("amd64", "arm64"), size: int = 4096) -> Made:
    """An OCI index as BuildKit makes it: an image for each architecture, and an attestation manifest for each."""
    layout = _Layout(folder)
    entries: list[Descriptor] = []
    attestations: list[Descriptor] = []
    layers: list[str] = []
    for architecture in architectures:
        platform = {"architecture": architecture, "os": "linux"}
        content = layout.blob(layer(f"{seed}/{architecture}", size), OCI_LAYER)
        layers.append(content["digest"])
        child = layout.blob(layout.image(seed, [content], platform), OCI_MANIFEST, platform=platform)
        entries.append(child)
        statement = {"_type": "https://in-toto.io/Statement/v0.1", "subject": [{"digest": child["digest"]}]}
        about = {"architecture": "unknown", "os": "unknown"}
        predicate = {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}
        attested = layout.blob(_json(statement), IN_TOTO, annotations=predicate)
        refers = {
            "vnd.docker.reference.digest": child["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        }
        manifest = layout.image(seed, [attested], about)
        attestations.append(layout.blob(manifest, OCI_MANIFEST, annotations=refers, platform=about))
    listed = [*entries, *attestations]
    manifest = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed})
    return layout.finish(manifest, OCI_INDEX, tuple(entry["digest"] for entry in listed), tuple(layers))


def artifact(folder: Path, seed: str, size: int = 2048) -> Made:
    """An OCI artifact: a Helm chart."""
    layout = _Layout(folder)
    config = _json({"name": "chart", "version": "0.1.0", "apiVersion": "v2", "description": seed})
    chart = layout.blob(layer(seed, size), HELM_LAYER)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": layout.blob(config, HELM_CONFIG),
        "layers": [chart],
        "annotations": {"org.opencontainers.image.title": "chart"},
    }
    return layout.finish(_json(manifest), OCI_MANIFEST, layers=(chart["digest"],))


def schema2(folder: Path, seed: str, sizes: tuple[int, ...] = (2048,)) -> Made:
    """A Docker image manifest, version 2 schema 2, as a `dir:` layout: an OCI layout cannot hold one."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = [layer(f"{seed}/{number}", size) for number, size in enumerate(sizes)]
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"seed": seed}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(gzip.decompress(content)) for content in contents]},
        }
    )
    for data in [config, *contents]:
        (folder / digest_of(data).removeprefix("sha256:")).write_bytes(data)
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {"mediaType": DOCKER_CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [
                {"mediaType": DOCKER_LAYER, "digest": digest_of(content), "size": len(content)} for content in contents
            ],
        }
    )
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "version").write_text("Directory Transport Version: 1.1\n", encoding="utf-8")
    layers = tuple(digest_of(content) for content in contents)
    return Made(f"dir:{folder}", digest_of(manifest), DOCKER_MANIFEST, manifest, (), layers)
