"""Manifests: what they list, and what no copy of them can mend. Pure.

What ECR takes of an image, from its service quotas and API reference (docs.aws.amazon.com/AmazonECR/latest):

    manifest           4 MiB           BatchGetImage and PutImage, `imageManifest`: 1 to 4,194,304 characters
    layer              52,000 MiB      "Maximum layer size", not adjustable
    layers             4,200 parts     of one layer; how many layers an image has is not limited
    schema             2               schema 1 manifests cannot be copied with their digest: their signature is in them
"""

from dataclasses import dataclass
from typing import Final

SIZE_LIMIT: Final = 4 * 1024 * 1024
LAYER_LIMIT: Final = 52_000 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as the registry has it: `content` is not a byte otherwise, and `digest` is its own."""

    digest: str
    media_type: str
    content: bytes
