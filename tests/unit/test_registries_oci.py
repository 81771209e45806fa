"""The distribution protocol, exchange by exchange: a test says what is asked and answered, and nothing else may be."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ecr_relay.errors import CopyError, Missing, Permanent, RegistryDown, Transient
from ecr_relay.images import Listed
from ecr_relay.manifests import Manifest, unfit
from ecr_relay.registries import Login, Registry
from ecr_relay.registries.challenge import _same_party
from ecr_relay.registries.oci import Oci

MANIFEST = b'{"schemaVersion":2 }'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
TYPE = "application/vnd.oci.image.manifest.v1+json"
LOGIN = Login("relay", "hunter2")
BASIC = "Basic " + base64.b64encode(b"relay:hunter2").decode()
HEAD = "HEAD /v2/app/manifests/1"
GET = f"GET /v2/app/manifests/{DIGEST}"


@dataclass
class Exchange:
    """`asked` is method and path; `authorization` what must come with it. `{host}` in a header is the server's own."""

    asked: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    authorization: str | None = None


class Server:
    def __init__(self) -> None:
        self.expected: list[Exchange] = []
        self.wrong: list[str] = []
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                outer.answer(self)

            do_GET = do_HEAD = do_PUT = do_CONNECT = answer  # noqa: N815 - the base class's names

            def log_message(self, format: str, *arguments: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = f"{request.command} {request.path}"
        self.bodies.append(request.rfile.read(int(request.headers.get("Content-Length", 0))))
        exchange = self.expected.pop(0) if self.expected else Exchange("nothing", 418)
        authorization = request.headers.get("Authorization")
        if (asked, authorization) != (exchange.asked, exchange.authorization):
            wanted = f"{exchange.asked} with {exchange.authorization}"
            self.wrong.append(f"asked: {asked} with {authorization}; expected: {wanted}")
            exchange = Exchange(asked, 418)
        request.send_response(exchange.status)
        for name, value in exchange.headers.items():
            request.send_header(name, value.replace("{host}", self.host))
        request.send_header("Content-Length", str(len(exchange.body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(exchange.body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()
    assert server.wrong == []
    assert server.expected == []


def oci(server: Server, login: Login | None = None) -> Oci:
    return Oci(server.host, scheme="http", login=login)


def found(asked: str = HEAD, authorization: str | None = None) -> Exchange:
    return Exchange(asked, 200, {"Docker-Content-Digest": DIGEST}, authorization=authorization)


def challenge(realm: str = "http://{host}/token") -> dict[str, str]:
    return {"WWW-Authenticate": f'Bearer realm="{realm}",service="registry.test",scope="repository:app:pull"'}


def token(text: str, authorization: str | None = None, seconds: int = 300) -> Exchange:
    body = json.dumps({"token": text, "expires_in": seconds}).encode()
    return Exchange("GET /token?service=registry.test&scope=repository%3Aapp%3Apull", 200, {}, body, authorization)


def test_it_is_a_registry(server: Server) -> None:
    registry: Registry = oci(server)
    assert registry.host == server.host
    assert registry.login() is None
    assert registry.plain_http
    assert repr(registry) == f"Oci({server.host})"


# --- Who we are -----------------------------------------------------------------------------------------------------


def test_nothing_is_told_before_it_is_asked_for(server: Server) -> None:
    server.expected = [
        Exchange(HEAD, 401, {"WWW-Authenticate": 'Basic realm="test"'}),
        found(authorization=BASIC),
        found("HEAD /v2/app/manifests/2", BASIC),
    ]
    registry = oci(server, LOGIN)
    assert registry.resolve("app", "1") == DIGEST
    assert registry.resolve("app", "2") == DIGEST


def test_an_anonymous_token(server: Server) -> None:
    server.expected = [
        Exchange(HEAD, 401, challenge()),
        token("T"),
        found(authorization="Bearer T"),
        found("HEAD /v2/app/manifests/2", "Bearer T"),
    ]
    registry = oci(server)
    assert registry.resolve("app", "1") == DIGEST
    assert registry.resolve("app", "2") == DIGEST


def test_a_token_for_a_login_and_for_each_repository(server: Server) -> None:
    other = token("O", BASIC)
    other.asked = other.asked.replace("app", "other")
    server.expected = [
        Exchange(GET, 401, challenge()),
        token("R", BASIC),
        Exchange(GET, 200, {"Content-Type": TYPE}, MANIFEST, "Bearer R"),
        Exchange("HEAD /v2/other/manifests/1", 401, challenge()),
        other,
        found("HEAD /v2/other/manifests/1", "Bearer O"),
    ]
    registry = oci(server, LOGIN)
    assert registry.manifest("app", DIGEST) == Manifest(DIGEST, TYPE, MANIFEST)
    assert registry.resolve("other", "1") == DIGEST


def test_a_token_that_has_ended_is_asked_for_again(server: Server) -> None:
    server.expected = [
        Exchange(HEAD, 401, challenge()),
        token("one", seconds=0),
        found(authorization="Bearer one"),
        Exchange(HEAD, 401, challenge()),
        token("two"),
        found(authorization="Bearer two"),
    ]
    registry = oci(server)
    registry.resolve("app", "1")
    registry.resolve("app", "1")


def test_a_wrong_password_at_the_token_service(server: Server) -> None:
    refused = token("", BASIC)
    refused.status = 401
    server.expected = [Exchange(HEAD, 401, challenge()), refused]
    with pytest.raises(RegistryDown, match=r"token service of .*: 401 Unauthorized") as caught:
        oci(server, LOGIN).resolve("app", "1")
    assert "hunter2" not in str(caught.value)


def test_a_repository_that_a_token_does_not_open(server: Server) -> None:
    """Docker Hub says so of a repository that does not exist: no fault of the registry as a whole."""
    server.expected = [Exchange(HEAD, 401, challenge()), token("T"), Exchange(HEAD, 401, challenge(), b"", "Bearer T")]
    with pytest.raises(Permanent, match="no such repository, or we may not see it"):
        oci(server).resolve("app", "1")


@pytest.mark.parametrize("realm", ["http://127.0.0.2:1/token", "https://thief.example/token", "ftp://{host}/", ""])
def test_a_login_goes_to_no_other_party(realm: str, server: Server) -> None:
    server.expected = [Exchange(HEAD, 401, challenge(realm))]
    with pytest.raises(RegistryDown, match="not its own: refused"):
        oci(server, LOGIN).resolve("app", "1")


@pytest.mark.parametrize(
    ("host", "other", "same"),
    [
        ("quay.io", "quay.io", True),
        ("registry-1.docker.io", "auth.docker.io", True),
        ("registry.gitlab.com", "gitlab.com", True),
        ("registry.gitlab.com", "thiefgitlab.com", False),
        ("quay.io", "thief.io", False),
        ("registry.example.co.uk", "thief.co.uk", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "evil.0.0.1", False),
    ],
)
def test_who_is_one_party(host: str, other: str, same: bool) -> None:
    assert _same_party(host, other) is same


def test_a_redirect_takes_no_credential_along(server: Server) -> None:
    other = Server()
    try:
        basic = {"WWW-Authenticate": 'Basic realm="test"'}
        server.expected = [
            Exchange(GET, 401, basic),
            Exchange(GET, 307, {"Location": f"http://{other.host}/blob?signature=x"}, authorization=BASIC),
            found("HEAD /v2/app/manifests/2", BASIC),
        ]
        other.expected = [Exchange("GET /blob?signature=x", 200, {"Content-Type": TYPE}, MANIFEST)]
        registry = oci(server, LOGIN)
        assert registry.manifest("app", DIGEST) == Manifest(DIGEST, TYPE, MANIFEST)
        assert registry.resolve("app", "2") == DIGEST
    finally:
        other.close()
    assert other.wrong == []


def test_redirects_end(server: Server) -> None:
    server.expected = [Exchange(HEAD, 307, {"Location": "http://{host}/v2/app/manifests/1"})] * 4
    with pytest.raises(Transient, match=r"redirects .* more than 3 times"):
        oci(server).resolve("app", "1")


# --- Manifests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [Exchange(HEAD, 200), Exchange(HEAD, 405)])
def test_a_registry_that_does_not_say_the_digest(head: Exchange, server: Server) -> None:
    server.expected = [head, Exchange("GET /v2/app/manifests/1", 200, {}, MANIFEST)]
    assert oci(server).resolve("app", "1") == DIGEST


def test_another_manifest_than_was_asked_for(server: Server) -> None:
    server.expected = [Exchange(GET, 200, {}, b"{}")]
    with pytest.raises(Transient, match="is not that manifest"):
        oci(server).manifest("app", DIGEST)


def test_a_signed_schema_1_manifest_is_told_by_what_it_is(server: Server) -> None:
    """Its digest leaves its signature out, so it is never that of its bytes."""
    signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    server.expected = [Exchange(GET, 200, {"Content-Type": signed}, b'{"schemaVersion":1,"signatures":[]}')]
    found = oci(server).manifest("app", DIGEST)
    assert found is not None
    assert "schema 1" in (unfit(found) or "")


def test_docker_hub_has_two_names_and_a_library() -> None:
    assert Oci("registry-1.docker.io").host == "docker.io"  # as which skopeo knows its library
    hub = Oci("docker.io")
    assert hub.host == "docker.io"
    assert (hub._base, hub._path("nginx"), hub._path("team/app")) == (
        "https://registry-1.docker.io",
        "library/nginx",
        "team/app",
    )


# --- Listings -------------------------------------------------------------------------------------------------------

TAGS = "GET /v2/app/tags/list?n=1000"


def page(*tags: str) -> bytes:
    return json.dumps({"name": "app", "tags": tags or None}).encode()


@pytest.mark.parametrize(
    "link", ["</v2/app/tags/list?last=1&n=1000>; rel=next", '<http://{host}/v2/app/tags/list?last=1&n=1000>;rel="next"']
)
def test_tags_by_pages(link: str, server: Server) -> None:
    server.expected = [
        Exchange(TAGS, 200, {"Link": link}, page("1")),
        found(),
        Exchange("GET /v2/app/tags/list?last=1&n=1000", 200, {"Link": '<x>; rel="prev"'}, page("2", "3")),
        found("HEAD /v2/app/manifests/2"),
        Exchange("HEAD /v2/app/manifests/3", 404),  # deleted in between
    ]
    assert list(oci(server).images("app")) == [Listed("1", DIGEST), Listed("2", DIGEST)]


def test_only_tags_that_matter_cost_a_request(server: Server) -> None:
    server.expected = [Exchange(TAGS, 200, {}, page("1", "dev")), found()]
    assert list(oci(server).images("app", tags="1".startswith)) == [Listed("1", DIGEST)]


def test_no_tags(server: Server) -> None:
    server.expected = [Exchange(TAGS, 200, {}, page())]
    assert list(oci(server).images("app")) == []


@pytest.mark.parametrize(
    ("link", "body", "words"),
    [
        ("<http://127.0.0.2:1/v2/app/tags/list>; rel=next", page(), "another host, 127.0.0.2:1"),
        ("</v2/app/tags/list?n=1000>; rel=next", page(), "round in a circle"),
        ("", b"<html>", "no JSON object"),
        ("", b"[1]", "no JSON object"),
    ],
)
def test_pages_that_cannot_be_followed(link: str, body: bytes, words: str, server: Server) -> None:
    server.expected = [Exchange(TAGS, 200, {"Link": link}, body)]
    with pytest.raises(Transient, match=words):
        list(oci(server).images("app"))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_public_registry_lists_no_repositories(status: int, server: Server) -> None:
    server.expected = [Exchange("GET /v2/_catalog?n=1000", status)]
    with pytest.raises(Permanent):
        list(oci(server).repositories())


# --- Referrers ------------------------------------------------------------------------------------------------------

INDEX = "application/vnd.oci.image.index.v1+json"
REFERRERS = f"GET /v2/app/referrers/{DIGEST}"
OTHERS = tuple("sha256:" + number * 64 for number in "123")
FALLBACK = f"/v2/app/manifests/{DIGEST.replace(':', '-')}"


def listing(*digests: str) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": [{"digest": digest} for digest in digests]}).encode()


def test_referrers_come_by_pages(server: Server) -> None:
    more = f"/v2/app/referrers/{DIGEST}?last=2"
    server.expected = [
        Exchange(REFERRERS, 200, {"Content-Type": INDEX, "Link": f"<{more}>; rel=next"}, listing(*OTHERS[:2])),
        Exchange(f"GET {more}", 200, {"Content-Type": f"{INDEX}; charset=utf-8"}, listing(OTHERS[2])),
    ]
    assert oci(server).referrers("app", DIGEST) == OTHERS


@pytest.mark.parametrize(
    "answer",
    [
        Exchange(REFERRERS, 404, {"Content-Type": "text/plain"}, b"404 page not found\n"),  # docker-registry 2.8
        Exchange(REFERRERS, 405, {}, b'{"errors":[{"code":"UNSUPPORTED"}]}'),
        Exchange(REFERRERS, 200, {"Content-Type": "text/html"}, b"<html>"),
    ],
    ids=lambda exchange: str(exchange.status),
)
def test_without_the_referrers_api_the_fallback_tag_has_them(answer: Exchange, server: Server) -> None:
    fallback = listing(*OTHERS)
    digest = "sha256:" + hashlib.sha256(fallback).hexdigest()
    server.expected = [
        answer,
        Exchange(f"HEAD {FALLBACK}", 200, {"Docker-Content-Digest": digest}),
        Exchange(f"GET /v2/app/manifests/{digest}", 200, {"Content-Type": INDEX}, fallback),
        answer,
        Exchange(f"HEAD {FALLBACK}", 404),
    ]
    registry = oci(server)
    assert registry.referrers("app", DIGEST) == OTHERS
    assert registry.referrers("app", DIGEST) == ()


# --- A login that changes -------------------------------------------------------------------------------------------


@dataclass
class Rotating:
    """A secret that holds the next login once the one before has been refused."""

    logins: list[Login]
    asked: int = 0

    def __call__(self, refused: Login | None) -> Login:
        self.asked += 1
        if refused == self.logins[0] and len(self.logins) > 1:
            self.logins.pop(0)
        return self.logins[0]


OLD = Login("relay", "old")
OLD_BASIC = "Basic " + base64.b64encode(b"relay:old").decode()
ASKS = {"WWW-Authenticate": 'Basic realm="test"'}


def test_nobody_is_asked_who_we_are_before_the_registry_wants_to_know(server: Server) -> None:
    secret = Rotating([LOGIN])
    server.expected = [found()]
    assert Oci(server.host, scheme="http", login=secret).resolve("app", "1") == DIGEST
    assert secret.asked == 0


def test_a_rotated_password_is_taken_up_when_the_old_one_is_refused(server: Server) -> None:
    server.expected = [
        Exchange(HEAD, 401, ASKS),
        Exchange(HEAD, 401, ASKS, authorization=OLD_BASIC),
        found(authorization=BASIC),
        found("HEAD /v2/app/manifests/2", BASIC),
    ]
    registry = Oci(server.host, scheme="http", login=Rotating([OLD, LOGIN]))
    assert registry.resolve("app", "1") == DIGEST
    assert registry.resolve("app", "2") == DIGEST
    assert registry.login() == LOGIN


def test_a_password_that_stays_wrong_is_sent_once(server: Server) -> None:
    server.expected = [Exchange(HEAD, 401, ASKS), Exchange(HEAD, 401, ASKS, authorization=BASIC)]
    with pytest.raises(RegistryDown, match=r"401 Unauthorized; put a login .* source\.credentials") as caught:
        Oci(server.host, scheme="http", login=Rotating([LOGIN])).resolve("app", "1")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_rotated_password_at_the_token_service(status: int, server: Server) -> None:
    refused = token("", OLD_BASIC)
    refused.status = status
    server.expected = [Exchange(HEAD, 401, challenge()), refused, token("T", BASIC), found(authorization="Bearer T")]
    assert Oci(server.host, scheme="http", login=Rotating([OLD, LOGIN])).resolve("app", "1") == DIGEST


# --- Limits ---------------------------------------------------------------------------------------------------------

# Docker Hub's words of 2025 (docker/hub-feedback issues 2429 and 2505), and its headers (docker/getting-started 101).
HUB_BODY = json.dumps(
    {
        "errors": [
            {
                "code": "TOOMANYREQUESTS",
                "message": "You have reached your unauthenticated pull rate limit. "
                "https://www.docker.com/increase-rate-limit",
            }
        ]
    }
).encode()


def test_docker_hubs_limit_of_pulls(server: Server) -> None:
    headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}
    server.expected = [Exchange(GET, 429, headers, HUB_BODY)]
    with pytest.raises(RegistryDown, match=r"pull rate limit.*; all 100 pulls of 6 hours are used up, and it"):
        oci(server).manifest("app", DIGEST)


def test_another_limit_than_that_of_pulls(server: Server) -> None:
    headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}
    server.expected = [Exchange(GET, 429, headers, b"Too Many Requests (HAP429)")]
    with pytest.raises(RegistryDown, match=r"429 Too Many Requests$"):
        oci(server).manifest("app", DIGEST)


def test_a_short_wait_is_waited_for_and_not_for_ever(server: Server) -> None:
    server.expected = [Exchange(HEAD, 429, {"Retry-After": "0"}), found()]
    assert oci(server).resolve("app", "1") == DIGEST
    server.expected = [Exchange(HEAD, 429, {"Retry-After": "0"})] * 3
    with pytest.raises(RegistryDown, match="it opens again in 0 s"):
        oci(server).resolve("app", "1")


# --- Refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exchange", "kind", "words"),
    [
        (
            Exchange(
                TAGS, 429, {"Retry-After": "60"}, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'
            ),
            RegistryDown,
            "429 Too Many Requests: toomanyrequests: slow down; it opens again in 60 s",
        ),
        (
            Exchange(TAGS, 404, {}, b'{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}'),
            Missing,
            "the tags of app in .*: 404 Not Found: name unknown: repository name not known",
        ),
        (Exchange(TAGS, 403, {}, b'{"errors":[{"code":"DENIED"}]}'), Permanent, "403 Forbidden: denied: "),
        (Exchange(TAGS, 401), RegistryDown, "401 Unauthorized"),
        (Exchange(TAGS, 500, {}, b"<html>"), Transient, "500 Internal Server Error"),
        (Exchange(TAGS, 418, {}, b'{"errors":"odd"}'), Transient, "418"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Exchange) else "",
)
def test_refusals(exchange: Exchange, kind: type[CopyError], words: str, server: Server) -> None:
    server.expected = [exchange]
    with pytest.raises(CopyError, match=words) as caught:
        list(oci(server).images("app"))
    assert type(caught.value) is kind


def test_by_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{server.host}")
    server.expected.append(found("HEAD http://registry.invalid/v2/app/manifests/1"))
    assert Oci("registry.invalid", scheme="http").resolve("app", "1") == DIGEST


def test_a_proxy_that_refuses_is_no_images_doing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{server.host}")
    server.expected += [Exchange("CONNECT registry.invalid:443", 403)] * 3
    with pytest.raises(RegistryDown, match="403"):
        Oci("registry.invalid").resolve("app", "1")


def test_past_the_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.expected.append(found())
    assert oci(server).resolve("app", "1") == DIGEST
