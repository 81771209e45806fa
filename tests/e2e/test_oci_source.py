"""A registry that is not ECR, with a password, as the source: the whole relay on the local cloud of its own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from local import images
from local.up import LocalCloud, local_cloud
from tests.e2e.reading import arrive, manifest, referrers
from tests.integration.conftest import USER, DockerRegistry, digest_of

ACCOUNT, REGION = "000000000000", "eu-west-1"
SECRET: Final = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:hub-a1b2c3"
CONFIG: Final = """\
[source]
type = "oci"
host = "{host}"
plain_http = true
credentials.secret_arn = "{secret}"

[[destinations]]
name = "west"
account = "{account}"
region = "{region}"
prefix = "hub"

[[rules]]
repositories = ["team/app", "chart"]
exclude_tags = ["*-dev"]

[deployment]
cluster = "shared"
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    registry = DockerRegistry(tmp_path_factory.mktemp("registry"), USER)
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, registry: DockerRegistry) -> Iterator[LocalCloud]:
    folder = tmp_path_factory.mktemp("oci")
    config = folder / "relay.toml"
    config.write_text(CONFIG.format(host=registry.host, region=REGION, account=ACCOUNT, secret=SECRET))
    secrets = folder / "secrets.toml"
    secrets.touch(mode=0o600)
    secrets.write_text(f'["{SECRET}"]\nusername = "{USER.username}"\npassword = "{USER.password}"\n')
    with local_cloud(folder / "state", config, secrets=secrets) as running:
        yield running
        running.check()


def poll(cloud: LocalCloud) -> None:
    """What the schedule does every `poll_minutes`."""
    name, request = cloud.endpoints.reconcile_function, json.dumps({"action": "start"})
    answer = json.load(cloud.clients("lambda").invoke(FunctionName=name, Payload=request)["Payload"])
    assert (answer.get("status"), answer.get("counts", {}).get("failures")) == ("done", 0), answer


def signed(registry: DockerRegistry, repository: str, subject: str) -> tuple[str, str]:
    """A signature by cosign's tag, and an SBOM by the index that a registry without the referrers API has: digests."""
    by_tag = registry.push_image(repository, subject.replace(":", "-") + ".sig", layers=(b"signature",))
    size = len(registry.manifest(repository, subject))
    content = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "artifactType": "application/spdx+json",
        "config": registry.push_blob(repository, b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [registry.push_blob(repository, b'{"sbom":1}', "application/spdx+json")],
        "subject": {"mediaType": images.OCI_INDEX, "digest": subject, "size": size},
    }
    sbom = registry.push_manifest(repository, content, images.OCI_MANIFEST)
    size, kind = len(registry.manifest(repository, sbom)), content["artifactType"]
    entry = {"mediaType": images.OCI_MANIFEST, "digest": sbom, "size": size, "artifactType": kind}
    index = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [entry]}
    registry.push_manifest(repository, index, images.OCI_INDEX, subject.replace(":", "-"))
    return by_tag, sbom


@pytest.mark.slow
def test_images_charts_and_what_refers_to_them_arrive(
    cloud: LocalCloud, registry: DockerRegistry, tmp_path: Path
) -> None:
    assert cloud.endpoints.source_registry == registry.host
    index = images.index(tmp_path / "index", "oci-source", size=64)
    chart = images.artifact(tmp_path / "chart", "oci-source")
    registry.load(index, "team/app", "1.0")
    registry.load(index, "team/app", "1.0-dev")
    registry.load(chart, "chart", "0.1.0")
    registry.load(chart, "other", "0.1.0")
    signature, sbom = signed(registry, "team/app", index.digest)
    poll(cloud)
    west, fallback = cloud.endpoints.destination_registries["west"], index.digest.replace(":", "-")
    arrive(
        west,
        {
            ("hub/team/app", "1.0"): index.manifest,
            ("hub/chart", "0.1.0"): chart.manifest,
            ("hub/team/app", index.digest.replace(":", "-") + ".sig"): registry.manifest("team/app", signature),
            ("hub/team/app", sbom): registry.manifest("team/app", sbom),
            # skopeo 1.9 knows no `artifactType`, and does not write this index: the copier does.
            ("hub/team/app", fallback): registry.manifest("team/app", fallback),
        },
    )
    for child in index.children:
        assert digest_of(manifest(west, ("hub/team/app", child)) or b"") == child
    assert sbom in referrers(west, "hub/team/app", index.digest)
    assert manifest(west, ("hub/team/app", "1.0-dev")) is None
    assert manifest(west, ("hub/other", "0.1.0")) is None


@pytest.mark.slow
def test_a_tag_that_moves_is_moved_by_the_next_poll(
    cloud: LocalCloud, registry: DockerRegistry, tmp_path: Path
) -> None:
    for seed in ("one", "two"):
        made = images.single(tmp_path / seed, f"moves {seed}", (64,))
        registry.load(made, "team/app", "latest")
        poll(cloud)
        arrive(cloud.endpoints.destination_registries["west"], {("hub/team/app", "latest"): made.manifest})


@pytest.mark.slow
def test_no_password_is_told(cloud: LocalCloud) -> None:
    logs = "".join(path.read_text(errors="replace") for path in Path(cloud.endpoints.log_dir).glob("*"))
    assert "copied" in logs
    assert USER.password not in logs
