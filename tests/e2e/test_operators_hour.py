"""An operator's hour: an image breaks, and is found, understood, mended and redriven, by the commands alone.

What cannot be shown here: SNS's mail. The alarm's condition is looked at instead, in what the alarm looks at, and the
failures in the relay's own metrics.
"""

import json
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import urllib3

from ecr_relay.metrics import FAILURES, NAMESPACE, STACK, Metric
from local import images
from local.deploy import ROOT
from local.up import LocalCloud
from tests.e2e.test_pipeline import Relay

http = urllib3.PoolManager(retries=False, timeout=30)


class Operator:
    """At a terminal, with `--state` set."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._state = str(Path(cloud.endpoints.log_dir).parent)

    def run(self, *arguments: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
        command = [str(ROOT / ".venv" / "bin" / "ecr-relay"), *arguments, "--state", self._state]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == status, f"{arguments}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", status=status).stdout)


@pytest.fixture
def operator(cloud: LocalCloud) -> Operator:
    return Operator(cloud)


@pytest.fixture
def relay(cloud: LocalCloud, tmp_path: Path) -> Relay:
    return Relay(cloud, tmp_path)


def alarms_on(cloud: LocalCloud, queue_url: str) -> list[dict[str, Any]]:
    """The stack's alarms on how many messages this queue has."""
    found: list[dict[str, Any]] = cloud.clients("cloudwatch").describe_alarms()["MetricAlarms"]
    dimension = {"Name": "QueueName", "Value": queue_url.rpartition("/")[2]}
    return [alarm for alarm in found if dimension in alarm.get("Dimensions", [])]


def condition_holds(cloud: LocalCloud, alarm: dict[str, Any], queue_url: str) -> bool:
    """As CloudWatch judges it, on the queue's own figure, which is what SQS reports every minute."""
    name: Any = alarm["MetricName"].removesuffix("Visible")
    answer = cloud.clients("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=[name])
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"
    return float(answer["Attributes"][name]) > float(alarm["Threshold"])


def counted(cloud: LocalCloud, metric: str, **destination: str) -> float:
    """What the functions have counted by now, by their log lines, as CloudWatch takes them."""
    dimensions = {STACK: cloud.config.deployment.stack_name} | destination
    answer = cloud.clients("cloudwatch").get_metric_statistics(
        Namespace=NAMESPACE,
        MetricName=metric,
        Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
        StartTime=time.time() - 3600,
        EndTime=time.time() + 60,
        Period=3600,
        Statistics=["Sum"],
    )
    return sum(float(point["Sum"]) for point in answer["Datapoints"])


@pytest.mark.slow
def test_an_operators_hour(cloud: LocalCloud, relay: Relay, operator: Operator, tmp_path: Path) -> None:
    repository = f"hour-{uuid.uuid4().hex[:8]}/app"
    image = f"{repository}:1.0"
    dead_letters = cloud.endpoints.dlq_url
    folder = tmp_path / "image"
    made = images.single(folder, repository)
    layer = made.layers[0]

    # It breaks: a layer is gone at the source. Paused, so that no copy is faster than that.
    operator.run("pause")
    relay.push(made, image)
    lost = http.request("DELETE", f"http://{relay.source}/v2/{repository}/blobs/{layer}")
    assert lost.status == 202
    assert operator.json("status")["consuming"] is False
    assert "the relay is paused" in operator.json("explain", image)["places"][0]["next"]
    operator.run("resume")

    # The alarm: dead letters. What the dashboard shows of it: three failures, and of which class.
    [alarm] = alarms_on(cloud, dead_letters)
    relay.until(lambda: condition_holds(cloud, alarm, dead_letters), 180, "the alarm on dead letters")
    assert counted(cloud, Metric.FAILED) >= counted(cloud, Metric.FAILED, destination="west") >= 3
    assert counted(cloud, FAILURES["Transient"]) >= 3

    # Which, and why.
    relay.until(lambda: operator.json("dlq", "list", "--repository", repository)["letters"], 180, "the dead letter")
    [letter] = operator.json("dlq", "list", "--repository", repository)["letters"]
    assert (letter["tag"], letter["digest"], letter["destination"], letter["attempts"]) == (
        "1.0",
        made.digest,
        "west",
        3,
    )
    assert repository in operator.run("dlq", "list", "--limit", "1000").stdout
    opened = operator.json("dlq", "show", letter["id"])
    assert (opened["status"], opened["error_class"] is not None) == ("exhausted", True)
    assert layer.removeprefix("sha256:")[:12] in opened["error"] or "blob" in opened["error"]
    assert json.loads(opened["body"])["detail"]["repository-name"] == repository
    assert [line for line in opened["log"] if line["message"] == "copy failed"]
    assert operator.json("explain", image)["places"][0]["next"].startswith("given up")
    failures = operator.json("status", "--repository", repository)["failures"]
    assert failures["exhausted"] == 1

    # A full sync does not help while it is broken, and says so.
    synced = operator.json("sync", "--repository", repository, "--wait", "--timeout", "240", status=1)
    assert [failed["digest"] for failed in synced["failed"]] == [made.digest]

    # Mended: the layer is put back, and nothing is pushed, so that only the redrive can bring it.
    begun = http.request("POST", f"http://{relay.source}/v2/{repository}/blobs/uploads/")
    assert begun.status == 202
    location = begun.headers["Location"]
    there = location if location.startswith("http") else f"http://{relay.source}{location}"
    blob = (folder / "blobs" / "sha256" / layer.removeprefix("sha256:")).read_bytes()
    put = http.request("PUT", f"{there}{'&' if '?' in there else '?'}digest={layer}", body=blob)
    assert put.status == 201

    # Redriven, arrived, and nothing left.
    assert operator.json("dlq", "redrive", "--repository", repository)["moved"] >= 1
    arrived = operator.json("wait", image, "--destination", "west", "--timeout", "120")
    assert arrived["digest"] == made.digest
    assert operator.json("verify", "--repository", repository)["different"] == []
    relay.until(lambda: not operator.json("dlq", "list", "--repository", repository)["letters"], 60, "no dead letters")
    [copied] = operator.json("images", "--repository", repository)["images"]
    assert (copied["status"], copied["tags"]) == ("copied", ["1.0"])
