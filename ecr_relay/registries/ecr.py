"""Amazon ECR, private registries, by its API."""

import base64
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ecr_relay.config import NewRepository
from ecr_relay.errors import CopyError, Missing, Permanent, RegistryDown, TagTaken, Transient
from ecr_relay.images import MANIFEST_MEDIA_TYPES, Listed, children
from ecr_relay.manifests import Manifest
from ecr_relay.registries import Login
from ecr_relay.registries.aws import code, translated
from ecr_relay.registries.repositories import Repositories, differences, is_immutable

if TYPE_CHECKING:
    from mypy_boto3_ecr.client import ECRClient
    from mypy_boto3_ecr.literals import ImageStatusFilterType
    from mypy_boto3_ecr.type_defs import (
        ImageDetailTypeDef,
        ImageIdentifierTypeDef,
        ImageTypeDef,
        ListImageReferrersRequestTypeDef,
        PutImageRequestTypeDef,
    )

HOURS_LEFT: Final = timedelta(hours=6)
"""What a login has left at the least when a copy gets it: half of what ECR gives (12 hours, ECR API reference)."""

# Archived images have a record but cannot be pulled; a push brings them back.
_ARCHIVED: Final = "ImageInaccessible"
_ABSENT: Final = {"ImageNotFound", _ARCHIVED}
# Of an API that is older than ListImageReferrers, as others than AWS itself have it.
_UNKNOWN_CALL: Final = {"UnknownOperationException", "InvalidAction", "AccessDeniedException", "AccessDenied"}


_log = logging.getLogger(__name__)


class Ecr:
    """Implements `registries.Writable`. `put_client` does PutImage alone, without retries. Threads may share it."""

    def __init__(self, client: "ECRClient", registry_id: str, *, put_client: "ECRClient | None" = None) -> None:
        self._client = client
        self._put_client = put_client or client
        self._id = registry_id
        self._repositories = Repositories(client, registry_id, self._name)
        self._lock = threading.Lock()
        self._last: tuple[str, Login] | None = None

    def __repr__(self) -> str:
        return f"Ecr({self._name})"

    @property
    def _name(self) -> str:
        return f"{self._id}.{self._client.meta.region_name}"

    def _doing(self, operation: str, repository: str) -> str:
        return f"ECR {operation} of {repository} in {self._name}"

    @property
    def host(self) -> str:
        """Of the last token's answer, however old: it does not change."""
        return (self._last or self._authorize())[0]

    @property
    def plain_http(self) -> bool:
        return False

    @property
    def ca_certificate(self) -> str | None:
        return None

    def login(self) -> Login:
        """Asks for a new token when the last one has less than HOURS_LEFT."""
        with self._lock:
            if self._last:
                login = self._last[1]
                if login.expires_at and login.expires_at - datetime.now(UTC) > HOURS_LEFT:
                    return login
            return self._authorize()[1]

    def _authorize(self) -> tuple[str, Login]:
        what = f"ECR GetAuthorizationToken in {self._name}"
        with translated(what):
            # `registryIds` is deprecated and gives no other rights, but the host of a registry that is not ours.
            answer = self._client.get_authorization_token(registryIds=[self._id])
        try:
            data = answer["authorizationData"][0]
            pair = base64.b64decode(data["authorizationToken"], validate=True).decode()
            host = data["proxyEndpoint"].rpartition("://")[2].rstrip("/")
        except (KeyError, IndexError, ValueError):
            raise RegistryDown(f"{what}: the answer holds no usable token") from None
        username, _, password = pair.partition(":")
        self._last = host, Login(username, password, data.get("expiresAt"))
        return self._last

    def resolve(self, repository: str, tag: str) -> str | None:
        image = self._image(repository, {"imageTag": tag})
        return image["imageId"]["imageDigest"] if image else None

    def has(self, repository: str, digest: str) -> bool:
        return self._image(repository, {"imageDigest": digest}) is not None

    def manifest(self, repository: str, digest: str) -> Manifest | None:
        return self._read(repository, digest, archived=True)

    def _read(self, repository: str, digest: str, *, archived: bool) -> Manifest | None:
        image = self._image(repository, {"imageDigest": digest}, archived=archived)
        if image is None:
            return None
        content = image["imageManifest"].encode()
        if "sha256:" + hashlib.sha256(content).hexdigest() != digest:
            raise Permanent(f"{self._doing('BatchGetImage', repository)}: the manifest is not that of {digest}")
        return Manifest(digest, image.get("imageManifestMediaType", ""), content)

    def children(self, repository: str, digest: str) -> tuple[str, ...]:
        image = self._image(repository, {"imageDigest": digest})
        return children(image["imageManifest"]) if image else ()

    def referrers(self, repository: str, digest: str) -> tuple[str, ...]:
        """By ListImageReferrers, which tells of active ones only: archived ones cannot be pulled."""
        found: list[str] = []
        request: ListImageReferrersRequestTypeDef = {
            "registryId": self._id,
            "repositoryName": repository,
            "subjectId": {"imageDigest": digest},
        }
        try:
            with translated(self._doing("ListImageReferrers", f"{repository}@{digest}")):
                while True:  # botocore has no paginator for it
                    page = self._client.list_image_referrers(**request)
                    found += (each["digest"] for each in page.get("referrers", ()))
                    if not page.get("nextToken"):
                        return tuple(found)
                    request["nextToken"] = page["nextToken"]
        except Missing:
            return ()
        except CopyError as error:
            if code(error.__cause__) not in _UNKNOWN_CALL:
                raise
            _log.warning("referrers are looked for by tag only", extra={"error": str(error)})
        listed = self.resolve(repository, digest.replace(":", "-"))
        return self.children(repository, listed) if listed else ()

    def lines(self, repository: str, digest: str) -> tuple[Listed, ...]:
        try:
            with translated(self._doing("DescribeImages", f"{repository}@{digest}")):
                answer = self._client.describe_images(
                    registryId=self._id, repositoryName=repository, imageIds=[{"imageDigest": digest}]
                )
        except Missing:
            return ()
        return tuple(_lines(answer["imageDetails"]))

    def _image(
        self, repository: str, image_id: "ImageIdentifierTypeDef", *, archived: bool = False
    ) -> "ImageTypeDef | None":
        """None if there is no such image, or no such repository; an archived one is Permanent if `archived` is to be
        told from those."""
        what = self._doing("BatchGetImage", f"{repository} {' '.join(map(str, image_id.values()))}")
        try:
            with translated(what):
                answer = self._client.batch_get_image(
                    registryId=self._id,
                    repositoryName=repository,
                    imageIds=[image_id],
                    acceptedMediaTypes=list(MANIFEST_MEDIA_TYPES),
                )
        except Missing:
            return None
        if images := answer.get("images"):
            return images[0]
        for failure in answer.get("failures", ()):  # of the one that was asked for
            kind = failure.get("failureCode", "unknown")
            if kind == _ARCHIVED and archived:
                raise Permanent(f"{what}: the image is archived, and can be pulled again when it is restored there")
            if kind not in _ABSENT:
                raise Transient(f"{what}: {kind}: {failure.get('failureReason', 'no reason given')}")
        return None

    def repositories(self) -> Iterator[str]:
        with translated(f"ECR DescribeRepositories in {self._name}"):
            pages = self._client.get_paginator("describe_repositories").paginate(
                registryId=self._id, PaginationConfig={"PageSize": 1000}
            )
            for page in pages:
                yield from (repository["repositoryName"] for repository in page["repositories"])

    def images(
        self,
        repository: str,
        *,
        details: bool = False,
        tags: Callable[[str], bool] | None = None,  # noqa: ARG002 - they cost nothing
    ) -> Iterator[Listed]:
        """Of any status: an archived image is there, though `has` says that it cannot be pulled.

        Without details a listing does not say which are archived, so those are listed apart. DescribeImages says it in
        one, but is a permission that not every destination gives.
        """
        if details:
            yield from self._described_images(repository)
            return
        archived = {image["imageDigest"] for image in self._listed_images(repository, "ARCHIVED")}
        for image in self._listed_images(repository, "ANY"):
            digest = image["imageDigest"]
            yield Listed(image.get("imageTag"), digest, archived=digest in archived)

    def _listed_images(self, repository: str, status: "ImageStatusFilterType") -> "Iterator[ImageIdentifierTypeDef]":
        with translated(self._doing("ListImages", repository)):
            pages = self._client.get_paginator("list_images").paginate(
                registryId=self._id,
                repositoryName=repository,
                filter={"imageStatus": status},
                PaginationConfig={"PageSize": 1000},
            )
            for page in pages:
                yield from page["imageIds"]

    def _described_images(self, repository: str) -> Iterator[Listed]:
        with translated(self._doing("DescribeImages", repository)):
            pages = self._client.get_paginator("describe_images").paginate(
                registryId=self._id,
                repositoryName=repository,
                filter={"imageStatus": "ANY"},
                PaginationConfig={"PageSize": 1000},
            )
            for page in pages:
                yield from _lines(page["imageDetails"])

    def ensure_repository(self, repository: str, settings: NewRepository) -> None:
        self._repositories.ensure(repository, settings)

    def differences(self, repository: str, settings: NewRepository) -> tuple[str, ...]:
        try:
            return differences(self._repositories.described(repository), settings)
        except Missing:
            return ()

    def tag_is_taken(self, repository: str, digest: str, tag: str) -> bool:
        if self.resolve(repository, tag) in (None, digest):
            return False
        return is_immutable(self._repositories.described(repository), tag)

    def put_tag(self, repository: str, digest: str, tag: str) -> None:
        """One BatchGetImage and one PutImage; the latter is sent once, and answers or fails within 13 s."""
        manifest = self._read(repository, digest, archived=False)  # a push brings an archived one back
        if manifest is None:
            raise Missing(f"{repository}@{digest} is not in {self._name}")
        try:
            self._put(repository, manifest, tag)
        except TagTaken:
            taken = self.resolve(repository, tag)
            if taken != digest:
                raise TagTaken(
                    f"tag {tag} of {repository} in {self._name} is immutable and holds {taken}, not {digest}"
                ) from None

    def put_manifest(self, repository: str, manifest: Manifest) -> None:
        self._put(repository, manifest)

    def _put(self, repository: str, manifest: Manifest, tag: str | None = None) -> None:
        request: PutImageRequestTypeDef = {
            "registryId": self._id,
            "repositoryName": repository,
            "imageManifest": manifest.content.decode(),
            "imageDigest": manifest.digest,
        }
        if manifest.media_type:  # mandatory for a manifest that does not say it itself
            request["imageManifestMediaType"] = manifest.media_type
        if tag is not None:
            request["imageTag"] = tag
        name = f"{repository}:{tag}" if tag else f"{repository}@{manifest.digest}"
        try:
            with translated(self._doing("PutImage", name)):
                self._put_client.put_image(**request)
        except TagTaken:
            raise
        except CopyError as error:
            # Only ECR's own code will do: no other "already exists" means that the tag is what was asked for.
            if code(error.__cause__) != "ImageAlreadyExistsException":
                raise

    def delete(self, repository: str, digest: str, tag: str | None) -> None:
        if tag is not None and self.resolve(repository, tag) not in (None, digest):
            return
        image_id: ImageIdentifierTypeDef = {"imageDigest": digest} if tag is None else {"imageTag": tag}
        what = self._doing("BatchDeleteImage", f"{repository} {tag or digest}")
        try:
            with translated(what):
                answer = self._client.batch_delete_image(
                    registryId=self._id, repositoryName=repository, imageIds=[image_id]
                )
        except Missing:
            return
        for failure in answer.get("failures", ()):  # of the one that was asked for
            kind, reason = failure.get("failureCode", "unknown"), failure.get("failureReason", "no reason given")
            if kind == "ImageReferencedByManifestList":
                raise Permanent(f"{what}: {kind}: {reason}")
            if kind != "ImageNotFound":
                raise Transient(f"{what}: {kind}: {reason}")


def _lines(images: "Iterable[ImageDetailTypeDef]") -> Iterator[Listed]:
    for image in images:
        subject, pushed_at = image.get("subjectManifestDigest"), image.get("imagePushedAt")
        size, archived = image.get("imageSizeInBytes"), image.get("imageStatus", "ACTIVE") != "ACTIVE"
        for tag in image.get("imageTags") or (None,):
            yield Listed(tag, image["imageDigest"], subject, pushed_at, size, archived)
