"""What a push leaves behind besides its image, on the local cloud: metrics in both logs, an event, lines to follow."""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local import images
from local.deploy import ROOT, Clients
from local.up import LocalCloud
from tests.e2e.test_pipeline import Relay


@pytest.fixture
def relay(cloud: LocalCloud, tmp_path: Path) -> Relay:
    return Relay(cloud, tmp_path)


def logged(cloud: LocalCloud, *, copier: bool = False) -> list[dict[str, Any]]:
    """Every line of the consumer, or of all copy tasks, as CloudWatch Logs gets it."""
    logs, clients = [], cloud.clients
    groups = clients("logs").describe_log_groups()["logGroups"]
    for name in [group["logGroupName"] for group in groups]:
        if ("Copier" in name) if copier else ("Consumer" in name):
            for page in clients("logs").get_paginator("filter_log_events").paginate(logGroupName=name):
                logs += [event["message"] for event in page["events"]]
    return [json.loads(line) for text in logs for line in text.splitlines() if line.startswith("{")]


def consumer_lines(cloud: LocalCloud) -> list[dict[str, Any]]:
    files = Path(cloud.endpoints.log_dir).glob("lambda-*onsumer*.log")
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def metrics(lines: list[dict[str, Any]]) -> set[str]:
    """Names of what CloudWatch would take for a metric of this stack."""
    return {
        metric["Name"]
        for line in lines
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", ())
        for metric in directive["Metrics"]
        if directive["Namespace"] == "ecr-relay" and line["stack"]
    }


@pytest.fixture
def heard(clients: Clients) -> Iterator[str]:
    """The URL of a queue that gets the relay's own events from the default bus."""
    name = f"heard-{uuid.uuid4().hex[:8]}"
    sqs, events = clients("sqs"), clients("events")
    url = str(sqs.create_queue(QueueName=name)["QueueUrl"])
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": ["ecr-relay"], "detail-type": ["Image Relayed", "Image Relay Failed"]}
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
    yield url
    events.remove_targets(Rule=name, Ids=["queue"])
    events.delete_rule(Name=name)
    sqs.delete_queue(QueueUrl=url)


def test_a_push_is_measured_announced_and_can_be_followed(
    relay: Relay, cloud: LocalCloud, clients: Clients, heard: str
) -> None:
    repository = relay.name()
    made = images.single(relay.folder / "it", uuid.uuid4().hex)
    relay.push(made, f"{repository}:1.0")
    relay.arrives(f"{repository}:1.0", made.manifest)

    received: list[dict[str, Any]] = []

    def came() -> bool:
        messages = clients("sqs").receive_message(QueueUrl=heard, MaxNumberOfMessages=10).get("Messages", [])
        received.extend(json.loads(message["Body"]) for message in messages)
        return any(event["detail"]["repository"] == repository for event in received)

    relay.until(came, 30, "the event on the bus")
    [event] = [event for event in received if event["detail"]["repository"] == repository]
    assert (event["source"], event["detail-type"]) == ("ecr-relay", "Image Relayed")
    detail = event["detail"]
    assert (detail["destination"], detail["tag"], detail["digest"]) == ("west", "1.0", made.digest)
    assert 0 <= detail["lag_milliseconds"] < 60_000

    lines = consumer_lines(cloud)
    assert {"pushes", "copied", "arrived", "failed", "lag", "age"} <= metrics(lines)
    [copied] = [line for line in lines if line["message"] == "copied" and line.get("repository") == repository]
    assert copied["message_id"] == detail["message_id"]
    assert copied["run"] == detail["run"]

    # The copier's lines name the run and the message that they are about.
    ours: list[dict[str, Any]] = []

    def ended() -> bool:
        ours[:] = [line for line in logged(cloud, copier=True) if line.get("run") == copied["run"]]
        return "end" in {line["message"] for line in ours}

    relay.until(ended, 30, "the copier's last line")
    assert {"task_start", "bytes"} <= metrics(ours)
    [there] = [line for line in ours if line["message"] == "copied"]
    assert (there["message_id"], there["attempt"]) == (copied["message_id"], 1)

    # The runbook's one query finds the way from the decision to the image, and every field of it means something.
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    fields = re.search(r"^fields @timestamp, (.+)$", text, re.MULTILINE)
    assert fields
    followed = [line for line in [*lines, *ours] if line.get("repository") == repository]
    found = {line["message"] for line in followed if line.get("tag") == "1.0" or line.get("digest") == made.digest}
    assert {"launched", "copied", "tag"} <= found
    said = {name for line in followed for name in line}
    asked = set(fields[1].split(", "))
    of_trouble = {"interruptions", "seconds", "class", "error"}
    assert asked - of_trouble <= said
