"""Any other registry, by the OCI distribution protocol: https://github.com/opencontainers/distribution-spec 1.1."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError

from ecr_relay.config import NewRepository
from ecr_relay.errors import CopyError, Missing, Permanent, RegistryDown, TagTaken, Transient, classify
from ecr_relay.images import MANIFEST_MEDIA_TYPES, children, is_digest
from ecr_relay.registries import Login
from ecr_relay.registries.challenge import Authorizer

_ACCEPT: Final = ", ".join(MANIFEST_MEDIA_TYPES)
_PAGE: Final = 1000
_MANIFEST_LIMIT: Final = 4 * 1024 * 1024
"""Bytes that a registry must take for a manifest (distribution specification 1.1, "Pushing manifests")."""
_REDIRECTS: Final = 3
_READ_RETRIES: Final = urllib3.Retry(
    total=2,
    backoff_factor=0.5,
    status_forcelist=(502, 503, 504),
    allowed_methods=("GET", "HEAD"),
    redirect=False,
    raise_on_status=False,
    respect_retry_after_header=False,
)
_NEXT: Final = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next\b')
# docker.io is a name for two hosts, and of repositories without a folder.
_DOCKER_HUB: Final = {"docker.io", "index.docker.io", "registry-1.docker.io"}


class Oci:
    """Implements `registries.Registry`. Reads are tried three times in all, writes once. Threads may share it.

    `scheme` is "http" only for a registry on a trusted network. The login goes to the registry itself and to the token
    service that it names, if that is its own or lies in the same domain; nowhere else.
    """

    def __init__(self, host: str, *, scheme: str = "https", login: Login | None = None) -> None:
        self._host = host
        self._base = f"{scheme}://{'registry-1.docker.io' if host in _DOCKER_HUB else host}"
        self._login = login
        self._pool = urllib3.PoolManager(maxsize=10, timeout=urllib3.Timeout(connect=5, read=30), retries=_READ_RETRIES)
        self._authorizer = Authorizer(self._pool, self._base, login)

    def __repr__(self) -> str:
        return f"Oci({self._host})"

    @property
    def host(self) -> str:
        return self._host

    def login(self) -> Login | None:
        return self._login

    def ping(self) -> None:
        """Raises CopyError unless a registry answers that lets us in."""
        answer = self._request("GET", "/v2/", "")
        if answer.status != 200:
            raise self._refused(answer, f"GET /v2/ of {self._host}")

    def resolve(self, repository: str, tag: str) -> str | None:
        return self._digest(repository, tag)

    def has(self, repository: str, digest: str) -> bool:
        return self._digest(repository, digest) is not None

    def children(self, repository: str, digest: str) -> tuple[str, ...]:
        found = self._manifest(repository, digest)
        return children(found[1]) if found else ()

    def _digest(self, repository: str, reference: str) -> str | None:
        path = f"/v2/{self._path(repository)}/manifests/{reference}"
        # A HEAD is no pull to Docker Hub's limit.
        answer = self._request("HEAD", path, _scope(self._path(repository), "pull"))
        if answer.status == 404:
            return None
        digest = answer.headers.get("Docker-Content-Digest", "")
        if answer.status == 200 and is_digest(digest):
            return digest
        if answer.status in (200, 405):  # the header is no duty, and neither was HEAD
            found = self._manifest(repository, reference)
            return found and found[0]
        raise self._refused(answer, f"HEAD of {repository} {reference} in {self._host}")

    def _manifest(self, repository: str, reference: str) -> tuple[str, bytes, str] | None:
        """Its digest, bytes and media type."""
        name = self._path(repository)
        answer = self._request("GET", f"/v2/{name}/manifests/{reference}", _scope(name, "pull"))
        what = f"GET of {repository} {reference} in {self._host}"
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self._refused(answer, what)
        if len(answer.data) > _MANIFEST_LIMIT:
            raise Permanent(f"{what}: the manifest has more than {_MANIFEST_LIMIT} bytes")
        digest = "sha256:" + hashlib.sha256(answer.data).hexdigest()
        if is_digest(reference) and reference != digest:
            raise Transient(f"{what}: the answer is not that manifest, but {digest}")
        return digest, answer.data, answer.headers.get("Content-Type", "")

    def repositories(self) -> Iterator[str]:
        """By `_catalog`, which is optional, and which public registries refuse: Permanent."""
        what = f"the list of repositories (_catalog) of {self._host}"
        try:
            for page in self._pages(f"/v2/_catalog?n={_PAGE}", "registry:catalog:*", what):
                yield from page.get("repositories") or ()
        except (Missing, RegistryDown) as error:
            raise Permanent(f"{error}; name the repositories in the rules, without globs") from error

    def images(self, repository: str) -> Iterator[tuple[str | None, str]]:
        """Images with a tag: the protocol lists no others. One HEAD a tag."""
        name = self._path(repository)
        what = f"the tags of {repository} in {self._host}"
        for page in self._pages(f"/v2/{name}/tags/list?n={_PAGE}", _scope(name, "pull"), what):
            for tag in page.get("tags") or ():
                if digest := self.resolve(repository, tag):  # None: deleted in between
                    yield tag, digest

    def ensure_repository(self, repository: str, settings: NewRepository) -> None:
        """Nothing to do: a push makes it."""

    def tag_is_taken(self, repository: str, digest: str, tag: str) -> bool:  # noqa: ARG002 - the protocol's signature
        """No: the protocol knows nothing of immutable tags; `put_tag` finds out."""
        return False

    def put_tag(self, repository: str, digest: str, tag: str) -> None:
        found = self._manifest(repository, digest)
        if found is None:
            raise Missing(f"{repository}@{digest} is not in {self._host}")
        _, manifest, media_type = found
        name = self._path(repository)
        answer = self._request(
            "PUT", f"/v2/{name}/manifests/{tag}", _scope(name, "pull,push"), manifest, {"Content-Type": media_type}
        )
        if answer.status in (200, 201, 202):
            return
        error = self._refused(answer, f"PUT of {repository}:{tag} in {self._host}")
        if isinstance(error, TagTaken) and self.resolve(repository, tag) == digest:
            return
        raise error

    def _path(self, repository: str) -> str:
        return f"library/{repository}" if self._host in _DOCKER_HUB and "/" not in repository else repository

    def _pages(self, path: str, scope: str, what: str) -> Iterator[dict[str, list[str]]]:
        seen: set[str] = set()
        while path not in seen:
            seen.add(path)
            answer = self._request("GET", path, scope)
            if answer.status != 200:
                raise self._refused(answer, what)
            try:
                content = dict(json.loads(answer.data))
            except (ValueError, TypeError):
                raise Transient(f"{what}: the answer is no JSON object") from None
            yield content
            following = _NEXT.search(answer.headers.get("Link", ""))
            if following is None:
                return
            url = urlsplit(urljoin(self._base + path, following[1]))
            if f"{url.scheme}://{url.netloc}" != self._base:
                raise Transient(f"{what}: the next page is said to be at another host, {url.netloc}")
            path = f"{url.path}?{url.query}"
        raise Transient(f"{what}: the pages go round in a circle")

    def _request(
        self, method: str, path: str, scope: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        """One exchange, logged in if the registry asks for it. Raises CopyError where nothing answers."""
        url = self._base + path
        sent = {"Accept": _ACCEPT, **(headers or {})}
        try:
            for _ in range(_REDIRECTS + 1):
                ours = url.startswith(self._base + "/")
                authorization = self._authorizer.header(scope) if ours else {}
                answer = self._send(method, url, body, sent | authorization)
                if answer.status == 401 and ours:
                    challenge = answer.headers.get("WWW-Authenticate", "")
                    authorization = self._authorizer.answer(challenge, scope)
                    if authorization:
                        answer = self._send(method, url, body, sent | authorization)
                location = answer.headers.get("Location")
                if method not in ("GET", "HEAD") or answer.status not in (301, 302, 303, 307, 308) or not location:
                    return answer
                url = urljoin(url, location)
                if self._base.startswith("https://") and not url.startswith("https://"):
                    raise Transient(f"{self._host} redirects to {urlsplit(url).netloc}, in plain text")
        except HTTPError as error:
            raise _unreachable(f"{method} {path.partition('?')[0]} of {self._host}", error) from error
        raise Transient(f"{self._host} redirects {path} more than {_REDIRECTS} times")

    def _send(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        return self._pool.request(method, url, body=body, headers=headers, redirect=False)

    def _refused(self, answer: urllib3.BaseHTTPResponse, what: str) -> CopyError:
        reason = f"{answer.status} {answer.reason or ''}".strip() + _errors(answer.data)
        text = f"{what}: {reason}"
        if answer.status == 429:
            after = answer.headers.get("Retry-After")
            return Transient(text + (f" (retry after {after})" if after else ""))
        if answer.status == 404:
            return Missing(text)
        if answer.status == 401 and answer.headers.get("WWW-Authenticate", "").lower().startswith("bearer"):
            # The token service knows us, or lets anybody in; so this is about the repository.
            return Permanent(f"{text}: there is no such repository, or we may not see it")
        return classify(reason)(text)


def _scope(repository: str, actions: str) -> str:
    return f"repository:{repository}:{actions}"


def _errors(body: bytes) -> str:
    """What the registry says itself: `{"errors": [{"code": …, "message": …}]}`."""
    try:
        errors = json.loads(body)["errors"]
        said = [f"{each['code'].lower().replace('_', ' ')}: {each.get('message', '')}" for each in errors]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f": {'; '.join(said)[:500]}" if said else ""


def _unreachable(what: str, error: HTTPError) -> CopyError:
    cause = getattr(error, "reason", None) or error
    down = isinstance(cause, NewConnectionError | ConnectTimeoutError | SSLError)
    return (RegistryDown if down else Transient)(f"{what}: {cause}")
