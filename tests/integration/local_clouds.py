"""Two MiniStacks, one as it is and one corrected, and what the tests of its gaps do with both."""

import contextlib
import functools
import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import urllib3
from botocore.exceptions import ClientError

from local import images
from local.servers import Place, Servers, servers

SOURCE: Final[Place] = ("000000000000", "us-east-1")
DESTINATION: Final[Place] = ("111122223333", "eu-west-1")

NETWORK: Final = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}}
"""What RunTask wants of a task in awsvpc mode; MiniStack needs neither to exist."""

_HTTP: Final = urllib3.PoolManager(retries=False, timeout=30)


@dataclass(frozen=True, slots=True)
class Case:
    """Something that AWS does. `observe` asks a cloud; `aws` is what AWS would answer."""

    name: str
    observe: Callable[[Servers], Any]
    aws: Any


def case(cases: list[Case], aws: Any) -> Callable[[Callable[[Servers], Any]], Callable[[Servers], Any]]:
    """Enter the decorated function into `cases`, under its name. An AWS error is observed as its code."""

    def enter(observe: Callable[[Servers], Any]) -> Callable[[Servers], Any]:
        @functools.wraps(observe)
        def observed(cloud: Servers) -> Any:
            try:
                return observe(cloud)
            except ClientError as error:
                return error.response["Error"]["Code"]

        cases.append(Case(observe.__name__, observed, aws))
        return observe

    return enter


def parametrized(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("gap", cases, ids=lambda case: case.name)


def cloud(folder: Path, *, corrected: bool) -> contextlib.AbstractContextManager[Servers]:
    """One of the two. Its tasks are shell scripts, so that what the engine does is seen without the copier."""
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text('FROM scratch\nENTRYPOINT ["sh", "-c"]\n', encoding="utf-8")
    return servers(folder, SOURCE, [DESTINATION], dockerfile=dockerfile, corrected=corrected)


def both(folders: pytest.TempPathFactory) -> Iterator[tuple[Servers, Servers]]:
    """(as it is, corrected)"""
    with (
        cloud(folders.mktemp("as-it-is"), corrected=False) as raw,
        cloud(folders.mktemp("corrected"), corrected=True) as corrected,
    ):
        yield raw, corrected


def repository(cloud: Servers, place: Place = SOURCE, **settings: Any) -> str:
    """A new repository's name."""
    name = f"gap/{uuid.uuid4().hex[:8]}"
    cloud.at(place)("ecr").create_repository(repositoryName=name, **settings)
    return name


def token(cloud: Servers, place: Place) -> str:
    answer = cloud.at(place)("ecr").get_authorization_token()
    return str(answer["authorizationData"][0]["authorizationToken"])


def http(cloud: Servers, place: Place, method: str, path: str, **request: Any) -> urllib3.BaseHTTPResponse:
    """A request to a registry."""
    host = cloud.registry(place).host
    return _HTTP.request(method, f"http://{host}{path}", **request)


def error_code(answer: urllib3.BaseHTTPResponse) -> str:
    """The registry's error code, or its status when there is no error."""
    errors = answer.json().get("errors") if answer.status >= 400 and answer.data else None
    return str(errors[0]["code"]) if errors else str(answer.status)


def skopeo(cloud: Servers, made: images.Made, repository: str, tag: str) -> None:
    """Push to the source's registry."""
    target = f"docker://{cloud.registry(SOURCE).host}/{repository}:{tag}"
    command = ["skopeo", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]
    subprocess.run([*command, made.source, target], check=True, capture_output=True, timeout=60)


def put_blob(cloud: Servers, repository: str, data: bytes, digest: str, place: Place = SOURCE) -> None:
    authorization = {"Authorization": f"Basic {token(cloud, place)}"}
    path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
    answer = http(cloud, place, "POST", path, body=data, headers=authorization)
    assert answer.status == 201, answer.data


def put_manifest(
    cloud: Servers, repository: str, reference: str, made: images.Made, place: Place = SOURCE
) -> urllib3.BaseHTTPResponse:
    headers = {"Authorization": f"Basic {token(cloud, place)}", "Content-Type": made.media_type}
    path = f"/v2/{repository}/manifests/{reference}"
    return http(cloud, place, "PUT", path, body=made.manifest, headers=headers)


def put_image(cloud: Servers, repository: str, made: images.Made, **named: Any) -> Any:
    """PutImage at the source."""
    return cloud.clients("ecr").put_image(
        repositoryName=repository,
        imageManifest=made.manifest.decode(),
        imageManifestMediaType=made.media_type,
        imageDigest=named.pop("digest", made.digest),
        **named,
    )


def event_queue(cloud: Servers, place: Place = SOURCE) -> str:
    """The URL of a queue that gets every ECR event of an account and region."""
    clients = cloud.at(place)
    name = f"events-{uuid.uuid4().hex[:8]}"
    sqs, events = clients("sqs"), clients("events")
    url = str(sqs.create_queue(QueueName=name)["QueueUrl"])
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name=name, EventPattern=json.dumps({"source": ["aws.ecr"]}))
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
    return url


def receive(cloud: Servers, queue: str, count: int, place: Place = SOURCE, seconds: float = 1.5) -> list[Any]:
    """Up to `count` bodies from a queue, waiting `seconds` for the last."""
    sqs = cloud.at(place)("sqs")
    found: list[Any] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=0)
        for message in answer.get("Messages", []):
            found.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        time.sleep(0.05)
    return found
