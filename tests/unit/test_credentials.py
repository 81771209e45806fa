"""Who we are at a registry: STS and Secrets Manager by moto; what was really sent is seen in botocore's events."""

import json
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError
from moto import mock_aws

from ecr_relay import credentials
from ecr_relay.config import Credentials, EcrRegistry, OciSource
from ecr_relay.errors import RegistryDown
from ecr_relay.registries import Login
from ecr_relay.registries.ecr import Ecr
from ecr_relay.registries.oci import Oci

OURS, THEIRS = "123456789012", "210987654321"
REGION = "eu-west-1"
ROLE = f"arn:aws:iam::{THEIRS}:role/mirror"
SECRET = "mirror-keys"


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOURS")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ours")
        yield


class Watched:
    """A session, and what is sent by it and by all that is made of it."""

    def __init__(self) -> None:
        self.sent: list[AWSPreparedRequest] = []
        botocore_session = botocore.session.Session()
        botocore_session.register("before-send", self._note)
        self.session = boto3.Session(botocore_session=botocore_session)

    def _note(self, **event: Any) -> None:
        self.sent.append(event["request"])

    def registry(self, **settings: Any) -> Ecr:
        return credentials.registry(EcrRegistry(region=REGION, account=THEIRS, **settings), self.session)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def secret(content: Any) -> str:
    client = boto3.client("secretsmanager", region_name="us-west-2")
    text = content if isinstance(content, str) else json.dumps(content)
    return client.create_secret(Name=SECRET, SecretString=text)["ARN"]


def key_of(ecr: Ecr) -> str:
    """The access key that signs the registry's calls."""
    keys: list[str] = []

    def note(request: AWSPreparedRequest, **_: Any) -> None:
        authorization = request.headers["Authorization"]
        text = authorization.decode() if isinstance(authorization, bytes) else str(authorization)
        keys.append(text.partition("Credential=")[2].partition("/")[0])

    ecr._client.meta.events.register("before-send.ecr", note)
    ecr.login()
    return keys[0]


def test_the_programs_own_role(watched: Watched) -> None:
    ecr = watched.registry()
    assert key_of(ecr) == "AKIAOURS"
    assert ecr.host == f"{THEIRS}.dkr.ecr.{REGION}.amazonaws.com"


def test_the_environments_session_by_default() -> None:
    assert key_of(credentials.registry(EcrRegistry(region=REGION, account=OURS))) == "AKIAOURS"


def test_an_endpoint_of_its_own(watched: Watched) -> None:
    ecr = watched.registry(endpoint="https://vpce-1.api.ecr.eu-west-1.vpce.amazonaws.com")
    assert ecr._client.meta.endpoint_url == "https://vpce-1.api.ecr.eu-west-1.vpce.amazonaws.com"
    assert ecr._put_client.meta.endpoint_url == ecr._client.meta.endpoint_url


def test_a_role_is_assumed_once_and_when_it_is_needed(watched: Watched) -> None:
    ecr = watched.registry(credentials=Credentials(role_arn=ROLE, external_id="shibboleth"))
    assert watched.sent == []
    assert key_of(ecr) not in ("", "AKIAOURS")
    ecr.login()
    [asked] = watched.sent
    assert asked.url.startswith("https://sts.us-east-1.amazonaws.com")
    body = asked.body.decode() if isinstance(asked.body, bytes) else str(asked.body)
    assert "RoleSessionName=ecr-relay" in body
    assert "ExternalId=shibboleth" in body


def test_a_key_pair_is_read_where_the_secret_lies_and_not_for_every_call(watched: Watched) -> None:
    arn = secret({"access_key_id": "AKIATHEIRS", "secret_access_key": "theirs"})
    ecr = watched.registry(credentials=Credentials(secret_arn=arn))
    assert watched.sent == []
    assert key_of(ecr) == "AKIATHEIRS"
    ecr.login()
    assert [each.url for each in watched.sent] == ["https://secretsmanager.us-west-2.amazonaws.com/"]


def test_a_rotated_key_pair_is_picked_up(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = secret({"access_key_id": "AKIAOLD", "secret_access_key": "old"})
    monkeypatch.setattr(credentials, "SECRET_AGE", credentials.SECRET_AGE * 0)
    ecr = watched.registry(credentials=Credentials(secret_arn=arn))
    assert key_of(ecr) == "AKIAOLD"
    rotated = json.dumps({"access_key_id": "AKIANEW", "secret_access_key": "new"})
    boto3.client("secretsmanager", region_name="us-west-2").put_secret_value(SecretId=SECRET, SecretString=rotated)
    assert key_of(ecr) == "AKIANEW"


def refusing(ecr: Ecr, key: str) -> list[str]:
    """From now on ECR refuses that key; the keys that it is asked with."""
    keys: list[str] = []

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        authorization = request.headers["Authorization"]
        text = authorization.decode() if isinstance(authorization, bytes) else str(authorization)
        keys.append(text.partition("Credential=")[2].partition("/")[0])
        if keys[-1] != key:
            return None
        body = b'{"__type": "UnrecognizedClientException", "message": "The security token is invalid."}'
        return AWSResponse(request.url, 400, HTTPHeaders(), SimpleNamespace(stream=lambda: iter([body])))

    events: Any = ecr._client.meta.events
    events.register_first("before-send.ecr", answer)
    return keys


def test_a_key_pair_that_is_refused_is_read_anew_and_the_call_repeated(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    ecr = watched.registry(
        credentials=Credentials(secret_arn=secret({"access_key_id": "AKIAOLD", "secret_access_key": "old"}))
    )
    ecr.login()
    keys = refusing(ecr, "AKIAOLD")
    rotate({"access_key_id": "AKIANEW", "secret_access_key": "new"})
    with pytest.raises(RegistryDown, match="UnrecognizedClientException"):  # it was read just now
        ecr.resolve("app", "1")
    monkeypatch.setattr(credentials, "REFUSED_AGE", timedelta(0))
    assert ecr.resolve("app", "1") is None
    assert keys == ["AKIAOLD", "AKIAOLD", "AKIAOLD", "AKIANEW"]
    assert len(watched.sent) == 2


def test_a_key_pair_that_stays_refused_is_tried_twice(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "REFUSED_AGE", timedelta(0))
    ecr = watched.registry(
        credentials=Credentials(secret_arn=secret({"access_key_id": "AKIAOLD", "secret_access_key": "old"}))
    )
    keys = refusing(ecr, "AKIAOLD")
    with pytest.raises(RegistryDown, match="UnrecognizedClientException"):
        ecr.has("app", "sha256:" + "0" * 64)
    assert keys == ["AKIAOLD", "AKIAOLD"]


@pytest.mark.parametrize(
    "content",
    ["hunter2", "[]", {"access_key_id": "AKIA"}, {"access_key_id": "AKIA", "secret_access_key": 7}, "null"],
)
def test_a_secret_without_its_keys(content: Any, watched: Watched) -> None:
    ecr = watched.registry(credentials=Credentials(secret_arn=secret(content)))
    with pytest.raises(RegistryDown, match="the texts access_key_id and secret_access_key") as caught:
        ecr.login()
    assert "hunter2" not in str(caught.value)
    assert "AKIA" not in str(caught.value)


def test_no_such_secret(watched: Watched) -> None:
    arn = f"arn:aws:secretsmanager:us-west-2:{OURS}:secret:nothing-a1b2c3"
    ecr = watched.registry(credentials=Credentials(secret_arn=arn))
    with pytest.raises(RegistryDown, match=f"reading secret {arn}: GetSecretValue: ResourceNotFoundException: "):
        ecr.resolve("app", "1")


def test_a_role_that_we_may_not_assume(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        answer: Any = {"Error": {"Code": "AccessDenied", "Message": "not authorized to perform: sts:AssumeRole"}}
        raise ClientError(answer, "AssumeRole")

    ecr = watched.registry(credentials=Credentials(role_arn=ROLE))
    watched.session.events.register("before-send.sts", refuse)
    with pytest.raises(RegistryDown, match=f"assuming {ROLE}: AssumeRole: AccessDenied: not authorized"):
        ecr.has("app", "sha256:" + "0" * 64)


LOGIN_SECRET = {"username": "relay", "password": "hunter2"}


def source(watched: Watched, arn: str) -> Oci:
    table = {"type": "oci", "host": "registry.example.com", "credentials": {"secret_arn": arn}}
    return credentials.registry(OciSource.model_validate(table), watched.session)


def rotate(content: Any) -> None:
    boto3.client("secretsmanager", region_name="us-west-2").put_secret_value(
        SecretId=SECRET, SecretString=json.dumps(content)
    )


def test_a_login_is_read_when_it_is_needed_and_kept(watched: Watched) -> None:
    registry = source(watched, secret(LOGIN_SECRET))
    assert watched.sent == []
    assert registry.login() == Login("relay", "hunter2")
    rotate({"username": "relay", "password": "new"})
    assert registry.login() == Login("relay", "hunter2")
    assert len(watched.sent) == 1


def test_a_login_that_is_old_or_refused_is_read_anew(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = source(watched, secret(LOGIN_SECRET))
    old = registry.login()
    rotate({"username": "relay", "password": "new"})
    assert registry._ask(old) == old  # read just now, so it is as new as can be
    monkeypatch.setattr(credentials, "REFUSED_AGE", timedelta(0))
    assert registry._ask(old) == Login("relay", "new")
    rotate({"username": "relay", "password": "newer"})
    assert registry._ask(old) == Login("relay", "new")  # which nobody has refused yet
    monkeypatch.setattr(credentials, "SECRET_AGE", timedelta(0))
    assert registry.login() == Login("relay", "newer")


def test_a_login_without_its_keys(watched: Watched) -> None:
    registry = source(watched, secret({"token": "hunter2"}))
    with pytest.raises(RegistryDown, match="the texts username and password") as caught:
        registry.login()
    assert "hunter2" not in str(caught.value)
