"""ECR, as MiniStack 1.5.33 has it and as AWS has it: each gap is asserted, so that a release that mends one is noticed.

When `test_ministack_differs` fails, MiniStack does it right: the correction in `local/corrections` can go.
"""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from local import images
from local.servers import Servers
from tests.integration import local_clouds as clouds
from tests.integration.local_clouds import DESTINATION, SOURCE, Case, case, parametrized

CASES: list[Case] = []

Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Servers, Servers]]:
    yield from clouds.both(tmp_path_factory)


@parametrized(CASES)
def test_ministack_differs(gap: Case, pair: tuple[Servers, Servers]) -> None:
    assert gap.observe(pair[0]) != gap.aws


@parametrized(CASES)
def test_corrected_it_is_as_aws(gap: Case, pair: tuple[Servers, Servers]) -> None:
    assert gap.observe(pair[1]) == gap.aws


def folder(cloud: Servers) -> Path:
    return Path(cloud.spec.log_dir).parent / "images"


def single(cloud: Servers, seed: str) -> images.Made:
    return images.single(folder(cloud) / seed, seed, (64,))


def index(cloud: Servers, seed: str) -> images.Made:
    return images.index(folder(cloud) / seed, seed, size=64)


def pushed(cloud: Servers, seed: str, *tags: str, **settings: Any) -> tuple[str, images.Made]:
    """A repository with one image."""
    repository = clouds.repository(cloud, **settings)
    made = single(cloud, seed)
    for tag in tags:
        clouds.skopeo(cloud, made, repository, tag)
    return repository, made


def ids(found: list[dict[str, str]]) -> list[str]:
    """Tags, and `-` for an image without one."""
    return sorted(entry.get("imageTag", "-") for entry in found)


# Events -----------------------------------------------------------------------------------------------------------


@case(CASES, ["", "", "", "", "1"])
def a_push_is_an_event_for_each_child_and_then_the_index(cloud: Servers) -> list[str]:
    queue = clouds.event_queue(cloud)
    clouds.skopeo(cloud, index(cloud, "events"), clouds.repository(cloud), "1")
    return [event["detail"]["image-tag"] for event in clouds.receive(cloud, queue, 5)]


@case(CASES, ["DELETE a", "DELETE b"])
def a_deleted_image_is_an_event_for_each_tag(cloud: Servers) -> list[str]:
    repository, made = pushed(cloud, "deleted", "a", "b")
    queue = clouds.event_queue(cloud)
    cloud.clients("ecr").batch_delete_image(repositoryName=repository, imageIds=[{"imageDigest": made.digest}])
    events = [event["detail"] for event in clouds.receive(cloud, queue, 2)]
    return sorted(f"{event['action-type']} {event['image-tag']}" for event in events)


@case(CASES, ["retag"])
def put_image_is_an_event(cloud: Servers) -> list[str]:
    repository, made = pushed(cloud, "retagged", "1")
    queue = clouds.event_queue(cloud)
    clouds.put_image(cloud, repository, made, imageTag="retag")
    return [event["detail"]["image-tag"] for event in clouds.receive(cloud, queue, 1)]


@case(CASES, [SOURCE])
def a_rule_forwards_to_another_accounts_bus_if_that_lets_it(cloud: Servers) -> list[tuple[str, str]]:
    other = ("444455556666", "eu-north-1")
    queue = clouds.event_queue(cloud, other)
    cloud.at(other)("events").put_permission(
        StatementId="source", Action="events:PutEvents", Principal=cloud.clients.account
    )
    # To the one that was asked for nothing it does not.
    closed = ("444455556666", "eu-south-1")
    refused = clouds.event_queue(cloud, closed)
    events = cloud.clients("events")
    events.put_rule(Name="forward", EventPattern=json.dumps({"source": ["aws.ecr"]}))
    events.put_targets(
        Rule="forward",
        Targets=[
            {
                "Id": region,
                "Arn": f"arn:aws:events:{region}:{account}:event-bus/default",
                "RoleArn": "arn:aws:iam::1:role/any",
            }
            for account, region in (closed, other)
        ],
    )
    pushed(cloud, "forwarded", "1")
    found = clouds.receive(cloud, queue, 1, place=other)
    sqs = cloud.at(closed)("sqs")
    found += sqs.receive_message(QueueUrl=refused).get("Messages", [])
    return [(event["account"], event["region"]) for event in found]


# Listing ----------------------------------------------------------------------------------------------------------


@case(CASES, ["a", "b"])
def list_images_has_an_entry_for_each_tag(cloud: Servers) -> list[str]:
    repository, _ = pushed(cloud, "two-tags", "a", "b")
    return ids(cloud.clients("ecr").list_images(repositoryName=repository)["imageIds"])


@case(CASES, [["a"], ["b"], ["c"]])
def list_images_has_pages(cloud: Servers) -> list[list[str]]:
    repository, _ = pushed(cloud, "pages", "a", "b", "c")
    pages = cloud.clients("ecr").get_paginator("list_images")
    return [ids(page["imageIds"]) for page in pages.paginate(repositoryName=repository, maxResults=1)]


@case(CASES, ["-", "1"])
def list_images_forgets_a_tag_that_has_moved(cloud: Servers) -> list[str]:
    repository, _ = pushed(cloud, "moved-1", "1")
    clouds.skopeo(cloud, single(cloud, "moved-2"), repository, "1")
    return ids(cloud.clients("ecr").list_images(repositoryName=repository)["imageIds"])


@case(CASES, [])
def list_images_has_no_archived_images(cloud: Servers) -> list[str]:
    repository, _ = pushed(cloud, "archived", "a")
    archived = {"imageStatus": "ARCHIVED"}
    return ids(cloud.clients("ecr").list_images(repositoryName=repository, filter=archived)["imageIds"])


@case(CASES, 3)
def describe_repositories_has_pages(cloud: Servers) -> int:
    clients = cloud.at(("222233334444", "us-east-1"))
    for name in ("one", "two", "three"):
        clients("ecr").create_repository(repositoryName=name)
    pages = clients("ecr").get_paginator("describe_repositories").paginate(maxResults=1)
    return sum(len(page["repositories"]) for page in pages)


@case(CASES, [2, 1])
def describe_images_has_pages(cloud: Servers) -> list[int]:
    repository, _ = pushed(cloud, "described-1", "a")
    for number in (2, 3):
        clouds.skopeo(cloud, single(cloud, f"described-{number}"), repository, f"t{number}")
    pages = cloud.clients("ecr").get_paginator("describe_images")
    return [len(page["imageDetails"]) for page in pages.paginate(repositoryName=repository, maxResults=2)]


@case(CASES, "ImageNotFoundException")
def describe_images_knows_what_is_missing(cloud: Servers) -> Any:
    repository, _ = pushed(cloud, "not-found", "a")
    return cloud.clients("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": "b"}])["imageDetails"]


@case(CASES, images.OCI_CONFIG)
def describe_images_says_what_kind_of_artifact_it_is(cloud: Servers) -> Any:
    repository, _ = pushed(cloud, "kind", "a")
    return cloud.clients("ecr").describe_images(repositoryName=repository)["imageDetails"][0]["artifactMediaType"]


def with_referrer(cloud: Servers, seed: str) -> tuple[str, images.Made, images.Made]:
    """A repository with an image and an artifact that refers to it."""
    repository, made = pushed(cloud, seed, "1")
    chart = images.artifact(folder(cloud) / f"{seed}-referrer", seed)
    content = {**json.loads(chart.manifest), "subject": {"mediaType": made.media_type, "digest": made.digest}}
    raw = json.dumps(content).encode()
    digest = images.digest_of(raw)
    clouds.skopeo(cloud, chart, repository, "chart")
    referrer = images.Made("", digest, chart.media_type, raw)
    assert clouds.put_manifest(cloud, repository, digest, referrer).status == 201
    return repository, made, referrer


@case(CASES, True)
def describe_images_names_a_referrers_subject(cloud: Servers) -> bool:
    repository, made, _ = with_referrer(cloud, "subject")
    details = cloud.clients("ecr").describe_images(repositoryName=repository)["imageDetails"]
    return made.digest in [detail.get("subjectManifestDigest") for detail in details]


@case(CASES, [images.HELM_CONFIG])
def list_image_referrers_exists(cloud: Servers) -> list[str]:
    repository, made, _ = with_referrer(cloud, "referrers")
    subject = {"imageDigest": made.digest}
    found = cloud.clients("ecr").list_image_referrers(repositoryName=repository, subjectId=subject)
    return [entry["artifactType"] for entry in found["referrers"]]


@case(CASES, 1)
def the_registry_lists_referrers(cloud: Servers) -> int:
    repository, made, _ = with_referrer(cloud, "referrers-api")
    answer = clouds.http(cloud, SOURCE, "GET", f"/v2/{repository}/referrers/{made.digest}")
    return len(answer.json()["manifests"]) if answer.status == 200 else 0


# Reading and deleting ---------------------------------------------------------------------------------------------


@case(CASES, ["a"])
def batch_get_image_answers_with_the_tag_that_was_asked_for(cloud: Servers) -> list[str]:
    repository, _ = pushed(cloud, "asked", "a", "b")
    answer = cloud.clients("ecr").batch_get_image(repositoryName=repository, imageIds=[{"imageTag": "a"}])
    return ids([image["imageId"] for image in answer["images"]])


@case(CASES, ["ImageTagDoesNotMatchDigest"])
def batch_get_image_compares_tag_and_digest(cloud: Servers) -> list[str]:
    repository, _ = pushed(cloud, "compared-1", "a")
    other = single(cloud, "compared-2")
    clouds.skopeo(cloud, other, repository, "b")
    both = [{"imageTag": "a", "imageDigest": other.digest}]
    answer = cloud.clients("ecr").batch_get_image(repositoryName=repository, imageIds=both)
    return [failure["failureCode"] for failure in answer["failures"]]


@case(CASES, ["b"])
def deleting_a_tag_leaves_the_others(cloud: Servers) -> list[str]:
    repository, _ = pushed(cloud, "tag-deleted", "a", "b")
    ecr = cloud.clients("ecr")
    ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": "a"}])
    return ids(ecr.list_images(repositoryName=repository)["imageIds"])


@case(CASES, ["ImageReferencedByManifestList"])
def an_index_keeps_its_children(cloud: Servers) -> list[str]:
    repository, made = clouds.repository(cloud), index(cloud, "kept")
    clouds.skopeo(cloud, made, repository, "1")
    child = [{"imageDigest": made.children[0]}]
    answer = cloud.clients("ecr").batch_delete_image(repositoryName=repository, imageIds=child)
    return [failure["failureCode"] for failure in answer["failures"]]


@case(CASES, "UNSUPPORTED")
def the_registry_deletes_no_manifest(cloud: Servers) -> str:
    repository, made = pushed(cloud, "undeletable", "a")
    return clouds.error_code(clouds.http(cloud, SOURCE, "DELETE", f"/v2/{repository}/manifests/{made.digest}"))


@case(CASES, ["1"])
def registry_id_names_the_account(cloud: Servers) -> list[str]:
    repository, _ = pushed(cloud, "other-account", "1")
    other = cloud.at(("333344445555", SOURCE[1]))("ecr")
    return ids(other.list_images(registryId=SOURCE[0], repositoryName=repository)["imageIds"])


@case(CASES, ["AVAILABLE", "UNAVAILABLE"])
def layers_are_known(cloud: Servers) -> list[str]:
    repository, made = pushed(cloud, "layers", "a")
    asked = [*made.layers, "sha256:" + "0" * 64]
    answer = cloud.clients("ecr").batch_check_layer_availability(repositoryName=repository, layerDigests=asked)
    return sorted(layer["layerAvailability"] for layer in answer["layers"])


@case(CASES, 200)
def a_layers_url_can_be_read(cloud: Servers) -> int:
    repository, made = pushed(cloud, "downloads", "a")
    answer = cloud.clients("ecr").get_download_url_for_layer(repositoryName=repository, layerDigest=made.layers[0])
    if not answer["downloadUrl"].startswith("http://127.0.0.1:"):
        return 0  # a name of AWS's, which nobody should ask from here
    return int(urllib3.request("GET", answer["downloadUrl"], retries=False, timeout=30).status)


# Putting ----------------------------------------------------------------------------------------------------------


@case(CASES, "ImageAlreadyExistsException")
def put_image_says_when_it_is_there_already(cloud: Servers) -> Any:
    repository, made = pushed(cloud, "again", "1")
    return clouds.put_image(cloud, repository, made, imageTag="1")["image"]["imageId"]


@case(CASES, "ImageDigestDoesNotMatchException")
def put_image_computes_the_digest_itself(cloud: Servers) -> Any:
    repository, made = pushed(cloud, "wrong-digest", "1")
    return clouds.put_image(cloud, repository, made, digest="sha256:" + "0" * 64, imageTag="2")["image"]["imageId"]


@case(CASES, "LayersNotFoundException")
def put_image_misses_layers(cloud: Servers) -> Any:
    return clouds.put_image(cloud, clouds.repository(cloud), single(cloud, "no-layers"))["image"]["imageId"]


@case(CASES, "ReferencedImagesNotFoundException")
def put_image_misses_an_indexs_children(cloud: Servers) -> Any:
    return clouds.put_image(cloud, clouds.repository(cloud), index(cloud, "no-children"))["image"]["imageId"]


@case(CASES, "BLOB_UPLOAD_UNKNOWN")
def the_registry_misses_layers(cloud: Servers) -> str:
    return clouds.error_code(clouds.put_manifest(cloud, clouds.repository(cloud), "1", single(cloud, "no-blobs")))


@case(CASES, "MANIFEST_BLOB_UNKNOWN")
def the_registry_misses_an_indexs_children(cloud: Servers) -> str:
    return clouds.error_code(clouds.put_manifest(cloud, clouds.repository(cloud), "1", index(cloud, "childless")))


@case(CASES, "MANIFEST_INVALID")
def the_registry_computes_the_digest_itself(cloud: Servers) -> str:
    repository, made = pushed(cloud, "other-digest", "1")
    return clouds.error_code(clouds.put_manifest(cloud, repository, "sha256:" + "0" * 64, made))


@case(CASES, "TAG_INVALID")
def an_immutable_tag_takes_not_even_the_same_digest(cloud: Servers) -> str:
    repository, made = pushed(cloud, "immutable", "1", imageTagMutability="IMMUTABLE")
    return clouds.error_code(clouds.put_manifest(cloud, repository, "1", made))


@case(CASES, (["latest", "sha256-*"], "moved", "TAG_INVALID"))
def an_excluded_tag_moves_in_an_immutable_repository(cloud: Servers) -> Any:
    filters = [{"filterType": "WILDCARD", "filter": pattern} for pattern in ("latest", "sha256-*")]
    settings = {"imageTagMutability": "IMMUTABLE_WITH_EXCLUSION", "imageTagMutabilityExclusionFilters": filters}
    repository, made = pushed(cloud, "excluded", "sha256-ab", "1", "other", **settings)
    (described,) = cloud.clients("ecr").describe_repositories(repositoryNames=[repository])["repositories"]
    other = images.Made("", "", made.media_type, json.dumps({**json.loads(made.manifest), "annotations": {}}).encode())
    answers = [clouds.put_manifest(cloud, repository, tag, other) for tag in ("sha256-ab", "1")]
    return (
        [entry["filter"] for entry in described.get("imageTagMutabilityExclusionFilters", [])],
        *("moved" if answer.status == 201 else clouds.error_code(answer) for answer in answers),
    )


@case(CASES, 200)
def what_put_image_put_the_registry_has_by_digest(cloud: Servers) -> int:
    repository, made = pushed(cloud, "by-api-1", "1")
    content = {**json.loads(made.manifest), "annotations": {"by": "PutImage"}}
    raw = json.dumps(content).encode()
    other = images.Made("", images.digest_of(raw), made.media_type, raw)
    clouds.put_image(cloud, repository, other)
    return clouds.http(cloud, SOURCE, "GET", f"/v2/{repository}/manifests/{other.digest}").status


# Registries -------------------------------------------------------------------------------------------------------


@case(CASES, True)
def repositories_are_where_their_uri_says(cloud: Servers) -> bool:
    repository = clouds.repository(cloud, DESTINATION)
    found = cloud.at(DESTINATION)("ecr").describe_repositories(repositoryNames=[repository])["repositories"][0]
    return bool(found["repositoryUri"] == f"{cloud.registry(DESTINATION).host}/{repository}")


@case(CASES, True)
def the_registry_is_where_the_token_says(cloud: Servers) -> bool:
    answer = cloud.at(DESTINATION)("ecr").get_authorization_token()["authorizationData"][0]
    return bool(answer["proxyEndpoint"] == f"http://{cloud.registry(DESTINATION).host}")


@case(CASES, True)
def a_token_names_the_registry_that_was_asked_for(cloud: Servers) -> bool:
    """One of another account, which has let us in."""
    ours = cloud.at(("333344445555", DESTINATION[1]))("ecr")
    answer = ours.get_authorization_token(registryIds=[DESTINATION[0]])["authorizationData"][0]
    return bool(answer["proxyEndpoint"] == f"http://{cloud.registry(DESTINATION).host}")


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"AWS:{password}".encode()).decode()}


@case(CASES, 401)
def a_wrong_token_is_refused(cloud: Servers) -> int:
    return clouds.http(cloud, DESTINATION, "GET", "/v2/", headers=basic("guessed")).status


@case(CASES, 401)
def a_token_of_another_region_is_refused(cloud: Servers) -> int:
    headers = {"Authorization": f"Basic {clouds.token(cloud, (DESTINATION[0], 'us-west-2'))}"}
    return clouds.http(cloud, DESTINATION, "GET", "/v2/", headers=headers).status


@case(CASES, "UNAUTHORIZED")
def nobody_pushes_to_a_destination_without_a_token(cloud: Servers) -> str:
    repository = clouds.repository(cloud, DESTINATION)
    return clouds.error_code(clouds.http(cloud, DESTINATION, "POST", f"/v2/{repository}/blobs/uploads/"))


@case(CASES, "202")
def a_creation_template_makes_the_sources_repository(cloud: Servers) -> str:
    return clouds.error_code(clouds.http(cloud, SOURCE, "POST", "/v2/never/seen/blobs/uploads/"))


@case(CASES, "The repository with name 'never/seen' does not exist in the registry with id '111122223333'")
def no_template_makes_a_destinations(cloud: Servers) -> Any:
    headers = {"Authorization": f"Basic {clouds.token(cloud, DESTINATION)}"}
    answer = clouds.http(cloud, DESTINATION, "POST", "/v2/never/seen/blobs/uploads/", headers=headers)
    return answer.json()["errors"][0]["message"]


def test_events_are_worded_as_aws_words_them(pair: tuple[Servers, Servers]) -> None:
    cloud = pair[1]
    queue = clouds.event_queue(cloud)
    repository, made = clouds.repository(cloud), images.artifact(folder(cloud) / "worded", "worded")
    clouds.skopeo(cloud, made, repository, "0.1.0")
    (event,) = clouds.receive(cloud, queue, 1)
    assert event.pop("id").count("-") == 4
    time = event.pop("time")
    assert len(time) == len("2025-09-16T01:54:34Z")
    assert time.endswith("Z")
    assert event == {
        "version": "0",
        "detail-type": "ECR Image Action",
        "source": "aws.ecr",
        "account": SOURCE[0],
        "region": SOURCE[1],
        "resources": [],
        "detail": {
            "result": "SUCCESS",
            "repository-name": repository,
            "image-digest": made.digest,
            "action-type": "PUSH",
            "image-tag": "0.1.0",
            "manifest-media-type": images.OCI_MANIFEST,
            "artifact-media-type": images.HELM_CONFIG,
        },
    }
