"""Manifests: what they list, and what no copy of them can mend. Pure.

What ECR takes of an image, from its service quotas and API reference (docs.aws.amazon.com/AmazonECR/latest):

    manifest           4 MiB           BatchGetImage and PutImage, `imageManifest`: 1 to 4,194,304 characters
    layer              52,000 MiB      "Maximum layer size", not adjustable
    layers             4,200 parts     of one layer; how many layers an image has is not limited
    schema             2               schema 1 manifests cannot be copied with their digest: their signature is in them
"""

import json
from dataclasses import dataclass
from typing import Any, Final

SIZE_LIMIT: Final = 4 * 1024 * 1024
LAYER_LIMIT: Final = 52_000 * 1024 * 1024
SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1"
"""How its media types begin; the digest of a signed one is not that of its bytes."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as the registry has it: `content` is not a byte otherwise, and `digest` is its own."""

    digest: str
    media_type: str
    content: bytes


def unfit(manifest: Manifest) -> str | None:
    """Why ECR can never have this manifest with its digest; None if nothing here speaks against it."""
    if len(manifest.content) > SIZE_LIMIT:
        return f"the manifest has {len(manifest.content):,} bytes; ECR takes {SIZE_LIMIT:,}"
    content = _content(manifest)
    if manifest.media_type.startswith(SCHEMA_1) or content.get("schemaVersion") == 1:
        return "it is a schema 1 manifest, whose digest no copy can keep; push it again with a client of this decade"
    for layer in _objects(content, "layers"):
        size = layer.get("size")
        if isinstance(size, int) and size > LAYER_LIMIT:
            return f"layer {layer.get('digest')} has {size:,} bytes; ECR takes {LAYER_LIMIT:,}"
    return next(filter(None, map(_unfit_child, _objects(content, "manifests"))), None)


def foreign_layers(manifest: Manifest) -> tuple[str, ...]:
    """Digests of layers that lie elsewhere, as Windows base layers once did, and are copied by nobody."""
    return tuple(str(layer.get("digest")) for layer in _objects(_content(manifest), "layers") if layer.get("urls"))


def _unfit_child(entry: dict[str, Any]) -> str | None:
    """By what the index says of it: to read it may count as a pull."""
    size, media_type = entry.get("size"), entry.get("mediaType")
    if isinstance(size, int) and size > SIZE_LIMIT:
        return f"manifest {entry.get('digest')}, which it lists, has {size:,} bytes; ECR takes {SIZE_LIMIT:,}"
    if isinstance(media_type, str) and media_type.startswith(SCHEMA_1):
        return f"it lists {entry.get('digest')}, a schema 1 manifest, whose digest no copy can keep"
    return None


def _content(manifest: Manifest) -> dict[str, Any]:
    try:
        content = json.loads(manifest.content)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _objects(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    listed = content.get(key)
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
