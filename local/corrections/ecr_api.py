"""The ECR API, where MiniStack answers otherwise than AWS."""

import base64
import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any

from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import ecr

from local.corrections import ecr_store
from local.corrections.ecr_access import Request, Response, answer, error, needs_repository, no_repository
from local.corrections.ecr_store import ImageId, Refused

_FILTERS = "imageTagMutabilityExclusionFilters"
_create_repository: Callable[[Request], Response] = ecr._create_repository
_put_image_tag_mutability: Callable[[Request], Response] = ecr._put_image_tag_mutability
_repo_shape: Callable[[Request], Request] = ecr._repo_shape


def page(entries: list[Any], key: Callable[[Any], str], data: Request, limit: int) -> tuple[list[Any], str | None]:
    """AWS pages by a token that survives changes between two pages; so the token here is the last entry's key."""
    token = data.get("nextToken")
    after = base64.urlsafe_b64decode(token).decode() if token else ""
    rest = [entry for entry in entries if key(entry) > after]
    shown = rest[: int(data.get("maxResults") or limit)]
    more = base64.urlsafe_b64encode(key(shown[-1]).encode()).decode() if len(rest) > len(shown) else None
    return shown, more


def _id_key(image_id: ImageId) -> str:
    return f"{image_id['imageDigest']} {image_id.get('imageTag', '')}"


def _wanted(data: Request, tagged: bool) -> bool:
    chosen = data.get("filter") or {}
    if chosen.get("imageStatus", "ACTIVE") not in ("ACTIVE", "ANY"):
        return False
    return chosen.get("tagStatus", "ANY") in ("ANY", "TAGGED" if tagged else "UNTAGGED")


@needs_repository
def list_images(data: Request) -> Response:
    """AWS: an entry for each (digest, tag) pair, by pages of `maxResults`, 100 by default."""
    found = [entry for entry in ecr_store.pairs(data["repositoryName"]) if _wanted(data, "imageTag" in entry)]
    shown, token = page(found, _id_key, data, 100)
    return answer({"imageIds": shown, **({"nextToken": token} if token else {})})


def _find(repository: str, image_id: ImageId) -> tuple[ecr_store.Image | None, dict[str, str]]:
    """The image that an id names, or AWS's failure: a tag and a digest together must agree."""
    tag, digest = image_id.get("imageTag"), image_id.get("imageDigest")
    image = ecr_store.by_tag(repository, tag) if tag else ecr_store.by_digest(repository, digest or "")
    if image is None:
        return None, {"failureCode": "ImageNotFound", "failureReason": "Requested image not found"}
    if tag and digest and image["imageDigest"] != digest:
        return None, {
            "failureCode": "ImageTagDoesNotMatchDigest",
            "failureReason": "Requested tag does not match requested image digest",
        }
    return image, {}


@needs_repository
def batch_get_image(data: Request) -> Response:
    """AWS: each image with the tag that was asked for, not with one that it happens to have."""
    repository = data["repositoryName"]
    found, failures = [], []
    for image_id in data.get("imageIds", []):
        image, failure = _find(repository, image_id)
        if image is None:
            failures.append({"imageId": image_id, **failure})
            continue
        found.append(
            {
                "registryId": get_account_id(),
                "repositoryName": repository,
                "imageId": {**image_id, "imageDigest": image["imageDigest"]},
                "imageManifest": ecr_store.manifest_of(repository, image).raw.decode(),
                "imageManifestMediaType": image["imageManifestMediaType"],
            }
        )
    return answer({"images": found, "failures": failures})


@needs_repository
def batch_delete_image(data: Request) -> Response:
    """AWS: deleting a tag takes the image only with its last; by digest all goes. An index keeps its children."""
    repository = data["repositoryName"]
    gone, failures = [], []
    for image_id in data.get("imageIds", []):
        image, failure = _find(repository, image_id)
        holders = ecr_store.indexes_with(repository, image["imageDigest"]) if image else []
        if holders and not image_id.get("imageTag"):
            failure = {
                "failureCode": "ImageReferencedByManifestList",
                "failureReason": f"Requested image referenced by manifest list: [{', '.join(holders)}]",
            }
        if image is None or failure:
            failures.append({"imageId": image_id, **failure})
        else:
            gone += ecr_store.remove(repository, image, image_id.get("imageTag"))
    return answer({"imageIds": gone, "failures": failures})


@needs_repository
def put_image(data: Request) -> Response:
    """AWS: refuses what lacks children or layers, a wrong digest, a taken immutable tag, and what is there already."""
    repository, tag = data["repositoryName"], data.get("imageTag")
    where = f"in the repository with name '{repository}' in registry with id '{get_account_id()}'"
    try:
        manifest = ecr_store.parse(data.get("imageManifest", "").encode(), data.get("imageManifestMediaType"))
        if data.get("imageDigest", manifest.digest) != manifest.digest:
            return error(
                "ImageDigestDoesNotMatchException",
                f"The image with digest '{data['imageDigest']}' {where} does not match the image digest that Amazon "
                "ECR has calculated.",
            )
        image = ecr_store.by_digest(repository, manifest.digest)
        if image and (not tag or (tag in image["imageTags"] and not ecr_store.is_immutable(repository, tag))):
            named = f" and tag '{tag}'" if tag else ""
            return error(
                "ImageAlreadyExistsException", f"Image with digest '{manifest.digest}'{named} already exists {where}"
            )
        ecr_store.put(repository, manifest, tag)
    except Refused as refused:
        return error(refused.api_code, str(refused))
    return answer(
        {
            "image": {
                "registryId": get_account_id(),
                "repositoryName": repository,
                "imageId": {"imageDigest": manifest.digest, **({"imageTag": tag} if tag else {})},
                "imageManifest": data["imageManifest"],
                "imageManifestMediaType": manifest.media_type,
            }
        }
    )


@needs_repository
def describe_images(data: Request) -> Response:
    """AWS: pages; ImageNotFoundException for an id that is not there; sizes of the layers; a referrer's subject."""
    repository = data["repositoryName"]
    if data.get("imageIds"):
        shown, token = [], None
        for image_id in data["imageIds"]:
            image, failure = _find(repository, image_id)
            if image is None:
                name = json.dumps(image_id)
                return error("ImageNotFoundException", f"The image with imageId {name} does not exist: {failure}")
            shown.append(image)
    else:
        ordered = sorted(ecr_store.images(repository), key=lambda image: str(image["imageDigest"]))
        chosen = [image for image in ordered if _wanted(data, bool(image.get("imageTags")))]
        shown, token = page(chosen, lambda image: str(image["imageDigest"]), data, 100)
    details = [_describe(repository, image) for image in shown]
    return answer({"imageDetails": details, **({"nextToken": token} if token else {})})


def _describe(repository: str, image: ecr_store.Image) -> Request:
    manifest = ecr_store.manifest_of(repository, image)
    optional = {
        "imageTags": sorted(image.get("imageTags", [])),
        "artifactMediaType": manifest.artifact_media_type,
        "subjectManifestDigest": manifest.subject,
    }
    return {
        "registryId": get_account_id(),
        "repositoryName": repository,
        "imageDigest": image["imageDigest"],
        "imageSizeInBytes": sum(blob.get("size", 0) for blob in manifest.blobs),
        "imagePushedAt": image["imagePushedAt"],
        "imageManifestMediaType": image["imageManifestMediaType"],
        "imageStatus": "ACTIVE",
        **{name: value for name, value in optional.items() if value},
    }


@needs_repository
def list_image_referrers(data: Request) -> Response:
    """AWS: the images whose `subject` is the digest; MiniStack has no such call."""
    types = (data.get("filter") or {}).get("artifactTypes") or []
    found = [
        {**entry, "artifactStatus": "ACTIVE"}
        for entry in ecr_store.referrers(data["repositoryName"], data["subjectId"]["imageDigest"])
        if not types or entry["artifactType"] in types
    ]
    shown, token = page(found, lambda entry: str(entry["digest"]), data, 50)
    return answer({"referrers": shown, **({"nextToken": token} if token else {})})


@needs_repository
def batch_check_layer_availability(data: Request) -> Response:
    """AWS: says of each layer whether the repository has it; MiniStack says that of none."""
    blobs = ecr._layer_blobs.get(data["repositoryName"], {})
    layers = [
        {"layerDigest": digest, "layerAvailability": "AVAILABLE", "layerSize": len(blobs[digest])}
        if digest in blobs
        else {"layerDigest": digest, "layerAvailability": "UNAVAILABLE"}
        for digest in data.get("layerDigests", [])
    ]
    return answer({"layers": layers, "failures": []})


def create_repository(data: Request) -> Response:
    """AWS: keeps the filters of IMMUTABLE_WITH_EXCLUSION; MiniStack keeps the word alone."""
    made = _create_repository(data)
    if made[0] != 200:
        return made
    repository = ecr._repositories[data["repositoryName"]]
    repository[_FILTERS] = data.get(_FILTERS)
    return answer({"repository": repo_shape(repository)})


@needs_repository
def put_image_tag_mutability(data: Request) -> Response:
    """AWS: likewise; without filters those from before are gone."""
    ecr._repositories[data["repositoryName"]][_FILTERS] = data.get(_FILTERS)
    return _put_image_tag_mutability(data)


def repo_shape(repository: Request) -> Request:
    """AWS: tells the filters, too."""
    filters = {_FILTERS: repository[_FILTERS]} if repository.get(_FILTERS) else {}
    return {**_repo_shape(repository), **filters}


def describe_repositories(data: Request) -> Response:
    """AWS: by pages, and a missing name is RepositoryNotFoundException that names the registry."""
    names = data.get("repositoryNames") or []
    for name in names:
        if name not in ecr._repositories:
            return error("RepositoryNotFoundException", no_repository(name))
    wanted = sorted(names or ecr._repositories.keys())
    shown, token = page(wanted, str, {} if names else data, 100)
    repositories = [ecr._repo_shape(ecr._repositories[name]) for name in shown]
    return answer({"repositories": repositories, **({"nextToken": token} if token else {})})


def apply() -> None:
    for handler in (
        list_images,
        batch_get_image,
        batch_delete_image,
        put_image,
        describe_images,
        batch_check_layer_availability,
        create_repository,
        put_image_tag_mutability,
        repo_shape,
        describe_repositories,
    ):
        setattr(ecr, f"_{handler.__name__}", handler)
    ecr.handle_request = _in_registry(ecr.handle_request)


def _in_registry(handle: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """AWS: `registryId` names the account whose registry is meant; MiniStack looks only into the caller's."""

    @functools.wraps(handle)
    async def handled(method: str, path: str, headers: dict[str, str], body: bytes, query: Any) -> Response:
        try:
            data = json.loads(body) if body else {}
        except ValueError:
            data = {}
        with request_scope(data.get("registryId") or get_account_id(), get_region()):
            if headers.get("x-amz-target", "").endswith(".ListImageReferrers"):
                return list_image_referrers(data)
            return await handle(method, path, headers, body, query)

    return handled
