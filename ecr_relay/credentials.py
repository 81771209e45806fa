"""From a registry's configuration to a client for it: by the program's own role, a role to assume, or a key pair.

Nothing is asked for before the first call that needs it; then it is kept, and renewed before it ends, or when it is
refused. What is refused then is refused for every image, so it is RegistryDown, out of the call that needed it.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, overload

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)

from ecr_relay import config
from ecr_relay.errors import RegistryDown
from ecr_relay.registries import Login, Registry
from ecr_relay.registries.aws import CLIENT, PUT_CLIENT, translated
from ecr_relay.registries.ecr import Ecr
from ecr_relay.registries.oci import Oci

if TYPE_CHECKING:
    from mypy_boto3_ecr.client import ECRClient
    from mypy_boto3_sts.type_defs import AssumeRoleRequestTypeDef

SESSION_NAME: Final = "ecr-relay"
"""How an assumed role's calls are signed in CloudTrail."""

SECRET_AGE: Final = timedelta(minutes=15)
"""How long a key pair or a login is used before the secret is read again, so that a rotated one is picked up."""

REFUSED_AGE: Final = timedelta(seconds=10)
"""What is refused is read anew, unless it has been just now: one that is wrong is no reason to ask all day."""

# botocore renews what ends within 15 minutes (RefreshableCredentials), so this much is added to the age.
_RENEWED_BEFORE: Final = timedelta(minutes=15)
# Of who signs a request, not of what it asks (common error types of AWS's APIs).
_REFUSED: Final = {
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "UnrecognizedClientException",
}
_KEYS: Final = ("access_key_id", "secret_access_key")

Metadata = Mapping[str, str | None]
"""What botocore's RefreshableCredentials wants of a refresh."""


@overload
def registry(registry: config.EcrRegistry, session: boto3.Session | None = None) -> Ecr: ...


@overload
def registry(registry: config.OciSource, session: boto3.Session | None = None) -> Oci: ...


def registry(registry: config.EcrRegistry | config.OciSource, session: boto3.Session | None = None) -> Registry:
    """The registry that `registry` describes. `session` is who we are to begin with; default: the environment's."""
    own = session or boto3.Session()
    if isinstance(registry, config.OciSource):
        login = _SecretLogin(own, registry.credentials.secret_arn) if registry.credentials else None
        scheme = "http" if registry.plain_http else "https"
        return Oci(registry.host, scheme=scheme, login=login, ca_certificate=registry.ca_certificate)
    there = _become(own, registry.credentials, registry.region) if registry.credentials else own

    def client(settings: Config) -> "ECRClient":
        return there.client("ecr", region_name=registry.region, endpoint_url=registry.endpoint, config=settings)

    return Ecr(client(CLIENT), registry.account, put_client=client(PUT_CLIENT))


def _become(own: boto3.Session, credentials: config.Credentials, region: str) -> boto3.Session:
    if credentials.role_arn:
        fetch = _role(own, credentials.role_arn, credentials.external_id, region)
    else:
        fetch = _key_pair(own, credentials.secret_arn or "")
    # What it logs with a traceback we raise as a sentence.
    logging.getLogger("botocore.credentials").setLevel(logging.ERROR)
    session = botocore.session.Session()
    fetched = _Fetched(fetch)
    session.register_component("credential_provider", CredentialResolver([_Provider(fetched)]))
    session.register("needs-retry.ecr", fetched.once_more)  # type: ignore[arg-type] # the stubs know no answer
    return boto3.Session(botocore_session=session)


class _Fetched(DeferredRefreshableCredentials):
    """Fetched when they are needed first, and again when they are old or have been refused."""

    def __init__(self, fetch: Callable[[], Metadata]) -> None:
        super().__init__(self._fetch_now, _Provider.METHOD)
        self._fetch = fetch
        self._fetched_at = 0.0
        self._refused = False

    def refresh_needed(self, refresh_in: int | None = None) -> bool:
        return self._refused or super().refresh_needed(refresh_in)

    def _fetch_now(self) -> Metadata:
        self._fetched_at, self._refused = time.monotonic(), False
        return self._fetch()

    def once_more(self, response: tuple[object, dict[str, Any]] | None, attempts: int, **_: object) -> float | None:
        """botocore's `needs-retry`: seconds to wait before a call is signed and sent again, None if it is not."""
        if response is None or attempts > 1 or response[1].get("Error", {}).get("Code") not in _REFUSED:
            return None
        if time.monotonic() - self._fetched_at > REFUSED_AGE.total_seconds():
            self._refused = True
        return 0.0


class _Provider(CredentialProvider):
    METHOD = "ecr-relay"

    def __init__(self, fetched: _Fetched) -> None:
        super().__init__()
        self._fetched = fetched

    def load(self) -> _Fetched:
        return self._fetched


def _role(own: boto3.Session, arn: str, external_id: str | None, region: str) -> Callable[[], Metadata]:
    def fetch() -> Metadata:
        request: AssumeRoleRequestTypeDef = {"RoleArn": arn, "RoleSessionName": SESSION_NAME}
        if external_id:
            request["ExternalId"] = external_id
        with translated(f"assuming {arn}"):
            answer = own.client("sts", region_name=own.region_name or region, config=CLIENT).assume_role(**request)
        credentials = answer["Credentials"]
        return {
            "access_key": credentials["AccessKeyId"],
            "secret_key": credentials["SecretAccessKey"],
            "token": credentials["SessionToken"],
            "expiry_time": credentials["Expiration"].isoformat(),
        }

    return fetch


class _SecretLogin:
    """A `challenge.Ask`: read when it is needed first, and again when it is old or has been refused."""

    def __init__(self, own: boto3.Session, arn: str) -> None:
        self._own = own
        self._arn = arn
        self._lock = threading.Lock()
        self._login: Login | None = None
        self._read_at = 0.0

    def __call__(self, refused: Login | None) -> Login:
        with self._lock:
            age = timedelta(seconds=time.monotonic() - self._read_at)
            if self._login is None or age > SECRET_AGE or (refused == self._login and age > REFUSED_AGE):
                self._login = Login(*_secret(self._own, self._arn, ("username", "password")))
                self._read_at = time.monotonic()
            return self._login


def _secret(own: boto3.Session, arn: str, keys: tuple[str, str]) -> tuple[str, str]:
    # The secret lies where its ARN says: arn:partition:secretsmanager:region:…
    client = own.client("secretsmanager", region_name=arn.split(":")[3], config=CLIENT)
    with translated(f"reading secret {arn}"):
        text = client.get_secret_value(SecretId=arn).get("SecretString", "")
    try:
        content = json.loads(text)
        first, second = (content[key].strip() for key in keys)
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not a word of what it holds.
        raise RegistryDown(f"secret {arn}: must be a JSON object with the texts {' and '.join(keys)}") from None
    return first, second


def _key_pair(own: boto3.Session, arn: str) -> Callable[[], Metadata]:
    def fetch() -> Metadata:
        access_key, secret_key = _secret(own, arn, _KEYS)
        return {
            "access_key": access_key,
            "secret_key": secret_key,
            "token": None,
            "expiry_time": (datetime.now(UTC) + SECRET_AGE + _RENEWED_BEFORE).isoformat(),
        }

    return fetch
