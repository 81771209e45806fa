"""The same ECR registries by the distribution protocol, `/v2/`, where MiniStack answers otherwise than AWS."""

import base64
import functools
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from ministack import app
from ministack.core.responses import get_account_id, request_scope
from ministack.services import ecr

from local.corrections import ecr_access, ecr_store
from local.corrections.ecr_store import Refused
from local.spec import CloudSpec, Registry

Response = tuple[int, dict[str, str], bytes]
Handler = Callable[..., Awaitable[Response]]

_WRITES = ("POST", "PUT", "PATCH", "DELETE")
_REFERRERS = re.compile(r"/v2/(.+)/referrers/(sha256:[0-9a-f]{64})")


def refusal(status: int, code: str, message: str) -> Response:
    response: Response = ecr._registry_error(status, code, message)
    return response


def ensure_repository(name: str) -> Response | None:
    """AWS's wording: clients decide by it whether to create the repository."""
    if name in ecr._repositories:
        return None
    return refusal(404, "NAME_UNKNOWN", ecr_access.no_repository(name))


def put_manifest(name: str, reference: str, headers: dict[str, str], body: bytes) -> Response:
    """AWS: a manifest whose children, config or layers are missing, whose digest is another, or whose immutable tag
    is taken, is refused; what is there already is taken again, and makes an event again.
    """
    if missing := ensure_repository(name):
        return missing
    by_digest = reference.startswith("sha256:")
    try:
        manifest = ecr_store.parse(body or b"", headers.get("content-type"))
        if by_digest and reference != manifest.digest:
            message = (
                f"The image with digest '{reference}' in repository '{name}' and registry ID '{get_account_id()}' does "
                "not match the image digest that Amazon ECR has calculated."
            )
            return refusal(400, "MANIFEST_INVALID", message)
        ecr_store.put(name, manifest, None if by_digest else reference)
    except Refused as refused:
        status = 404 if refused.registry_code.endswith("_UNKNOWN") else 400
        return refusal(status, refused.registry_code, str(refused))
    location = {"Location": f"/v2/{name}/manifests/{manifest.digest}", "Docker-Content-Digest": manifest.digest}
    response: Response = ecr._registry_ok(201, {**location, "Content-Length": "0"}, b"")
    return response


def delete_manifest(name: str, reference: str) -> Response:  # noqa: ARG001 - the handlers' signature
    """AWS: "Amazon ECR doesn't support DELETE", images are deleted by BatchDeleteImage."""
    return refusal(405, "UNSUPPORTED", "The operation is unsupported.")


def list_referrers(name: str, digest: str) -> Response:
    """AWS: the referrers API of the distribution specification 1.1; MiniStack has none."""
    if missing := ensure_repository(name):
        return missing
    content = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": ecr_store.referrers(name, digest),
    }
    response: Response = ecr._registry_ok(200, {"Content-Type": content["mediaType"]}, json.dumps(content).encode())
    return response


def is_registry_path(path: str) -> bool:
    """Which paths are a registry's, referrers and repositories below `email/` included."""
    if path in ("/v2", "/v2/", "/v2/_catalog"):
        return True
    parts = ("/blobs/", "/manifests/", "/referrers/")
    return path.startswith("/v2/") and (any(part in path for part in parts) or path.endswith("/tags/list"))


def guarded(handle: Handler, registries: tuple[Registry, ...]) -> Handler:
    """AWS asks every client for Basic authentication, user `AWS`, and knows a wrong token from a right one.

    Here whoever brings no credentials may read, and push where a creation template is (the source): one command
    shall be enough to try it. Whoever brings some is checked as AWS does, and a destination is written only with them.
    """
    by_aws_host = {registry.aws_host: registry for registry in registries}

    @functools.wraps(handle)
    async def guard(method: str, path: str, headers: dict[str, str], body: bytes, query: Any) -> Response:
        registry = by_aws_host.get(headers.get("host", ""))
        if registry is None:
            return await handle(method, path, headers, body, query)
        with request_scope(registry.account, registry.region):
            if not _allowed(method, path, headers.get("authorization", ""), registry):
                status, answer, text = refusal(401, "UNAUTHORIZED", "Not Authorized")
                challenge = f'Basic realm="http://{registry.told_host}/",service="ecr.amazonaws.com"'
                return status, {**answer, "Www-Authenticate": challenge}, text
            if registry.create_on_push and method in _WRITES:
                _create(path)
            if method == "GET" and (match := _REFERRERS.fullmatch(path)):
                return list_referrers(*match.groups())
            return await handle(method, path, headers, body, query)

    return guard


def _allowed(method: str, path: str, authorization: str, registry: Registry) -> bool:
    scheme, _, encoded = authorization.partition(" ")
    try:
        user, _, password = base64.b64decode(encoded).decode().partition(":")
    except ValueError:
        return False
    if scheme.lower() == "basic" and (user or password):
        return user == "AWS" and ecr_access.token_is_good(password)
    if registry.create_on_push:
        return True
    # A 401 here is the challenge, by which clients learn to send what they have.
    return path.rstrip("/") != "/v2" and method not in _WRITES


def _create(path: str) -> None:
    """AWS: a repository creation template applied for CREATE_ON_PUSH makes the repository that a push lacks."""
    parsed = ecr._parse_v2_path(path)
    if parsed and parsed[1] and parsed[1] not in ecr._repositories:
        ecr._create_repository({"repositoryName": parsed[1]})


def apply(spec: CloudSpec) -> None:
    app._is_ecr_registry_path = is_registry_path
    ecr._ensure_repo_exists = ensure_repository
    ecr._v2_put_manifest = put_manifest
    ecr._v2_delete_manifest = delete_manifest
    ecr.handle_registry_request = guarded(ecr.handle_registry_request, spec.registries)
