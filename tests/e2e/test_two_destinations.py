"""ECR to two ECR destinations with prefixes: every kind of image, and what refers to it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from local import images
from local.up import LocalCloud, local_cloud
from tests.e2e.reading import DOCKER_LIST, HTTP, Image, arrive, manifest, referrers

CONFIG: Final = """\
[source]
account = "000000000000"
region = "us-east-1"

[[destinations]]
name = "west"
account = "000000000000"
region = "eu-west-1"
prefix = "mirror"

[[destinations]]
name = "east"
account = "111122223333"
region = "ap-east-1"
prefix = "team/copy"
"""
PREFIXES: Final = {"west": "mirror", "east": "team/copy"}
PUSH: Final = ["skopeo", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    folder = tmp_path_factory.mktemp("two")
    config = folder / "relay.toml"
    config.write_text(CONFIG)
    with local_cloud(folder / "state", config) as running:
        yield running
        running.check()


def push(cloud: LocalCloud, made: images.Made, image: str) -> None:
    subprocess.run([*PUSH, made.source, f"docker://{cloud.endpoints.source_registry}/{image}"], check=True)


def put(cloud: LocalCloud, repository: str, reference: str, content: bytes, media_type: str) -> None:
    """A manifest whose blobs the repository has."""
    url = f"http://{cloud.endpoints.source_registry}/v2/{repository}/manifests/{reference}"
    assert HTTP.request("PUT", url, body=content, headers={"Content-Type": media_type}).status == 201


def referrer(subject: images.Made | str, artifact: images.Made, kind: str) -> tuple[str, bytes]:
    """A manifest that refers to `subject` and is `artifact` otherwise; its digest, and its bytes."""
    digest = subject if isinstance(subject, str) else subject.digest
    content: dict[str, Any] = {
        **json.loads(artifact.manifest),
        "artifactType": kind,
        "subject": {"mediaType": images.OCI_MANIFEST, "digest": digest, "size": 1},
    }
    raw = json.dumps(content).encode()
    return images.digest_of(raw), raw


def arrive_at_both(cloud: LocalCloud, wanted: dict[Image, bytes]) -> None:
    for name, host in cloud.endpoints.destination_registries.items():
        arrive(
            host, {(f"{PREFIXES[name]}/{repository}", tag): content for (repository, tag), content in wanted.items()}
        )


def test_every_kind_of_image_arrives_at_both(cloud: LocalCloud, tmp_path: Path) -> None:
    index = images.index(tmp_path / "index", "both", size=64)
    chart = images.artifact(tmp_path / "chart", "both")
    docker = images.schema2(tmp_path / "docker", "both")
    entry = {"mediaType": docker.media_type, "digest": docker.digest, "size": len(docker.manifest)}
    platform = {"os": "linux", "architecture": "amd64"}
    listed = {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [{**entry, "platform": platform}]}
    docker_list = json.dumps(listed).encode()
    push(cloud, index, "shop/web:1.0")
    push(cloud, chart, "charts/shop:0.1.0")
    push(cloud, docker, "shop/old:amd64")
    put(cloud, "shop/old", "1.0", docker_list, DOCKER_LIST)
    arrive_at_both(
        cloud,
        {
            ("shop/web", "1.0"): index.manifest,
            **{
                ("shop/web", child): manifest(cloud.endpoints.source_registry, ("shop/web", child)) or b""
                for child in index.children
            },
            ("charts/shop", "0.1.0"): chart.manifest,
            ("shop/old", "amd64"): docker.manifest,
            ("shop/old", "1.0"): docker_list,
        },
    )


def test_what_is_signed_later_follows_by_its_own_events(cloud: LocalCloud, tmp_path: Path) -> None:
    image = images.index(tmp_path / "image", "signed", size=64)
    artifact = images.artifact(tmp_path / "artifact", "signed")
    push(cloud, image, "shop/signed:1.0")
    push(cloud, artifact, "shop/signed:blobs")
    arrive_at_both(cloud, {("shop/signed", "1.0"): image.manifest})
    sbom, sbom_raw = referrer(image, artifact, "application/spdx+json")
    signature, signature_raw = referrer(sbom, artifact, "application/vnd.dev.cosign.artifact.sig.v1+json")
    of_child, of_child_raw = referrer(image.children[0], artifact, "application/spdx+json")
    tags = [image.digest.replace(":", "-") + suffix for suffix in (".sig", ".sbom")]
    for digest, raw in ((sbom, sbom_raw), (signature, signature_raw), (of_child, of_child_raw)):
        put(cloud, "shop/signed", digest, raw, images.OCI_MANIFEST)
    for tag in tags:
        push(cloud, artifact, f"shop/signed:{tag}")
    arrive_at_both(
        cloud,
        {
            ("shop/signed", sbom): sbom_raw,
            ("shop/signed", signature): signature_raw,
            ("shop/signed", of_child): of_child_raw,
            **{("shop/signed", tag): artifact.manifest for tag in tags},
        },
    )
    for name, host in cloud.endpoints.destination_registries.items():
        repository = f"{PREFIXES[name]}/shop/signed"
        assert referrers(host, repository, image.digest) == [sbom]
        assert referrers(host, repository, sbom) == [signature]
        assert referrers(host, repository, image.children[0]) == [of_child]


def test_what_is_signed_at_once_goes_along_with_its_image(cloud: LocalCloud, tmp_path: Path) -> None:
    image = images.single(tmp_path / "image", "at once", (64,))
    artifact = images.artifact(tmp_path / "artifact", "at once")
    push(cloud, artifact, "shop/at-once:blobs")
    push(cloud, image, "shop/at-once:1.0")
    sbom, raw = referrer(image, artifact, "application/spdx+json")
    put(cloud, "shop/at-once", sbom, raw, images.OCI_MANIFEST)
    arrive_at_both(cloud, {("shop/at-once", "1.0"): image.manifest, ("shop/at-once", sbom): raw})
