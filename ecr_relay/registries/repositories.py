"""ECR repositories: made once with what is asked for, and compared with it ever after.

    absent --CreateRepository, tagged UNFINISHED--> policies --UntagResource--> as asked for

A repository is made in several calls, and any may be the last that this process makes; so one that still has the tag
is finished by whoever comes next, and one without it is somebody's own, and left alone.
"""

import re
from typing import TYPE_CHECKING, Final, Literal

from ecr_relay.config import NewRepository
from ecr_relay.errors import Missing, Permanent
from ecr_relay.registries.aws import translated

if TYPE_CHECKING:
    from mypy_boto3_ecr.client import ECRClient
    from mypy_boto3_ecr.type_defs import CreateRepositoryRequestTypeDef, RepositoryTypeDef

UNFINISHED: Final = "ecr-relay:unfinished"
"""The key of a resource tag: made by us, and its policies are still to be set."""


class Repositories:
    """Those of one registry. `name` is how errors call it."""

    def __init__(self, client: "ECRClient", registry_id: str, name: str) -> None:
        self._client = client
        self._id = registry_id
        self._name = name

    def _doing(self, operation: str, repository: str) -> str:
        return f"ECR {operation} of {repository} in {self._name}"

    def described(self, repository: str) -> "RepositoryTypeDef":
        """Raises Missing if there is none."""
        with translated(self._doing("DescribeRepositories", repository)):
            answer = self._client.describe_repositories(registryId=self._id, repositoryNames=[repository])
        return answer["repositories"][0]

    def ensure(self, repository: str, settings: NewRepository) -> None:
        """See `registries.Writable`."""
        if settings.from_template:
            return  # ECR makes it, at the first push
        try:
            # Looked for first: nearly always it is there, and a role that may not create can then still copy.
            arn, made = self.described(repository)["repositoryArn"], False
        except Missing:
            arn, made = self._create(repository, settings)
        if _has_policies(settings) and (made or self._is_unfinished(repository, arn)):
            self._finish(repository, arn, settings)

    def _create(self, repository: str, settings: NewRepository) -> tuple[str, bool]:
        """Its ARN, and whether it was us."""
        tags = settings.tags | ({UNFINISHED: "true"} if _has_policies(settings) else {})
        request: CreateRepositoryRequestTypeDef = {
            "registryId": self._id,
            "repositoryName": repository,
            "imageTagMutability": _mutability(settings),
            "imageScanningConfiguration": {"scanOnPush": settings.scan_on_push},
            "tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }
        if settings.mutable_tags:
            request["imageTagMutabilityExclusionFilters"] = [
                {"filterType": "WILDCARD", "filter": pattern} for pattern in settings.mutable_tags
            ]
        if settings.kms_key:
            request["encryptionConfiguration"] = {"encryptionType": "KMS", "kmsKey": settings.kms_key}
        with translated(self._doing("CreateRepository", repository)):
            try:
                return self._client.create_repository(**request)["repository"]["repositoryArn"], True
            except self._client.exceptions.RepositoryAlreadyExistsException:
                pass  # a sibling was faster
        return self.described(repository)["repositoryArn"], False

    def _is_unfinished(self, repository: str, arn: str) -> bool:
        try:
            with translated(self._doing("ListTagsForResource", repository)):
                tags = self._client.list_tags_for_resource(resourceArn=arn).get("tags", ())
        except Permanent:
            return False  # who may not look has not made it
        return any(tag["Key"] == UNFINISHED for tag in tags)

    def _finish(self, repository: str, arn: str, settings: NewRepository) -> None:
        if settings.lifecycle_policy:
            with translated(self._doing("PutLifecyclePolicy", repository)):
                self._client.put_lifecycle_policy(
                    registryId=self._id, repositoryName=repository, lifecyclePolicyText=settings.lifecycle_policy
                )
        if settings.repository_policy:
            with translated(self._doing("SetRepositoryPolicy", repository)):
                self._client.set_repository_policy(
                    registryId=self._id, repositoryName=repository, policyText=settings.repository_policy
                )
        with translated(self._doing("UntagResource", repository)):
            self._client.untag_resource(resourceArn=arn, tagKeys=[UNFINISHED])


def differences(described: "RepositoryTypeDef", settings: NewRepository) -> tuple[str, ...]:
    """In encryption and mutability, which a copy cannot change: a sentence each."""
    if settings.from_template:
        return ()
    found = []
    encryption = described.get("encryptionConfiguration") or {"encryptionType": "AES256"}
    there = " ".join(filter(None, (encryption.get("encryptionType", "AES256"), encryption.get("kmsKey"))))
    asked = f"KMS {settings.kms_key}" if settings.kms_key else "AES256"
    if there != asked:
        found.append(f"encryption {there}, asked {asked}")
    filters = sorted(each["filter"] for each in described.get("imageTagMutabilityExclusionFilters", ()))
    there = _words(described.get("imageTagMutability", "MUTABLE"), filters)
    asked = _words(_mutability(settings), sorted(settings.mutable_tags))
    if there != asked:
        found.append(f"tags {there}, asked {asked}")
    return tuple(found)


def is_immutable(described: "RepositoryTypeDef", tag: str) -> bool:
    """Whether `tag`, once put there, can be moved no more."""
    mutability = described.get("imageTagMutability", "MUTABLE")
    filters = [each["filter"] for each in described.get("imageTagMutabilityExclusionFilters", ())]
    excluded = any(_wildcard(pattern, tag) for pattern in filters)
    return mutability.startswith("IMMUTABLE") != excluded


def _has_policies(settings: NewRepository) -> bool:
    return bool(settings.lifecycle_policy or settings.repository_policy)


def _mutability(settings: NewRepository) -> Literal["MUTABLE", "IMMUTABLE", "IMMUTABLE_WITH_EXCLUSION"]:
    if not settings.immutable_tags:
        return "MUTABLE"
    return "IMMUTABLE_WITH_EXCLUSION" if settings.mutable_tags else "IMMUTABLE"


def _words(mutability: str, filters: list[str]) -> str:
    return mutability + (f" ({', '.join(filters)})" if filters else "")


def _wildcard(pattern: str, tag: str) -> bool:
    """ECR's exclusion filters: `*` is any number of characters, all else is itself (ECR API reference)."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), tag) is not None
