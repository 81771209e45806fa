"""Any other registry, by the OCI distribution protocol: https://github.com/opencontainers/distribution-spec 1.1."""

import hashlib
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, InvalidHeader, NewConnectionError, ProxyError, SSLError

from ecr_relay.config import DOCKER_HUB
from ecr_relay.errors import CopyError, Missing, Permanent, RegistryDown, Transient, classify
from ecr_relay.images import INDEX_MEDIA_TYPES, MANIFEST_MEDIA_TYPES, Listed, children, is_digest
from ecr_relay.manifests import SCHEMA_1, SIZE_LIMIT, Manifest
from ecr_relay.registries import Login
from ecr_relay.registries.challenge import REMEDY, Ask, Authorizer

_ACCEPT: Final = ", ".join(MANIFEST_MEDIA_TYPES)
_PAGE: Final = 1000
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
# What registries answer that do not know the referrers API; go-containerregistry and oras-go have met each of them.
_NO_REFERRERS: Final = frozenset({400, 404, 405, 406, 501})
_NEXT: Final = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next\b')
_PATIENCE_S: Final = 10.0
"""How long a `Retry-After` may be that is waited for here; what is longer is for the destination's breaker."""
_WAITS: Final = 2
# Docker Hub's: "100;w=21600", so many pulls in so many seconds (docs.docker.com/docker-hub/usage/pulls).
_QUOTA: Final = re.compile(r"(\d+);w=(\d+)")


class Oci:
    """Implements `registries.Registry`. Reads are tried three times in all. Threads may share it.

    `scheme` is "http" only for a registry on a trusted network. The login goes to the registry itself and to the token
    service that it names, if that is its own or lies in the same domain; nowhere else.
    """

    def __init__(
        self, host: str, *, scheme: str = "https", login: Login | Ask | None = None, ca_certificate: str | None = None
    ) -> None:
        # One registry by several names, of which skopeo knows this one to have a `library/`.
        self._is_hub = host in DOCKER_HUB
        self._host = "docker.io" if self._is_hub else host
        self._base = f"{scheme}://{'registry-1.docker.io' if self._is_hub else host}"
        self._ask: Ask = login if callable(login) else lambda _refused: login
        self._ca_certificate = ca_certificate
        self._pool = _pool(scheme, urlsplit(self._base).netloc, ca_certificate)
        self._authorizer = Authorizer(self._pool, self._base, self._ask)

    def __repr__(self) -> str:
        return f"Oci({self._host})"

    @property
    def host(self) -> str:
        return self._host

    @property
    def plain_http(self) -> bool:
        return self._base.startswith("http://")

    @property
    def ca_certificate(self) -> str | None:
        return self._ca_certificate

    def login(self) -> Login | None:
        return self._ask(None)

    def resolve(self, repository: str, tag: str) -> str | None:
        return self._digest(repository, tag)

    def has(self, repository: str, digest: str) -> bool:
        return self._digest(repository, digest) is not None

    def manifest(self, repository: str, digest: str) -> Manifest | None:
        """A GET: a pull to Docker Hub's limit, where `has` and `resolve` are none."""
        return self._manifest(repository, digest)

    def children(self, repository: str, digest: str) -> tuple[str, ...]:
        found = self._manifest(repository, digest)
        return children(found.content) if found else ()

    def referrers(self, repository: str, digest: str) -> tuple[str, ...]:
        """By the referrers API; where there is none, by the index under the tag `sha256-…` (the specification's
        "Referrers Tag Schema")."""
        name = self._path(repository)
        found: list[str] = []
        path = f"/v2/{name}/referrers/{digest}"
        what = f"the referrers of {repository}@{digest} in {self._host}"
        for answer in self._answers(path, _scope(name), what, _NO_REFERRERS):
            # Some answer whatever they are asked, and mean no list by it.
            if answer.status != 200 or _media_type(answer) not in INDEX_MEDIA_TYPES:
                listed = self.resolve(repository, digest.replace(":", "-"))
                return self.children(repository, listed) if listed else ()
            found += children(answer.data)
        return tuple(found)

    def lines(self, repository: str, digest: str) -> tuple[Listed, ...]:  # noqa: ARG002 - the protocol's
        """None: the distribution protocol finds no tag by its digest."""
        return ()

    def _digest(self, repository: str, reference: str) -> str | None:
        path = f"/v2/{self._path(repository)}/manifests/{reference}"
        # A HEAD is no pull to Docker Hub's limit.
        answer = self._request("HEAD", path, _scope(self._path(repository)))
        if answer.status == 404:
            return None
        digest = answer.headers.get("Docker-Content-Digest", "")
        if answer.status == 200 and is_digest(digest):
            return digest
        if answer.status in (200, 405):  # the header is no duty, and neither was HEAD
            found = self._manifest(repository, reference)
            return found.digest if found else None
        raise self._refused(answer, f"HEAD of {repository} {reference} in {self._host}")

    def _manifest(self, repository: str, reference: str) -> Manifest | None:
        name = self._path(repository)
        answer = self._request("GET", f"/v2/{name}/manifests/{reference}", _scope(name))
        what = f"GET of {repository} {reference} in {self._host}"
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self._refused(answer, what)
        if len(answer.data) > SIZE_LIMIT:
            raise Permanent(f"{what}: the manifest has more than {SIZE_LIMIT} bytes")
        digest = "sha256:" + hashlib.sha256(answer.data).hexdigest()
        media_type = _media_type(answer)
        if media_type.startswith(SCHEMA_1) and is_digest(reference):
            digest = reference  # nothing to be held against it: what is signed in it is not in its digest
        elif is_digest(reference) and reference != digest:
            raise Transient(f"{what}: the answer is not that manifest, but {digest}")
        return Manifest(digest, media_type, answer.data)

    def repositories(self) -> Iterator[str]:
        """By `_catalog`, which is optional, and which public registries refuse: Permanent."""
        what = f"the list of repositories (_catalog) of {self._host}"
        try:
            for page in self._pages(f"/v2/_catalog?n={_PAGE}", "registry:catalog:*", what):
                yield from page.get("repositories") or ()
        except (Missing, RegistryDown) as error:
            raise Permanent(f"{error}; name the repositories in the rules, without globs") from error

    def images(
        self,
        repository: str,
        *,
        details: bool = False,  # noqa: ARG002 - the protocol has none
        tags: Callable[[str], bool] | None = None,
    ) -> Iterator[Listed]:
        """Images with a tag: the protocol lists no others. One HEAD for each that matters."""
        name = self._path(repository)
        what = f"the tags of {repository} in {self._host}"
        for page in self._pages(f"/v2/{name}/tags/list?n={_PAGE}", _scope(name), what):
            for tag in filter(tags, page.get("tags") or ()):
                if digest := self.resolve(repository, tag):  # None: deleted in between
                    yield Listed(tag, digest)

    def _path(self, repository: str) -> str:
        return f"library/{repository}" if self._is_hub and "/" not in repository else repository

    def _pages(self, path: str, scope: str, what: str) -> Iterator[dict[str, list[str]]]:
        for answer in self._answers(path, scope, what):
            try:
                yield dict(json.loads(answer.data))
            except (ValueError, TypeError):
                raise Transient(f"{what}: the answer is no JSON object") from None

    def _answers(
        self, path: str, scope: str, what: str, accepted: frozenset[int] = frozenset()
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """A page each, as long as there are more. Raises what any status but 200 and the accepted ones means."""
        seen: set[str] = set()
        while path not in seen:
            seen.add(path)
            answer = self._request("GET", path, scope)
            if answer.status != 200 and answer.status not in accepted:
                raise self._refused(answer, what)
            yield answer
            following = _NEXT.search(answer.headers.get("Link", ""))
            if following is None:
                return
            url = urlsplit(urljoin(self._base + path, following[1]))
            if f"{url.scheme}://{url.netloc}" != self._base:
                raise Transient(f"{what}: the next page is said to be at another host, {url.netloc}")
            path = f"{url.path}?{url.query}"
        raise Transient(f"{what}: the pages go round in a circle")

    def _request(self, method: str, path: str, scope: str) -> urllib3.BaseHTTPResponse:
        """One exchange, logged in if the registry asks for it. Raises CopyError where nothing answers."""
        url = self._base + path
        try:
            for _ in range(_REDIRECTS + 1):
                answer = self._send(method, url, scope)
                location = answer.headers.get("Location")
                if answer.status not in (301, 302, 303, 307, 308) or not location:
                    return answer
                url = urljoin(url, location)
                if self._base.startswith("https://") and not url.startswith("https://"):
                    raise Transient(f"{self._host} redirects to {urlsplit(url).netloc}, in plain text")
        except HTTPError as error:
            raise _unreachable(f"{method} {path.partition('?')[0]} of {self._host}", error) from error
        raise Transient(f"{self._host} redirects {path} more than {_REDIRECTS} times")

    def _send(self, method: str, url: str, scope: str) -> urllib3.BaseHTTPResponse:
        """To another host nothing that is ours is sent along."""
        ours = url.startswith(self._base + "/")
        sent = {"Accept": _ACCEPT, **(self._authorizer.header(scope) if ours else {})}
        answer = self._patiently(method, url, sent)
        # Twice for Basic: the login that we had may be older than what its secret holds.
        for kinds in (("basic", "bearer"), ("basic",)):
            challenge = answer.headers.get("WWW-Authenticate", "")
            if answer.status != 401 or not ours or not challenge.lower().startswith(kinds):
                break
            authorization = self._authorizer.answer(challenge, scope, sent)
            if not authorization:
                break
            sent |= authorization
            answer = self._patiently(method, url, sent)
        return answer

    def _patiently(self, method: str, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        for _ in range(_WAITS):
            answer = self._pool.request(method, url, headers=headers, redirect=False)
            wait = _retry_after(answer)
            if answer.status != 429 or wait is None or wait > _PATIENCE_S:
                return answer
            time.sleep(wait)
        return self._pool.request(method, url, headers=headers, redirect=False)

    def _refused(self, answer: urllib3.BaseHTTPResponse, what: str) -> CopyError:
        reason = f"{answer.status} {answer.reason or ''}".strip() + _errors(answer.data)
        text = f"{what}: {reason}"
        if answer.status == 429:
            return RegistryDown(text + _opens(answer))
        if answer.status == 404:
            return Missing(text)
        if answer.status == 401 and answer.headers.get("WWW-Authenticate", "").lower().startswith("bearer"):
            # The token service knows us, or lets anybody in; so this is about the repository.
            return Permanent(f"{text}: there is no such repository, or we may not see it")
        return classify(reason)(text + (f"; {REMEDY}" if answer.status == 401 else ""))


def _retry_after(answer: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds; None if it does not say."""
    try:
        return _READ_RETRIES.get_retry_after(answer)
    except InvalidHeader:
        return None


def _opens(answer: urllib3.BaseHTTPResponse) -> str:
    """When it will let us in again, as it says itself."""
    wait = _retry_after(answer)
    if wait is not None:
        return f"; it opens again in {wait:.0f} s"
    limit, left = (_QUOTA.match(answer.headers.get(f"ratelimit-{name}", "")) for name in ("limit", "remaining"))
    if left is None or int(left[1]):
        return ""
    pulls = f"all {limit[1]} pulls" if limit else "all pulls"
    return f"; {pulls} of {int(left[2]) / 3600:g} hours are used up, and it opens again within that time"


def _media_type(answer: urllib3.BaseHTTPResponse) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()


def _scope(repository: str) -> str:
    return f"repository:{repository}:pull"


def _errors(body: bytes) -> str:
    """What the registry says itself: `{"errors": [{"code": …, "message": …}]}`."""
    try:
        errors = json.loads(body)["errors"]
        said = [f"{each['code'].lower().replace('_', ' ')}: {each.get('message', '')}" for each in errors]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f": {'; '.join(said)[:500]}" if said else ""


def _pool(scheme: str, host: str, ca_certificate: str | None) -> urllib3.PoolManager:
    """By the environment's proxy, unless it excepts `host`, as botocore and skopeo go."""
    proxy = None if proxy_bypass(host) else getproxies().get(scheme)
    timeout = urllib3.Timeout(connect=5, read=30)
    context = ssl.create_default_context()
    # Python 3.13 asks it by default, skopeo and the AWS SDK do not, and not every company's authority is made so.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if ca_certificate:  # beside the public ones: the token service may have one of those
        context.load_verify_locations(cadata=ca_certificate)
    if proxy:
        return urllib3.ProxyManager(proxy, maxsize=10, timeout=timeout, retries=_READ_RETRIES, ssl_context=context)
    return urllib3.PoolManager(maxsize=10, timeout=timeout, retries=_READ_RETRIES, ssl_context=context)


def _unreachable(what: str, error: HTTPError) -> CopyError:
    cause = getattr(error, "reason", None) or error
    down = isinstance(cause, NewConnectionError | ConnectTimeoutError | ProxyError | SSLError)
    return (RegistryDown if down else Transient)(f"{what}: {cause}")
