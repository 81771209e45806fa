"""How a registry wants to know who we are: Basic, or a token of the service that it names (RFC 7235, RFC 6750 and
https://distribution.github.io/distribution/spec/auth/token/)."""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit

import urllib3

from ecr_relay.errors import RegistryDown, Transient, classify
from ecr_relay.registries import Login

_PARAMETER: Final = re.compile(r'(\w+)="([^"]*)"')
REMEDY: Final = "put a login that it takes into the secret that source.credentials names"
_TOKEN_SECONDS: Final = 60
"""How long a token is good that does not say it (token specification, "expires_in")."""


Ask = Callable[[Login | None], Login | None]
"""Who we are, None for anonymous. Given a login that was refused, another one if there is a newer."""


class Authorizer:
    """The Authorization header for one registry at `base` (scheme and host). Tokens are kept while they are good."""

    def __init__(self, pool: urllib3.PoolManager, base: str, ask: Ask) -> None:
        self._pool = pool
        self._base = base
        self._ask = ask
        self._lock = threading.Lock()
        self._basic: Login | None = None
        self._tokens: dict[str, tuple[str, float]] = {}

    def header(self, scope: str) -> dict[str, str]:
        """What is known to be wanted for `scope`; empty before the registry has asked for anything."""
        with self._lock:
            if self._basic:
                return {"Authorization": _basic(self._basic)}
            token, until = self._tokens.get(scope, ("", 0.0))
            return {"Authorization": f"Bearer {token}"} if token and time.monotonic() < until else {}

    def answer(self, challenge: str, scope: str, sent: Mapping[str, str]) -> dict[str, str]:
        """To the `WWW-Authenticate` of a 401; empty if there is nothing that was not `sent` already."""
        kind = challenge.partition(" ")[0].lower()
        if kind == "basic":
            login = self._ask(None)
            if login and sent.get("Authorization") == _basic(login):
                login = self._newer(login)
            if login is None:
                return {}
            with self._lock:
                self._basic = login
            return {"Authorization": _basic(login)}
        if kind != "bearer":
            return {}
        parameters = dict(_PARAMETER.findall(challenge))
        token, seconds = self._token(parameters.get("realm", ""), parameters.get("service", ""), scope)
        with self._lock:
            # A little less than promised: the request must still arrive with it.
            self._tokens[scope] = token, time.monotonic() + max(seconds - 10, seconds / 2)
        return {"Authorization": f"Bearer {token}"}

    def _newer(self, refused: Login) -> Login | None:
        login = self._ask(refused)
        return login if login != refused else None

    def _token(self, realm: str, service: str, scope: str) -> tuple[str, float]:
        query = urlencode({name: value for name, value in (("service", service), ("scope", scope)) if value})
        login = self._ask(None)
        if login:
            self._check(realm)
        elif not realm.startswith(("https://", "http://")):
            raise RegistryDown(f"{self._base} names no usable token service: {realm!r}")
        url = f"{realm}{'&' if '?' in realm else '?'}{query}"
        answer = self._asked(url, login)
        # GHCR says 403 to a token of its own that it does not take any more.
        if answer.status in (401, 403) and login and (newer := self._newer(login)):
            answer = self._asked(url, newer)
        what = f"token service of {self._base} at {urlsplit(realm).netloc}"
        if answer.status != 200:
            remedy = f"; {REMEDY}" if answer.status == 401 else ""
            raise classify(f"{answer.status} {answer.reason}")(f"{what}: {answer.status} {answer.reason}{remedy}")
        try:
            content = json.loads(answer.data)
            return content.get("token") or content["access_token"], float(content.get("expires_in", _TOKEN_SECONDS))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Transient(f"{what}: the answer holds no token") from None

    def _asked(self, url: str, login: Login | None) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": _basic(login)} if login else {}
        return self._pool.request("GET", url, headers=headers, redirect=False)

    def _check(self, realm: str) -> None:
        """Raises RegistryDown where a login must not go: to another party, or out of TLS."""
        ours, theirs = urlsplit(self._base), urlsplit(realm)
        safe = theirs.scheme == "https" or (theirs.scheme, theirs.netloc) == (ours.scheme, ours.netloc)
        if not safe or not _same_party(ours.hostname or "", theirs.hostname or ""):
            raise RegistryDown(f"{self._base} asks to send the login to {realm!r}, which is not its own: refused")


def _same_party(host: str, other: str) -> bool:
    """The same host, or in one domain: registry-1.docker.io and auth.docker.io, registry.gitlab.com and gitlab.com."""
    if host == other:
        return True
    domain = host.partition(".")[2]
    # Neither an address nor a top-level domain has a right to speak for its neighbours.
    if "." not in domain or domain.rpartition(".")[2].isdigit():
        return False
    return other == domain or other.endswith("." + domain)


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
