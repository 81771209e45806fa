"""Where an ECR registry is and who may come in, otherwise than MiniStack has it; what all answers are made of."""

import base64
import functools
import secrets
import time
from collections.abc import Callable
from typing import Any

from ministack.core.responses import error_response_json, get_account_id, get_region, json_response
from ministack.services import ecr

from local.spec import CloudSpec

Request = dict[str, Any]
Response = tuple[int, dict[str, str], bytes]

TOKEN_SECONDS = 12 * 3600
"""ECR: "An authorization token [...] is valid for 12 hours"."""

_hosts: dict[tuple[str, str], str] = {}
_tokens: dict[str, tuple[str, float]] = {}


def answer(content: Request) -> Response:
    response: Response = json_response(content)
    return response


def error(code: str, message: str) -> Response:
    response: Response = error_response_json(code, message, 400)
    return response


def needs_repository(handler: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """AWS names the registry too in its RepositoryNotFoundException."""

    @functools.wraps(handler)
    def checked(data: Request) -> Response:
        if data.get("repositoryName", "") in ecr._repositories:
            return handler(data)
        return error("RepositoryNotFoundException", no_repository(data.get("repositoryName", "")))

    return checked


def no_repository(name: str) -> str:
    return f"The repository with name '{name}' does not exist in the registry with id '{get_account_id()}'"


def registry_host(account: str | None = None) -> str:
    """In the current region, of the current account or another one: its loopback port, or AWS's name for a registry
    that has none.
    """
    account, region = account or get_account_id(), get_region()
    return _hosts.get((account, region), f"{account}.dkr.ecr.{region}.amazonaws.com")


def repository_uri(name: str) -> str:
    """AWS: where `docker push` goes. Here that is a loopback port."""
    return f"{registry_host()}/{name}"


def get_authorization_token(data: Request) -> Response:
    """AWS: a token that is good in the region that it was asked in; `proxyEndpoint` is the registry's address, of each
    that `registryIds` names.
    """
    password = secrets.token_urlsafe(32)
    expires = time.time() + TOKEN_SECONDS
    _tokens[password] = (get_region(), expires)
    token = base64.b64encode(f"AWS:{password}".encode()).decode()
    hosts = [registry_host(account) for account in data.get("registryIds") or [get_account_id()]]
    return answer(
        {
            "authorizationData": [
                {
                    "authorizationToken": token,
                    "expiresAt": int(expires),
                    "proxyEndpoint": f"{'http' if host in _hosts.values() else 'https'}://{host}",
                }
                for host in hosts
            ]
        }
    )


def token_is_good(password: str) -> bool:
    """Whether `password` is a token of the current region that has not expired."""
    region, expires = _tokens.get(password, ("", 0.0))
    return region == get_region() and time.time() < expires


@needs_repository
def get_download_url_for_layer(data: Request) -> Response:
    """AWS: an address that needs no credentials, and LayersNotFoundException for a layer that is not there."""
    repository, digest = data["repositoryName"], data.get("layerDigest", "")
    if digest not in ecr._layer_blobs.get(repository, {}):
        return error("LayersNotFoundException", f"The layer with digest '{digest}' is not in '{repository}'")
    url = f"http://{registry_host()}/v2/{repository}/blobs/{digest}"
    return answer({"downloadUrl": url, "layerDigest": digest})


def apply(spec: CloudSpec) -> None:
    _hosts.update({(registry.account, registry.region): registry.told_host for registry in spec.registries})
    ecr._repo_uri = repository_uri
    ecr._get_authorization_token = get_authorization_token
    ecr._get_download_url_for_layer = get_download_url_for_layer
