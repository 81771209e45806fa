"""A copy's own log lines, from its task's stream in CloudWatch Logs."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from botocore.exceptions import ClientError
from pydantic import Field

from ecr_relay.errors import RelayError
from ecr_relay.images import Reference
from ecr_relay.ledger import DigestRecord
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.failures import code_of
from ecr_relay.operate.shapes import Shape, at, log_stream, task_id

_PAGES: Final = 100
"""Of up to 1 MB each; a copy task writes a few lines an image."""


class Line(Shape):
    timestamp: datetime | None
    level: str
    message: str
    fields: dict[str, Any] = Field(description="the rest of the line: run, repository, digest, error …")


class CopyLog(Shape):
    """The last run that had the image, at one destination."""

    destination: str
    repository: str
    digest: str
    run: str | None
    task: str | None
    log_group: str
    log_stream: str | None
    lines: list[Line]


class CopyLogs(Shape):
    logs: list[CopyLog]


def of_image(
    deployment: Deployment, image: Reference, destination: str | None = None, *, lines: int = 1000
) -> CopyLogs:
    """One for each destination whose ledger knows a run of it. Raises RelayError when none does."""
    found = []
    for name in deployment.destinations(destination):
        record = _record(deployment, image, name)
        if record is not None and record.run is not None:
            found.append(_log(deployment, image, name, record, lines))
    if not found:
        raise RelayError(f"the ledger knows no copy of {image}; `ecr-relay explain {image}` says what it knows")
    return CopyLogs(logs=found)


def of_run(deployment: Deployment, stream: str, digest: str | None, lines: int) -> list[Line]:
    """The stream's last lines that are about `digest` or about no image in particular; none if it is gone."""
    try:
        found = [line for line in _read(deployment, stream) if line.fields.get("digest", digest) == digest]
    except ClientError as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
        return []
    return found[-lines:]


def _log(deployment: Deployment, image: Reference, destination: str, record: DigestRecord, lines: int) -> CopyLog:
    run = deployment.ledger.runs.get(record.run or "")
    stream = log_stream(run)
    return CopyLog(
        destination=destination,
        repository=image.repository,
        digest=record.digest,
        run=record.run,
        task=task_id(run),
        log_group=deployment.outputs.copier_log_group,
        log_stream=stream,
        lines=of_run(deployment, stream, record.digest, lines) if stream else [],
    )


def _record(deployment: Deployment, image: Reference, destination: str) -> DigestRecord | None:
    target = deployment.target(destination, image.repository)
    digest = image.digest
    if digest is None and image.tag is not None:
        digest = deployment.ledger.tags.get(target, image.tag).digest
        # A tag that was never put has no digest in the ledger; the source knows which one is wanted.
        digest = digest or deployment.relay.source.resolve(image.repository, image.tag)
    return None if digest is None else deployment.ledger.digests.get(target, digest)


def _read(deployment: Deployment, stream: str) -> Iterator[Line]:
    arguments: dict[str, Any] = {
        "logGroupName": deployment.outputs.copier_log_group,
        "logStreamName": stream,
        "startFromHead": True,
    }
    for _ in range(_PAGES):
        answer = deployment.logs.get_log_events(**arguments)
        for event in answer["events"]:
            yield _line(event["message"], event["timestamp"])
        # The end is where the token stays the same (CloudWatch Logs API reference).
        if answer["nextForwardToken"] == arguments.get("nextToken"):
            return
        arguments["nextToken"] = answer["nextForwardToken"]


def _line(text: str, milliseconds: int) -> Line:
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return Line(timestamp=at(milliseconds), level="", message=text.rstrip(), fields={})
    level, message = str(fields.pop("level", "")), str(fields.pop("message", ""))
    for name in ("timestamp", "_aws"):  # the latter makes a metric of a line
        fields.pop(name, None)
    return Line(timestamp=at(milliseconds), level=level, message=message, fields=fields)
