"""Amazon ECR, private registries, by its API."""

import base64
import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    IncompleteReadError,
    ParamValidationError,
    ReadTimeoutError,
)

from ecr_relay.config import NewRepository
from ecr_relay.errors import CopyError, Missing, Permanent, RegistryDown, TagTaken, Transient, classify
from ecr_relay.images import MANIFEST_MEDIA_TYPES, children
from ecr_relay.registries import Login

if TYPE_CHECKING:
    from mypy_boto3_ecr.client import ECRClient
    from mypy_boto3_ecr.type_defs import (
        CreateRepositoryRequestTypeDef,
        ImageIdentifierTypeDef,
        ImageTypeDef,
        RepositoryTypeDef,
    )

HOURS_LEFT: Final = timedelta(hours=6)
"""What a login has left at the least when a copy gets it: half of what ECR gives (12 hours, ECR API reference)."""

CLIENT: Final = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 4},
    tcp_keepalive=True,
    user_agent_extra="ecr-relay",
)
"""For everything but PutImage: the SDK's is the one layer that retries."""

PUT_CLIENT: Final = Config(
    connect_timeout=3,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 1},
    tcp_keepalive=True,
    user_agent_extra="ecr-relay",
)
"""For PutImage under a tag's lock: what could still land when the lock is gone must not be sent again."""

# Calls that are about who we are: refused, they are refused for every image.
_IDENTITY: Final = {"AssumeRole", "GetSecretValue", "GetAuthorizationToken"}
# Archived images have a record but cannot be pulled; a push brings them back.
_ABSENT: Final = {"ImageNotFound", "ImageInaccessible"}


@contextmanager
def translated(what: str) -> Iterator[None]:
    """The one place where what boto3 raises becomes a CopyError. `what` begins its text: "ECR PutImage of a in b"."""
    try:
        yield
    except ClientError as error:
        details = error.response.get("Error", {})
        reason = f"{details.get('Code', 'unknown')}: {details.get('Message', 'no message')}"
        if error.operation_name in _IDENTITY:
            kind: type[CopyError] = RegistryDown
            if error.operation_name not in what:  # asked for by the SDK on the way
                reason = f"{error.operation_name}: {reason}"
        else:
            kind = classify(reason)
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400) >= 500:
                kind = Transient
        raise kind(f"{what}: {reason}") from error
    except (ReadTimeoutError, ConnectionClosedError, IncompleteReadError) as error:
        raise Transient(f"{what}: {error}") from error
    except ParamValidationError as error:
        raise Permanent(f"{what}: {' '.join(str(error).split())}") from error
    except BotoCoreError as error:  # no connection, no credentials
        raise RegistryDown(f"{what}: {error}") from error


class Ecr:
    """Implements `registries.Registry`. `put_client` does PutImage alone, without retries. Threads may share it."""

    def __init__(self, client: "ECRClient", registry_id: str, *, put_client: "ECRClient | None" = None) -> None:
        self._client = client
        self._put_client = put_client or client
        self._id = registry_id
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

    def children(self, repository: str, digest: str) -> tuple[str, ...]:
        image = self._image(repository, {"imageDigest": digest})
        return children(image["imageManifest"]) if image else ()

    def _image(self, repository: str, image_id: "ImageIdentifierTypeDef") -> "ImageTypeDef | None":
        """None if there is no such image, or no such repository."""
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
            code = failure.get("failureCode", "unknown")
            if code not in _ABSENT:
                raise Transient(f"{what}: {code}: {failure.get('failureReason', 'no reason given')}")
        return None

    def repositories(self) -> Iterator[str]:
        with translated(f"ECR DescribeRepositories in {self._name}"):
            pages = self._client.get_paginator("describe_repositories").paginate(
                registryId=self._id, PaginationConfig={"PageSize": 1000}
            )
            for page in pages:
                yield from (repository["repositoryName"] for repository in page["repositories"])

    def images(self, repository: str) -> Iterator[tuple[str | None, str]]:
        """Of any status: an archived image is there, though `has` says that it cannot be pulled."""
        with translated(self._doing("ListImages", repository)):
            pages = self._client.get_paginator("list_images").paginate(
                registryId=self._id,
                repositoryName=repository,
                filter={"imageStatus": "ANY"},
                PaginationConfig={"PageSize": 1000},
            )
            for page in pages:
                yield from ((image.get("imageTag"), image["imageDigest"]) for image in page["imageIds"])

    def ensure_repository(self, repository: str, settings: NewRepository) -> None:
        try:
            # Looked for first: nearly always it is there, and a role that may not create can then still copy.
            self._described(repository)
        except Missing:
            self._create(repository, settings)

    def _described(self, repository: str) -> "RepositoryTypeDef":
        with translated(self._doing("DescribeRepositories", repository)):
            answer = self._client.describe_repositories(registryId=self._id, repositoryNames=[repository])
        return answer["repositories"][0]

    def _create(self, repository: str, settings: NewRepository) -> None:
        request: CreateRepositoryRequestTypeDef = {
            "registryId": self._id,
            "repositoryName": repository,
            "imageTagMutability": "IMMUTABLE" if settings.immutable_tags else "MUTABLE",
            "imageScanningConfiguration": {"scanOnPush": settings.scan_on_push},
            "tags": [{"Key": key, "Value": value} for key, value in settings.tags.items()],
        }
        if settings.kms_key:
            request["encryptionConfiguration"] = {"encryptionType": "KMS", "kmsKey": settings.kms_key}
        with translated(self._doing("CreateRepository", repository)):
            try:
                self._client.create_repository(**request)
            except self._client.exceptions.RepositoryAlreadyExistsException:
                return  # a sibling was faster, and sets the policy
        if settings.lifecycle_policy:
            with translated(self._doing("PutLifecyclePolicy", repository)):
                self._client.put_lifecycle_policy(
                    registryId=self._id, repositoryName=repository, lifecyclePolicyText=settings.lifecycle_policy
                )

    def tag_is_taken(self, repository: str, digest: str, tag: str) -> bool:
        if self.resolve(repository, tag) in (None, digest):
            return False
        described = self._described(repository)
        mutability = described.get("imageTagMutability", "MUTABLE")
        filters = [each["filter"] for each in described.get("imageTagMutabilityExclusionFilters", ())]
        excluded = any(_wildcard(pattern, tag) for pattern in filters)
        return mutability.startswith("IMMUTABLE") != excluded

    def put_tag(self, repository: str, digest: str, tag: str) -> None:
        """One BatchGetImage and one PutImage; the latter is sent once, and answers or fails within 13 s."""
        image = self._image(repository, {"imageDigest": digest})
        if image is None:
            raise Missing(f"{repository}@{digest} is not in {self._name}")
        manifest = image["imageManifest"]
        if "sha256:" + hashlib.sha256(manifest.encode()).hexdigest() != digest:
            raise Permanent(f"{self._doing('BatchGetImage', repository)}: the manifest is not that of {digest}")
        try:
            with translated(self._doing("PutImage", f"{repository}:{tag}")):
                self._put_client.put_image(
                    registryId=self._id,
                    repositoryName=repository,
                    imageManifest=manifest,
                    # Mandatory for a manifest that does not say it itself.
                    **({"imageManifestMediaType": media} if (media := image.get("imageManifestMediaType")) else {}),
                    imageDigest=digest,
                    imageTag=tag,
                )
        except TagTaken:
            taken = self.resolve(repository, tag)
            if taken != digest:
                raise TagTaken(
                    f"tag {tag} of {repository} in {self._name} is immutable and holds {taken}, not {digest}"
                ) from None
        except CopyError as error:
            # Only ECR's own code will do: no other "already exists" means that the tag is what was asked for.
            if _code(error.__cause__) != "ImageAlreadyExistsException":
                raise


def _code(error: BaseException | None) -> str | None:
    return error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None


def _wildcard(pattern: str, tag: str) -> bool:
    """ECR's exclusion filters: `*` is any number of characters, all else is itself (ECR API reference)."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), tag) is not None
