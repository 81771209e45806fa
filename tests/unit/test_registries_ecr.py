"""The ECR API's answers that no simulator gives: stubbed in botocore, in AWS's wording."""

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.stub import Stubber

from ecr_relay.config import NewRepository
from ecr_relay.errors import CopyError, Missing, Permanent, RegistryDown, TagTaken, Transient
from ecr_relay.images import MANIFEST_MEDIA_TYPES, Listed
from ecr_relay.manifests import Manifest
from ecr_relay.registries import Writable
from ecr_relay.registries.aws import CLIENT, PUT_CLIENT, translated
from ecr_relay.registries.ecr import Ecr

if TYPE_CHECKING:
    from mypy_boto3_ecr.client import ECRClient

ACCOUNT, REGION = "123456789012", "eu-west-1"
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
MANIFEST = '{"schemaVersion": 2,   "layers":[]}'


def digest_of(manifest: str) -> str:
    return "sha256:" + hashlib.sha256(manifest.encode()).hexdigest()


DIGEST = digest_of(MANIFEST)
OTHER = "sha256:" + "1" * 64
STATUSES = ("ACTIVE", "ARCHIVED", "ACTIVATING")
PUSHED = datetime(2026, 1, 2, tzinfo=UTC)
TYPE = "application/vnd.oci.image.manifest.v1+json"


# One session: it reads the service model once.
_SESSION = boto3.Session(aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="example", region_name=REGION)


@pytest.fixture
def client() -> "ECRClient":
    # One attempt: a stub answers each call once.
    return _SESSION.client("ecr", config=Config(retries={"total_max_attempts": 1}))


@pytest.fixture
def ecr(client: "ECRClient") -> Ecr:
    return Ecr(client, ACCOUNT)


@pytest.fixture
def aws(client: "ECRClient") -> Iterator[Stubber]:
    """What ECR answers, call by call; a call that was not foreseen, or one too few, fails the test."""
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def asked(image_id: dict[str, str]) -> dict[str, Any]:
    return {
        "registryId": ACCOUNT,
        "repositoryName": "app",
        "imageIds": [image_id],
        "acceptedMediaTypes": list(MANIFEST_MEDIA_TYPES),
    }


def found(digest: str = DIGEST, manifest: str = MANIFEST) -> dict[str, Any]:
    image = {"imageId": {"imageDigest": digest}, "imageManifest": manifest, "imageManifestMediaType": TYPE}
    return {"images": [image], "failures": []}


def failed(code: str, reason: str = "Requested image not found") -> dict[str, Any]:
    return {"images": [], "failures": [{"imageId": {}, "failureCode": code, "failureReason": reason}]}


def test_it_is_a_registry(ecr: Ecr) -> None:
    registry: Writable = ecr
    assert repr(registry) == "Ecr(123456789012.eu-west-1)"


# --- Tokens ---------------------------------------------------------------------------------------------------------


def token(password: str, lasts: timedelta) -> dict[str, Any]:
    pair = base64.b64encode(f"AWS:{password}".encode()).decode()
    expires = datetime.now(UTC) + lasts
    data = {"authorizationToken": pair, "expiresAt": expires, "proxyEndpoint": f"https://{HOST}"}
    return {"authorizationData": [data]}


def test_a_token_is_used_while_it_has_hours_left(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("get_authorization_token", token("one", timedelta(hours=5)), {"registryIds": [ACCOUNT]})
    aws.add_response("get_authorization_token", token("two", timedelta(hours=12)))
    assert ecr.host == HOST
    assert ecr.login().password == "two"
    assert ecr.login().password == "two"
    assert ecr.host == HOST
    assert "two" not in repr(ecr.login())


@pytest.mark.parametrize("answer", [{"authorizationData": []}, {"authorizationData": [{"authorizationToken": "%"}]}])
def test_no_token(answer: dict[str, Any], ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("get_authorization_token", answer)
    with pytest.raises(RegistryDown, match="no usable token"):
        ecr.login()


# --- Images ---------------------------------------------------------------------------------------------------------


def test_an_image_that_is_archived_cannot_be_pulled(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_get_image", failed("ImageInaccessible"), asked({"imageDigest": DIGEST}))
    aws.add_response("batch_get_image", failed("ImageInaccessible"), asked({"imageTag": "1"}))
    assert not ecr.has("app", DIGEST)
    assert ecr.resolve("app", "1") is None


def test_a_failure_that_says_nothing_about_the_image(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_get_image", failed("UpstreamUnavailable", "The upstream registry is unavailable"))
    with pytest.raises(Transient, match=r"BatchGetImage of app 1 in .*UpstreamUnavailable: The upstream"):
        ecr.resolve("app", "1")


def test_listings_ask_for_images_of_any_status_by_full_pages(ecr: Ecr, aws: Stubber) -> None:
    page = {"registryId": ACCOUNT, "repositoryName": "app", "filter": {"imageStatus": "ANY"}, "maxResults": 1000}
    ids = [{"imageDigest": DIGEST, "imageTag": "1"}, {"imageDigest": DIGEST, "imageTag": "2"}]
    archived = [{"imageDigest": OTHER}, {"imageDigest": "sha256:" + "2" * 64}]  # the latter is gone in between
    aws.add_response("list_images", {"imageIds": archived}, page | {"filter": {"imageStatus": "ARCHIVED"}})
    aws.add_response("list_images", {"imageIds": ids, "nextToken": "more"}, page)
    aws.add_response("list_images", {"imageIds": [{"imageDigest": OTHER}]}, page | {"nextToken": "more"})
    assert list(ecr.images("app")) == [Listed("1", DIGEST), Listed("2", DIGEST), Listed(None, OTHER, archived=True)]


def test_a_listing_with_details(ecr: Ecr, aws: Stubber) -> None:
    page = {"registryId": ACCOUNT, "repositoryName": "app", "filter": {"imageStatus": "ANY"}, "maxResults": 1000}
    image = {"imageDigest": DIGEST, "imageTags": ["1", "2"], "imagePushedAt": PUSHED, "imageSizeInBytes": 7}
    signature = {"imageDigest": OTHER, "subjectManifestDigest": DIGEST, "imagePushedAt": PUSHED}
    archived = [{"imageDigest": OTHER, "imageTags": [status], "imageStatus": status} for status in STATUSES]
    aws.add_response("describe_images", {"imageDetails": [image], "nextToken": "more"}, page)
    aws.add_response("describe_images", {"imageDetails": [signature, *archived]}, page | {"nextToken": "more"})
    assert list(ecr.images("app", details=True)) == [
        Listed("1", DIGEST, None, PUSHED, 7),
        Listed("2", DIGEST, None, PUSHED, 7),
        Listed(None, OTHER, DIGEST, PUSHED),
        Listed("ACTIVE", OTHER),
        Listed("ARCHIVED", OTHER, archived=True),
        Listed("ACTIVATING", OTHER, archived=True),
    ]


def test_what_a_listing_would_say_of_one_digest(ecr: Ecr, aws: Stubber) -> None:
    request = {"registryId": ACCOUNT, "repositoryName": "app", "imageIds": [{"imageDigest": DIGEST}]}
    image = {"imageDigest": DIGEST, "imageTags": ["1", "2"], "subjectManifestDigest": OTHER}
    aws.add_response("describe_images", {"imageDetails": [image]}, request)
    aws.add_client_error("describe_images", "ImageNotFoundException", "The image does not exist")
    assert ecr.lines("app", DIGEST) == (Listed("1", DIGEST, OTHER), Listed("2", DIGEST, OTHER))
    assert ecr.lines("app", DIGEST) == ()


def test_a_manifest_comes_as_it_is(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_get_image", found(), asked({"imageDigest": DIGEST}))
    aws.add_response("batch_get_image", failed("ImageNotFound"))
    assert ecr.manifest("app", DIGEST) == Manifest(DIGEST, TYPE, MANIFEST.encode())
    assert ecr.manifest("app", OTHER) is None


def test_an_archived_image_is_named_as_such(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_get_image", failed("ImageInaccessible"))
    with pytest.raises(Permanent, match=r"BatchGetImage of app sha256:\w+ in .*: the image is archived"):
        ecr.manifest("app", DIGEST)


REFERRERS = {"registryId": ACCOUNT, "repositoryName": "app", "subjectId": {"imageDigest": DIGEST}}


def referrer(digest: str) -> dict[str, Any]:
    return {"digest": digest, "mediaType": TYPE, "artifactType": "application/spdx+json", "size": 1}


def test_referrers_come_by_pages(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("list_image_referrers", {"referrers": [referrer(OTHER)], "nextToken": "more"}, REFERRERS)
    more = REFERRERS | {"nextToken": "more"}
    aws.add_response("list_image_referrers", {"referrers": [referrer("sha256:" + "2" * 64)]}, more)
    assert ecr.referrers("app", DIGEST) == (OTHER, "sha256:" + "2" * 64)


def test_no_repository_has_no_referrers(ecr: Ecr, aws: Stubber) -> None:
    aws.add_client_error("list_image_referrers", "RepositoryNotFoundException", NO_REPOSITORY)
    assert ecr.referrers("app", DIGEST) == ()


@pytest.mark.parametrize("code", ["UnknownOperationException", "AccessDeniedException"])
def test_without_that_call_the_fallback_tag_has_them(code: str, ecr: Ecr, aws: Stubber) -> None:
    listing = json.dumps({"schemaVersion": 2, "manifests": [{"digest": OTHER}]})
    fallback = digest_of(listing)
    aws.add_client_error("list_image_referrers", code, "not authorized to perform: ecr:ListImageReferrers")
    tag = DIGEST.replace(":", "-")
    aws.add_response("batch_get_image", found(fallback, listing), asked({"imageTag": tag}))
    aws.add_response("batch_get_image", found(fallback, listing), asked({"imageDigest": fallback}))
    assert ecr.referrers("app", DIGEST) == (OTHER,)
    aws.add_client_error("list_image_referrers", code, "not authorized to perform: ecr:ListImageReferrers")
    aws.add_response("batch_get_image", failed("ImageNotFound"))
    assert ecr.referrers("app", DIGEST) == ()


def test_throttled_is_not_without_referrers(ecr: Ecr, aws: Stubber) -> None:
    aws.add_client_error("list_image_referrers", "ThrottlingException", "Rate exceeded")
    with pytest.raises(RegistryDown, match="ListImageReferrers of app@sha256"):
        ecr.referrers("app", DIGEST)


# --- Deleting -------------------------------------------------------------------------------------------------------


def deleted(image_id: dict[str, str]) -> dict[str, Any]:
    return {"registryId": ACCOUNT, "repositoryName": "app", "imageIds": [image_id]}


def test_a_tag_is_deleted_while_it_names_the_digest(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_get_image", found(), asked({"imageTag": "1"}))
    aws.add_response("batch_delete_image", {}, deleted({"imageTag": "1"}))
    ecr.delete("app", DIGEST, "1")
    aws.add_response("batch_get_image", found(OTHER), asked({"imageTag": "1"}))
    ecr.delete("app", DIGEST, "1")  # it has moved: nothing is sent


def test_an_archived_image_is_deleted_too(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_get_image", failed("ImageInaccessible"))
    aws.add_response("batch_delete_image", {}, deleted({"imageTag": "1"}))
    ecr.delete("app", DIGEST, "1")


def test_an_image_is_deleted_by_digest(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_delete_image", {}, deleted({"imageDigest": DIGEST}))
    ecr.delete("app", DIGEST, None)


def test_what_is_gone_is_deleted(ecr: Ecr, aws: Stubber) -> None:
    gone = {"failures": [{"failureCode": "ImageNotFound", "failureReason": "not found"}]}
    aws.add_response("batch_delete_image", gone)
    ecr.delete("app", DIGEST, None)
    aws.add_client_error("batch_delete_image", "RepositoryNotFoundException", NO_REPOSITORY)
    ecr.delete("app", DIGEST, None)


@pytest.mark.parametrize(
    ("code", "kind"), [("ImageReferencedByManifestList", Permanent), ("UpstreamUnavailable", Transient)]
)
def test_what_cannot_be_deleted(code: str, kind: type[CopyError], ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_delete_image", {"failures": [{"failureCode": code, "failureReason": "so it is"}]})
    with pytest.raises(kind, match=f"BatchDeleteImage of app sha256:.*{code}: so it is"):
        ecr.delete("app", DIGEST, None)


# --- Tags -----------------------------------------------------------------------------------------------------------

PUT = {
    "registryId": ACCOUNT,
    "repositoryName": "app",
    "imageManifest": MANIFEST,
    "imageManifestMediaType": TYPE,
    "imageDigest": DIGEST,
    "imageTag": "1",
}


def test_a_retag_sends_the_same_bytes_type_and_digest(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_get_image", found(), asked({"imageDigest": DIGEST}))
    aws.add_response("put_image", {}, PUT)
    ecr.put_tag("app", DIGEST, "1")


def test_other_bytes_than_the_digest_says_are_not_put(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_get_image", found(manifest=MANIFEST + " "))
    with pytest.raises(Permanent, match="not that of sha256:"):
        ecr.put_tag("app", DIGEST, "1")


def test_the_same_tag_on_the_same_image_is_success(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_get_image", found())
    message = f"Image with digest '{DIGEST}' and tag '1' already exists in the repository with name 'app'"
    aws.add_client_error("put_image", "ImageAlreadyExistsException", message)
    ecr.put_tag("app", DIGEST, "1")


def test_a_manifest_is_put_by_its_digest_and_may_be_there(ecr: Ecr, aws: Stubber) -> None:
    manifest = Manifest(DIGEST, TYPE, MANIFEST.encode())
    aws.add_response("put_image", {}, {name: value for name, value in PUT.items() if name != "imageTag"})
    ecr.put_manifest("app", manifest)
    aws.add_client_error("put_image", "ImageAlreadyExistsException", f"Image with digest '{DIGEST}' already exists")
    ecr.put_manifest("app", manifest)
    aws.add_client_error("put_image", "ReferencedImagesNotFoundException", "Images required do not exist")
    with pytest.raises(Missing, match=f"ECR PutImage of app@{DIGEST} in "):
        ecr.put_manifest("app", manifest)


@pytest.mark.parametrize("holds", [DIGEST, OTHER])
def test_an_immutable_tag(holds: str, ecr: Ecr, aws: Stubber) -> None:
    message = (
        "The image tag '1' already exists in the 'app' repository and cannot be overwritten because it is immutable."
    )
    aws.add_response("batch_get_image", found())
    aws.add_client_error("put_image", "ImageTagAlreadyExistsException", message)
    aws.add_response("batch_get_image", found(holds), asked({"imageTag": "1"}))
    if holds == DIGEST:
        ecr.put_tag("app", DIGEST, "1")
    else:
        with pytest.raises(TagTaken, match=rf"tag 1 of app in \S+ is immutable and holds {OTHER}, not {DIGEST}"):
            ecr.put_tag("app", DIGEST, "1")


@pytest.mark.parametrize("code", ["LayersNotFoundException", "ReferencedImagesNotFoundException"])
def test_what_the_destination_lost_is_missing(code: str, ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_get_image", found())
    aws.add_client_error("put_image", code, "Layers with digests '[…]' required for pushing image do not exist")
    with pytest.raises(Missing, match="ECR PutImage of app:1 in 123456789012.eu-west-1: " + code):
        ecr.put_tag("app", DIGEST, "1")


@pytest.mark.parametrize(
    ("mutability", "filters", "taken"),
    [
        ("MUTABLE", [], False),
        ("IMMUTABLE", [], True),
        ("IMMUTABLE_WITH_EXCLUSION", ["dev-*"], False),
        ("IMMUTABLE_WITH_EXCLUSION", ["*-dev", "dev"], True),
        ("MUTABLE_WITH_EXCLUSION", ["d*-1"], True),
        ("MUTABLE_WITH_EXCLUSION", ["dev.1"], False),
    ],
)
def test_whether_a_tag_is_taken(mutability: str, filters: list[str], taken: bool, ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_get_image", found(OTHER), asked({"imageTag": "dev-1"}))
    repository: dict[str, Any] = {"imageTagMutability": mutability}
    if filters:
        wildcards = [{"filterType": "WILDCARD", "filter": each} for each in filters]
        repository["imageTagMutabilityExclusionFilters"] = wildcards
    aws.add_response("describe_repositories", {"repositories": [repository]})
    assert ecr.tag_is_taken("app", DIGEST, "dev-1") is taken


def test_a_tag_that_is_free_or_right_is_not_taken(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("batch_get_image", failed("ImageNotFound"))
    aws.add_response("batch_get_image", found(DIGEST))
    assert not ecr.tag_is_taken("app", DIGEST, "1")
    assert not ecr.tag_is_taken("app", DIGEST, "1")


# --- Repositories ---------------------------------------------------------------------------------------------------

POLICY = (
    '{"rules":[{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"sinceImagePushed",'
    '"countUnit":"days","countNumber":14},"action":{"type":"expire"}}]}'
)
NO_REPOSITORY = f"The repository with name 'app' does not exist in the registry with id '{ACCOUNT}'"


ARN = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/app"
ANYONE = '{"Version":"2012-10-17","Statement":[]}'
UNFINISHED = {"Key": "ecr-relay:unfinished", "Value": "true"}
THERE = {"repositories": [{"repositoryName": "app", "repositoryArn": ARN}]}
SETTINGS = NewRepository(
    immutable_tags=True,
    mutable_tags=("sha256-*", "dev"),
    scan_on_push=True,
    kms_key="arn:key",
    lifecycle_policy=POLICY,
    repository_policy=ANYONE,
    tags={"a": "b"},
)
PUT_POLICY = {"registryId": ACCOUNT, "repositoryName": "app", "lifecyclePolicyText": POLICY}
SET_POLICY = {"registryId": ACCOUNT, "repositoryName": "app", "policyText": ANYONE}


def creating(aws: Stubber) -> None:
    aws.add_client_error("describe_repositories", "RepositoryNotFoundException", NO_REPOSITORY)
    aws.add_response(
        "create_repository",
        {"repository": {"repositoryArn": ARN}},
        {
            "registryId": ACCOUNT,
            "repositoryName": "app",
            "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
            "imageTagMutabilityExclusionFilters": [
                {"filterType": "WILDCARD", "filter": "sha256-*"},
                {"filterType": "WILDCARD", "filter": "dev"},
            ],
            "imageScanningConfiguration": {"scanOnPush": True},
            "encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": "arn:key"},
            "tags": [{"Key": "a", "Value": "b"}, UNFINISHED],
        },
    )


def finishing(aws: Stubber) -> None:
    aws.add_response("put_lifecycle_policy", {}, PUT_POLICY)
    aws.add_response("set_repository_policy", {}, SET_POLICY)
    aws.add_response("untag_resource", {}, {"resourceArn": ARN, "tagKeys": ["ecr-relay:unfinished"]})


def test_a_new_repository_gets_what_is_configured(ecr: Ecr, aws: Stubber) -> None:
    creating(aws)
    finishing(aws)
    ecr.ensure_repository("app", SETTINGS)


def test_without_policies_one_call_makes_it(ecr: Ecr, aws: Stubber) -> None:
    aws.add_client_error("describe_repositories", "RepositoryNotFoundException", NO_REPOSITORY)
    asked = {
        "registryId": ACCOUNT,
        "repositoryName": "app",
        "imageTagMutability": "IMMUTABLE",
        "imageScanningConfiguration": {"scanOnPush": False},
        "tags": [],
    }
    aws.add_response("create_repository", {"repository": {"repositoryArn": ARN}}, asked)
    ecr.ensure_repository("app", NewRepository(immutable_tags=True))


def test_policies_that_failed_are_set_by_the_next_attempt(ecr: Ecr, aws: Stubber) -> None:
    creating(aws)
    aws.add_client_error("put_lifecycle_policy", "ServerException", "", http_status_code=500)
    with pytest.raises(Transient, match="PutLifecyclePolicy of app"):
        ecr.ensure_repository("app", SETTINGS)
    aws.add_response("describe_repositories", THERE)
    aws.add_response("list_tags_for_resource", {"tags": [UNFINISHED]}, {"resourceArn": ARN})
    finishing(aws)
    ecr.ensure_repository("app", SETTINGS)


def test_one_that_is_there_is_left_alone(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("describe_repositories", THERE)
    aws.add_response("list_tags_for_resource", {"tags": [{"Key": "owner", "Value": "they"}]})
    ecr.ensure_repository("app", SETTINGS)
    aws.add_response("describe_repositories", THERE)
    ecr.ensure_repository("app", NewRepository())  # nothing to finish, nothing to ask


def test_who_may_not_read_tags_can_still_copy(ecr: Ecr, aws: Stubber) -> None:
    aws.add_response("describe_repositories", THERE)
    denied = "not authorized to perform: ecr:ListTagsForResource"
    aws.add_client_error("list_tags_for_resource", "AccessDeniedException", denied)
    ecr.ensure_repository("app", SETTINGS)


def test_two_that_create_at_once(ecr: Ecr, aws: Stubber) -> None:
    aws.add_client_error("describe_repositories", "RepositoryNotFoundException", NO_REPOSITORY)
    aws.add_client_error("create_repository", "RepositoryAlreadyExistsException", "already exists")
    aws.add_response("describe_repositories", THERE)
    aws.add_response("list_tags_for_resource", {"tags": [UNFINISHED]})
    finishing(aws)
    ecr.ensure_repository("app", SETTINGS)


def test_a_template_makes_it(ecr: Ecr, aws: Stubber) -> None:
    ecr.ensure_repository("app", NewRepository(from_template=True))


KMS = {"encryptionType": "KMS", "kmsKey": "arn:key"}
FILTERS = [{"filterType": "WILDCARD", "filter": each} for each in ("dev", "sha256-*")]


@pytest.mark.parametrize(
    ("there", "settings", "found"),
    [
        ({}, NewRepository(), ()),
        (
            {"imageTagMutability": "MUTABLE", "encryptionConfiguration": {"encryptionType": "AES256"}},
            NewRepository(),
            (),
        ),
        (
            {
                "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
                "imageTagMutabilityExclusionFilters": FILTERS,
                "encryptionConfiguration": KMS,
            },
            SETTINGS,
            (),
        ),
        (
            {"imageTagMutability": "IMMUTABLE"},
            SETTINGS,
            (
                "encryption AES256, asked KMS arn:key",
                "tags IMMUTABLE, asked IMMUTABLE_WITH_EXCLUSION (dev, sha256-*)",
            ),
        ),
        (
            {"imageTagMutability": "IMMUTABLE", "encryptionConfiguration": KMS},
            NewRepository(),
            ("encryption KMS arn:key, asked AES256", "tags IMMUTABLE, asked MUTABLE"),
        ),
        ({"imageTagMutability": "IMMUTABLE"}, NewRepository(from_template=True), ()),
    ],
)
def test_differences(
    there: dict[str, Any], settings: NewRepository, found: tuple[str, ...], ecr: Ecr, aws: Stubber
) -> None:
    aws.add_response("describe_repositories", {"repositories": [there]})
    assert ecr.differences("app", settings) == found


def test_what_is_absent_differs_in_nothing(ecr: Ecr, aws: Stubber) -> None:
    aws.add_client_error("describe_repositories", "RepositoryNotFoundException", NO_REPOSITORY)
    assert ecr.differences("app", SETTINGS) == ()


# --- Errors ---------------------------------------------------------------------------------------------------------

NOT_AUTHORIZED = "User: arn:aws:sts::123456789012:assumed-role/relay/task is not authorized to perform: ecr:"


@pytest.mark.parametrize(
    ("code", "message", "status", "kind"),
    [
        ("ThrottlingException", "Rate exceeded", 400, RegistryDown),
        ("TooManyRequestsException", "Too Many Requests", 429, RegistryDown),
        ("ExpiredTokenException", "The security token included in the request is expired", 400, RegistryDown),
        ("UnrecognizedClientException", "The security token included in the request is invalid.", 400, RegistryDown),
        ("InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier", 400, RegistryDown),
        (
            "AccessDeniedException",
            NOT_AUTHORIZED + "BatchGetImage on resource: arn:aws:ecr:r:a:repository/app",
            400,
            Permanent,
        ),
        ("InvalidParameterException", "Invalid parameter at 'imageTag' failed to satisfy constraint", 400, Permanent),
        ("LimitExceededException", "The operation would have exceeded a service limit", 400, Permanent),
        ("ServerException", "", 500, Transient),
        ("InternalFailure", "The request processing has failed because of an unknown error", 500, Transient),
        ("ServiceUnavailable", "Service is unable to handle request.", 503, Transient),
        ("SomethingNew", "whatever it is", 400, Transient),
    ],
)
def test_refusals(code: str, message: str, status: int, kind: type[CopyError], ecr: Ecr, aws: Stubber) -> None:
    aws.add_client_error("batch_get_image", code, message, http_status_code=status)
    with pytest.raises(CopyError, match=f"ECR BatchGetImage of app 1 in {ACCOUNT}.{REGION}: {code}: ") as caught:
        ecr.resolve("app", "1")
    assert type(caught.value) is kind


def test_who_may_not_log_in_may_do_nothing(ecr: Ecr, aws: Stubber) -> None:
    aws.add_client_error("get_authorization_token", "AccessDeniedException", NOT_AUTHORIZED + "GetAuthorizationToken")
    with pytest.raises(RegistryDown):
        ecr.login()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (EndpointConnectionError(endpoint_url="https://api.ecr"), RegistryDown),
        (ConnectTimeoutError(endpoint_url="https://api.ecr"), RegistryDown),
        (SSLError(endpoint_url="https://api.ecr", error=OSError("certificate verify failed")), RegistryDown),
        (NoCredentialsError(), RegistryDown),
        (ReadTimeoutError(endpoint_url="https://api.ecr"), Transient),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_answer(error: Exception, kind: type[CopyError]) -> None:
    with pytest.raises(kind, match=r"^ECR PutImage of app: "), translated("ECR PutImage of app"):
        raise error


def test_what_boto_refuses_to_send_is_permanent(ecr: Ecr) -> None:
    with pytest.raises(Permanent, match="Invalid length for parameter repositoryName"):
        ecr.resolve("a", "1")


def test_a_put_is_over_before_its_lock_is() -> None:
    """The lock's last 30 s are for it (protocol.md, Tags): one attempt, connect and answer included."""

    def settings(config: Config, name: str) -> Any:
        return getattr(config, name)

    assert settings(PUT_CLIENT, "retries")["total_max_attempts"] == 1
    assert settings(PUT_CLIENT, "connect_timeout") + settings(PUT_CLIENT, "read_timeout") < 30
    assert settings(CLIENT, "retries") == {"mode": "standard", "total_max_attempts": 4}


def test_put_image_goes_by_its_own_client(client: "ECRClient", aws: Stubber) -> None:
    other = _SESSION.client("ecr")
    aws.add_response("batch_get_image", found())
    with Stubber(other) as stubber:
        stubber.add_response("put_image", {}, PUT)
        Ecr(client, ACCOUNT, put_client=other).put_tag("app", DIGEST, "1")
        stubber.assert_no_pending_responses()
