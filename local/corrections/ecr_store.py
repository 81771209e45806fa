"""What an ECR repository holds, in MiniStack's own stores, and the checks that ECR makes before it takes a manifest."""

import fnmatch
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ministack.core.responses import get_account_id
from ministack.services import ecr

from local.corrections import ecr_events

IMAGE_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")

Image = dict[str, Any]
ImageId = dict[str, str]


class Refused(Exception):
    """ECR takes no such manifest. Both protocols word it, each with its own code."""

    def __init__(self, api_code: str, registry_code: str, message: str) -> None:
        super().__init__(message)
        self.api_code = api_code
        self.registry_code = registry_code


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest's bytes with what ECR reads out of them."""

    raw: bytes
    digest: str
    media_type: str
    content: dict[str, Any]

    @property
    def children(self) -> list[str]:
        """The manifests that an index lists."""
        return [entry["digest"] for entry in self.content.get("manifests", [])]

    @property
    def blobs(self) -> list[dict[str, Any]]:
        """Config and layers, without foreign layers, which lie elsewhere."""
        config = [self.content["config"]] if self.content.get("config") else []
        return [blob for blob in config + self.content.get("layers", []) if not blob.get("urls")]

    @property
    def subject(self) -> str | None:
        """The digest that a referrer (signature, SBOM, attestation) refers to."""
        digest: str | None = (self.content.get("subject") or {}).get("digest")
        return digest

    @property
    def artifact_media_type(self) -> str | None:
        """What DescribeImages says of it: for an image, its config's type."""
        config = self.content.get("config") or {}
        return self.content.get("artifactType") or config.get("mediaType")

    @property
    def detail(self) -> dict[str, str]:
        """What an event says of it; an artifact's type only where it is no image."""
        artifact = self.artifact_media_type
        told = {"artifact-media-type": artifact} if artifact and artifact not in IMAGE_CONFIGS else {}
        return {"image-digest": self.digest, "manifest-media-type": self.media_type, **told}


def parse(raw: bytes, media_type: str | None) -> Manifest:
    """Raises Refused for what is no manifest, or one whose type nobody says."""
    try:
        content = json.loads(raw)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise Refused("InvalidParameterException", "MANIFEST_INVALID", "Invalid JSON syntax")
    media_type = media_type or content.get("mediaType")
    if not media_type:
        raise Refused(
            "InvalidParameterException",
            "MANIFEST_INVALID",
            "Invalid parameter at 'imageManifestMediaType': the manifest has no mediaType, so it must be provided",
        )
    return Manifest(raw, ecr._content_digest(raw), media_type, content)


def images(repository: str) -> list[Image]:
    found: list[Image] = ecr._images.get(repository, [])
    return found


def by_digest(repository: str, digest: str) -> Image | None:
    return next((image for image in images(repository) if image["imageDigest"] == digest), None)


def by_tag(repository: str, tag: str) -> Image | None:
    return next((image for image in images(repository) if tag in image.get("imageTags", [])), None)


def manifest_of(repository: str, image: Image) -> Manifest:
    raw = ecr._manifest_blobs.get(repository, {}).get(image["imageDigest"]) or image["imageManifest"].encode()
    return parse(raw, image["imageManifestMediaType"])


def pairs(repository: str) -> Iterator[ImageId]:
    """One (digest, tag) for each tag, and the digest alone for an image without one, in a lasting order."""
    for image in sorted(images(repository), key=lambda image: str(image["imageDigest"])):
        digest = image["imageDigest"]
        tags = sorted(image.get("imageTags", []))
        yield from ({"imageDigest": digest, "imageTag": tag} for tag in tags)
        if not tags:
            yield {"imageDigest": digest}


def put(repository: str, manifest: Manifest, tag: str | None) -> None:
    """Take a manifest after ECR's checks, move the tag, and let the event follow. Raises Refused."""
    _check_contents(repository, manifest)
    if tag:
        _check_tag(repository, tag)
    ecr._manifest_blobs.setdefault(repository, {})[manifest.digest] = manifest.raw
    holder = by_tag(repository, tag) if tag else None
    if holder:
        holder["imageTags"].remove(tag)
    image = by_digest(repository, manifest.digest)
    if image is None:
        image = {
            "registryId": get_account_id(),
            "repositoryName": repository,
            "imageId": {"imageDigest": manifest.digest},
            "imageManifest": manifest.raw.decode(),
            "imageManifestMediaType": manifest.media_type,
            "imageTags": [],
            "imagePushedAt": int(time.time()),
            "imageDigest": manifest.digest,
        }
        ecr._images.setdefault(repository, []).append(image)
    if tag:
        image["imageTags"].append(tag)
    ecr_events.emit("PUSH", repository, tag, manifest.detail)


def remove(repository: str, image: Image, tag: str | None) -> list[ImageId]:
    """Take a tag away, or the whole image when it was the last, or when no tag is named. Returns what is gone."""
    digest = image["imageDigest"]
    manifest = manifest_of(repository, image)
    gone = [tag] if tag else list(image["imageTags"]) or [""]
    if tag and image["imageTags"] != [tag]:
        image["imageTags"].remove(tag)
    else:
        ecr._images[repository].remove(image)
        ecr._manifest_blobs.get(repository, {}).pop(digest, None)
    for name in gone:
        ecr_events.emit("DELETE", repository, name, manifest.detail)
    return [{"imageDigest": digest, "imageTag": name} if name else {"imageDigest": digest} for name in gone]


def referrers(repository: str, subject: str) -> list[dict[str, Any]]:
    """Descriptors of the images whose `subject` is this digest, as the distribution specification has them."""
    found = []
    for image in sorted(images(repository), key=lambda image: str(image["imageDigest"])):
        manifest = manifest_of(repository, image)
        if manifest.subject == subject:
            found.append(
                {
                    "mediaType": manifest.media_type,
                    "digest": manifest.digest,
                    "size": len(manifest.raw),
                    "artifactType": manifest.artifact_media_type,
                    "annotations": manifest.content.get("annotations", {}),
                }
            )
    return found


def indexes_with(repository: str, digest: str) -> list[str]:
    """The indexes of this repository that list `digest`: ECR deletes no manifest from under its index."""
    return [
        image["imageDigest"]
        for image in images(repository)
        if digest in image["imageManifest"] and digest in manifest_of(repository, image).children
    ]


def _check_contents(repository: str, manifest: Manifest) -> None:
    children = [digest for digest in manifest.children if by_digest(repository, digest) is None]
    blobs = ecr._layer_blobs.get(repository, {})
    layers = [blob["digest"] for blob in manifest.blobs if blob["digest"] not in blobs]
    where = f"repository with name '{repository}' in the registry with id '{get_account_id()}'"
    if children:
        raise Refused(
            "ReferencedImagesNotFoundException",
            "MANIFEST_BLOB_UNKNOWN",
            f"Images with digests '[{', '.join(children)}]' required for pushing image into {where} do not exist",
        )
    if layers:
        raise Refused(
            "LayersNotFoundException",
            "BLOB_UPLOAD_UNKNOWN",
            f"Layers with digests '[{', '.join(layers)}]' required for pushing image into {where} do not exist",
        )


def is_immutable(repository: str, tag: str) -> bool:
    """Whether `tag`, once put there, can be moved no more."""
    settings = ecr._repositories[repository]
    mutability = settings.get("imageTagMutability", "MUTABLE")
    filters = settings.get("imageTagMutabilityExclusionFilters") or []
    excluded = any(fnmatch.fnmatchcase(tag, entry.get("filter", "")) for entry in filters)
    return bool(mutability.startswith("IMMUTABLE") != (excluded and mutability.endswith("_WITH_EXCLUSION")))


def _check_tag(repository: str, tag: str) -> None:
    if is_immutable(repository, tag) and by_tag(repository, tag):
        raise Refused(
            "ImageTagAlreadyExistsException",
            "TAG_INVALID",
            f"The image tag '{tag}' already exists in the '{repository}' repository and cannot be overwritten because "
            "the repository is immutable.",
        )
