"""The two handlers as Lambda calls them, down to the lines that CloudWatch takes for metrics."""

import importlib
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import pytest

from ecr_relay.config import RelayConfig
from ecr_relay.errors import Permanent
from ecr_relay.reconcile import Answer
from ecr_relay.settings import ConsumerSettings
from ecr_relay.tasks import Tasks
from tests.unit.conftest import CONFIG
from tests.unit.office import Office, opened, refused

SETTINGS = {
    "stack": "relay-test",
    "ledger_table": "ledger",
    "config_parameter": "/relay/config",
    "cluster": "arn:aws:ecs:us-east-1:123456789012:cluster/relay",
    "task_definition": "arn:aws:ecs:us-east-1:123456789012:task-definition/relay:1",
    "subnets": ("subnet-1",),
    "security_groups": ("sg-1",),
    "assign_public_ip": True,
    "supervise_seconds": 1,
}
CONTEXT: Any = SimpleNamespace(
    function_name="it",
    memory_limit_in_mb=128,
    invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:it",
    aws_request_id="request",
    get_remaining_time_in_millis=lambda: 300_000,
)


class Functions:
    """Both handlers over an Office's services."""

    def __init__(self, office: Office, capsys: pytest.CaptureFixture[str]) -> None:
        self.office = office
        self._capsys = capsys
        self.lines: list[dict[str, Any]] = []

    # In the test and not before it, when standard output is another one.
    @cached_property
    def consumer(self) -> Any:
        module: Any = fresh("handlers.consumer")
        module.tasks = self.office.world.tasks
        return module

    @cached_property
    def reconciler(self) -> Any:
        return fresh("handlers.reconcile")

    def consume(self, *bodies: str, receives: int = 1) -> Any:
        records = [
            {
                "messageId": f"message-{number}",
                "receiptHandle": self._receipt(body),
                "body": body,
                "attributes": {"SentTimestamp": now(), "ApproximateReceiveCount": receives},
            }
            for number, body in enumerate(bodies)
        ]
        return self._called(self.consumer.handler, {"Records": records})

    def reconcile(self, **request: object) -> Any:
        return self._called(self.reconciler.handler, request)

    def _called(self, handler: Any, event: Any) -> Any:
        try:
            return handler(event, CONTEXT)
        finally:
            self.lines = [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]

    def _receipt(self, body: str) -> str:
        sqs, url = self.office.sqs, self.office.queue_url
        sqs.send_message(QueueUrl=url, MessageBody=body)
        while True:
            (message,) = sqs.receive_message(QueueUrl=url, VisibilityTimeout=60)["Messages"]
            if message["Body"] == body:
                return message["ReceiptHandle"]

    @property
    def metrics(self) -> dict[str, float]:
        return metrics(self.lines)

    def push(self, repository: str, content: str, tag: str) -> str:
        """The body of an event that happens now."""
        _, event = self.office.world.push(repository, content, tag)
        return json.dumps({**json.loads(event), "time": datetime.now(UTC).isoformat(timespec="seconds")})


def now() -> str:
    return str(int(datetime.now(UTC).timestamp() * 1000))


def metrics(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Sums by name, with @destination for those that have that dimension; by the rules of the embedded format."""
    found: dict[str, float] = {}
    for line in lines:
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            assert directive["Namespace"] == "ecr-relay"
            assert line["stack"] == "relay-test"
            assert directive["Dimensions"] in ([["stack"]], [["stack"], ["stack", "destination"]])
            for metric in directive["Metrics"]:
                name, value = metric["Name"], line[metric["Name"]]
                milliseconds = name in ("lag", "age", "task_start")
                assert metric["Unit"] == ("Milliseconds" if milliseconds else "Count")
                key = f"{name}@{line['destination']}" if len(directive["Dimensions"]) == 2 else name
                found[key] = found.get(key, 0) + sum(value if isinstance(value, list) else [value])
    return found


def fresh(name: str) -> ModuleType:
    """A module as a new process imports it, with the clients that the environment now says."""
    sys.modules.pop(name, None)
    return importlib.import_module(name)


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    with opened(RelayConfig.model_validate_json(json.dumps(CONFIG)), monkeypatch) as office:
        yield office


@pytest.fixture
def functions(
    office: Office, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Functions]:
    settings = ConsumerSettings.model_validate({**SETTINGS, "queue_url": office.queue_url})
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "false")
    monkeypatch.setattr("ecr_relay.relay.RENEW_S", 0.0)
    ours = logging.getLogger("ecr_relay")
    kept = ours.handlers[:], ours.level, ours.propagate
    try:
        yield Functions(office, capsys)
    finally:
        ours.handlers[:], ours.level, ours.propagate = kept
        for name in ("consumer", "reconcile"):  # Powertools' own, which keep this test's standard output
            logging.root.manager.loggerDict.pop(name, None)
            sys.modules.pop(f"handlers.{name}", None)


@pytest.fixture
def announced(office: Office) -> list[dict[str, Any]]:
    """What was put on the bus; each entry as the rule of a listener sees it."""
    heard: list[dict[str, Any]] = []

    def put_events(arguments: dict[str, Any]) -> dict[str, Any]:
        assert len(arguments["Entries"]) <= 10
        heard.extend(arguments["Entries"])
        return {"FailedEntryCount": 0, "Entries": [{"EventId": "1"} for _ in arguments["Entries"]]}

    office.calls["PutEvents"] = put_events
    return heard


def test_a_push(functions: Functions, announced: list[dict[str, Any]]) -> None:
    assert functions.consume(functions.push("team/app", "one", "1.0")) == {"batchItemFailures": []}
    found = functions.metrics
    assert 0 <= found.pop("lag@west") == found.pop("age")
    assert found == {"pushes": 1, "copied": 1, "arrived": 0, "arrived@west": 1, "failed": 0}
    (entry,) = announced
    assert (entry["Source"], entry["DetailType"]) == ("ecr-relay", "Image Relayed")
    assert "EventBusName" not in entry
    detail = json.loads(entry["Detail"])
    assert (detail["repository"], detail["tag"], detail["destination"]) == ("team/app", "1.0", "west")
    assert detail["first_seen"].endswith("+00:00")


def test_what_a_message_costs_by_botocores_own_events(functions: Functions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy is one RunTask, also of two tags; a retag has none; what is copied already is one read, and no more."""
    world, calls = functions.office.world, []

    def called(model: Any, params: dict[str, Any], **_: object) -> Any:
        calls.append(f"{model.service_model.service_name}.{model.name}")
        if model.name != "RunTask":
            return None
        run = json.loads(params["body"])["startedBy"]
        world.run_copier(run)
        metadata = {"ResponseMetadata": {"HTTPStatusCode": 200}}
        return SimpleNamespace(status_code=200), {"tasks": [{"taskArn": f"task/{run}"}], "failures": [], **metadata}

    session = boto3.Session()
    session.events.register("before-call", called)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    consumer = functions.consumer
    consumer.tasks = Tasks(boto3.client("ecs"), consumer.settings)
    one, latest = functions.push("team/app", "one", "1.0"), functions.push("team/app", "one", "latest")
    assert functions.consume(one, latest) == {"batchItemFailures": []}
    assert [call for call in calls if not call.startswith("dynamodb.")] == [
        "ssm.GetParameter",
        "ecs.RunTask",
        "events.PutEvents",
    ]
    calls.clear()
    assert functions.consume(functions.push("team/app", "one", "stable")) == {"batchItemFailures": []}
    assert {call for call in calls if not call.startswith("dynamodb.")} == {"events.PutEvents"}
    assert world.west.content["team/app"].tags.keys() == {"1.0", "latest", "stable"}
    calls.clear()
    world.source.calls.clear()
    world.west.calls.clear()
    assert functions.consume(latest) == {"batchItemFailures": []}
    assert calls == ["dynamodb.GetItem"]
    assert world.source.calls == world.west.calls == []


def published(functions: Functions, *rules: dict[str, Any]) -> None:
    """As `config push` does it."""
    value = json.dumps(CONFIG | {"rules": rules})
    functions.office.ssm.put_parameter(Name="/relay/config", Value=value, Overwrite=True)


def test_a_push_counts_by_the_rules_that_were_published_before_it(functions: Functions) -> None:
    """The configuration that a warm function keeps may be older than the push: nothing is let go by that one."""
    published(functions, {"repositories": ["team/*"]}, {"repositories": ["seen/*"], "mode": "observe"})
    assert functions.consume(functions.push("team/app", "one", "1.0")) == {"batchItemFailures": []}
    published(functions, {"repositories": ["team/*", "late/*", "seen/*"]})
    late, seen = functions.push("late/app", "two", "1.0"), functions.push("seen/app", "three", "1.0")
    assert functions.consume(late, seen) == {"batchItemFailures": []}
    assert functions.metrics["arrived@west"] == 2
    assert functions.office.world.west.content.keys() == {"team/app", "late/app", "seen/app"}


def test_a_reconciles_message_counts_by_the_rules_of_the_reconcile(functions: Functions) -> None:
    published(functions, {"repositories": ["team/*"]})
    functions.consume(functions.push("team/app", "one", "1.0"))
    functions.reconcile()
    published(functions, {"repositories": ["team/*", "late/*"]})
    functions.office.world.source.push("late/app", "two", "1.0")
    assert functions.reconcile()["counts"]["enqueued"] == 1
    [message] = functions.office.sqs.receive_message(QueueUrl=functions.office.queue_url)["Messages"]
    functions.consume(message["Body"])
    assert "late/app" in functions.office.world.west.content


def test_without_an_answer_to_what_the_rules_are_nothing_is_let_go(functions: Functions) -> None:
    published(functions, {"repositories": ["team/*"]})
    functions.consume(functions.push("team/app", "one", "1.0"))
    functions.office.calls["GetParameter"] = refused("ThrottlingException", "GetParameter")
    late = functions.push("late/app", "two", "1.0")
    assert functions.consume(late, functions.push("team/app", "one", "1.1")) == {"batchItemFailures": []}
    assert (functions.metrics["again"], functions.metrics["retagged"]) == (1, 1)


def test_a_failure(functions: Functions, announced: list[dict[str, Any]]) -> None:
    functions.office.world.skopeo.fail = [Permanent("schema 1")]
    answer = functions.consume(functions.push("team/app", "one", "1.0"), receives=3)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "message-0"}]}
    assert functions.metrics == {"failed": 0, "arrived": 0, "failed@west": 1, "failed_permanent": 1}
    (entry,) = announced
    assert entry["DetailType"] == "Image Relay Failed"
    assert json.loads(entry["Detail"])["error"] == "schema 1"


@pytest.mark.parametrize("code", ["InternalFailure", "AccessDeniedException"])
def test_a_bus_that_refuses_fails_no_message(functions: Functions, code: str) -> None:
    functions.office.calls["PutEvents"] = refused(code, "PutEvents")
    assert functions.consume(functions.push("team/app", "one", "1.0")) == {"batchItemFailures": []}
    assert functions.metrics["arrived@west"] == 1
    assert [line for line in functions.lines if line["message"] == "not announced" and code in line["error"]]


def test_entries_that_the_bus_refuses_are_in_the_log(functions: Functions) -> None:
    answer = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"}]}
    functions.office.calls["PutEvents"] = lambda _: answer
    assert functions.consume(functions.push("team/app", "one", "1.0")) == {"batchItemFailures": []}
    (line,) = [line for line in functions.lines if line["message"] == "not announced"]
    assert (line["message_id"], line["error"]) == ("message-0", "ThrottlingException: slow down")


def test_without_a_configuration_the_age_is_measured_all_the_same(functions: Functions) -> None:
    functions.office.ssm.put_parameter(Name="/relay/config", Value="{", Overwrite=True)
    assert functions.consume(functions.push("team/app", "one", "1.0")) == {"batchItemFailures": []}
    # A push is counted when it is seen and not sent again as it is, or it would be one each minute.
    assert functions.metrics.keys() == {"again", "age", "arrived", "failed"}
    assert functions.office.depth(functions.office.queue_url) == 0  # delayed


def test_every_line_is_json_with_a_message(functions: Functions, announced: list[dict[str, Any]]) -> None:
    functions.consume(functions.push("team/app", "one", "1.0"), "no json")
    assert {"launched", "copied", "failed", "measured"} <= {line["message"] for line in functions.lines}


def test_a_reconcile_measures_a_run_when_it_ends(functions: Functions) -> None:
    functions.office.world.source.push("team/app", "one", "1.0")
    assert functions.reconcile(action="resume")["status"] == "idle"
    assert functions.metrics == {"slots": 0}
    assert functions.reconcile(action="start")["status"] == "done"
    assert functions.metrics == {
        "slots": 0,
        "differences": 1,
        "reconcile_failures": 0,
        "reconciled_repositories": 1,
        "reconciled_images": 1,
        "reconciled_observed": 0,
        "evicted": 0,
        "archived": 0,
        "conflicts": 0,
        "deleted": 0,
        "held": 0,
        "differing": 0,
        "absent": 0,
    }


def test_a_dry_run_is_no_run(functions: Functions) -> None:
    source, west = functions.office.world.source, functions.office.world.west
    there = source.push("team/app", "zero", "0.9")
    west.push("team/app", "zero", "0.9")
    source.push("team/app", "signature", subject=there)
    source.push("team/app", "one", "1.0")
    answer = Answer.model_validate_json(json.dumps(functions.reconcile(dry_run=True)))
    assert answer.counts["enqueued"] == 2
    assert [entry.tag for entry in answer.plan or ()] == ["1.0", None]
    assert functions.metrics == {"slots": 0}


def test_slots_in_use(functions: Functions) -> None:
    functions.office.world.ledger.slots.take("run", "west", "push", 10)
    functions.reconcile(action="resume")
    assert functions.metrics == {"slots": 1}
