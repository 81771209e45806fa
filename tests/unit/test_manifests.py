"""What no copy of an image can mend, by its manifest alone."""

import json
from typing import Any

import pytest

from ecr_relay.manifests import LAYER_LIMIT, SIZE_LIMIT, Manifest, foreign_layers, unfit

IMAGE = "application/vnd.oci.image.manifest.v1+json"
SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def manifest(media_type: str = IMAGE, **content: Any) -> Manifest:
    return Manifest("sha256:" + "0" * 64, media_type, json.dumps({"schemaVersion": 2, **content}).encode())


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (manifest(annotations={"big": "x" * SIZE_LIMIT}), "ECR takes 4,194,304"),
        (manifest(SIGNED), "schema 1"),
        (manifest(schemaVersion=1), "schema 1"),
        (manifest(layers=[{"digest": "sha256:1", "size": LAYER_LIMIT + 1}]), "layer sha256:1"),
        (manifest(manifests=[{"digest": "sha256:1", "size": SIZE_LIMIT + 1}]), "manifest sha256:1, which it lists"),
        (manifest(manifests=[{}, {"digest": "sha256:2", "mediaType": SIGNED}]), "it lists sha256:2, a schema 1"),
    ],
)
def test_what_ecr_can_never_have_is_named(wrong: Manifest, reason: str) -> None:
    assert reason in (unfit(wrong) or "")


@pytest.mark.parametrize(
    "fine",
    [
        manifest(),
        manifest(layers=[{"digest": "sha256:1", "size": LAYER_LIMIT}, "odd"]),
        manifest(layers="odd"),
        manifest(manifests=[{"digest": "sha256:1", "size": SIZE_LIMIT, "mediaType": IMAGE}, {"size": "odd"}, "odd"]),
        Manifest("sha256:" + "0" * 64, IMAGE, b"no JSON"),
        Manifest("sha256:" + "0" * 64, IMAGE, b"[]"),
    ],
)
def test_what_nothing_speaks_against_is_left_to_the_registry(fine: Manifest) -> None:
    assert unfit(fine) is None


def test_layers_that_lie_elsewhere() -> None:
    layers = [{"digest": "sha256:1", "urls": ["https://example.com/1"]}, {"digest": "sha256:2"}]
    assert foreign_layers(manifest(layers=layers)) == ("sha256:1",)
    assert foreign_layers(manifest()) == ()
