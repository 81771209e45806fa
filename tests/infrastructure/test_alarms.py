"""Alarms, their topic, the dashboard: what they watch is measured, and what they say is in the runbook."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs.generate import anchor
from ecr_relay.errors import ConfigError
from ecr_relay.metrics import FAILURES, UNEXPECTED, Metric, unit
from stack.bundling import ROOT
from tests.infrastructure.conftest import BASE
from tests.infrastructure.template import Json, Synthesized, resolved, synthesize

RUNBOOK = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
OURS = {str(name) for name in Metric} | set(FAILURES.values()) | {UNEXPECTED}

Source = tuple[str, str]


def alarms(synthesized: Synthesized) -> dict[str, Json]:
    """By name, without the stack's."""
    found = synthesized.resources("AWS::CloudWatch::Alarm").values()
    return {alarm["AlarmName"].removeprefix("ecr-relay-"): alarm for alarm in found}


def watched(alarm: Json) -> Iterator[tuple[Source, Json, str]]:
    """(namespace, name), dimensions and statistic of every metric that an alarm looks at."""
    for metric in [entry["MetricStat"] for entry in alarm.get("Metrics", ()) if "MetricStat" in entry]:
        of = metric["Metric"]
        yield (of["Namespace"], of["MetricName"]), dimensions(of), metric["Stat"]
    if "MetricName" in alarm:
        statistic = alarm.get("Statistic") or alarm["ExtendedStatistic"]
        yield (alarm["Namespace"], alarm["MetricName"]), dimensions(alarm), statistic


def dimensions(metric: Json) -> Json:
    return {entry["Name"]: resolved(entry["Value"]) for entry in metric.get("Dimensions", ())}


def test_one_alarm_a_cause(example: Synthesized) -> None:
    found = {name: {source for source, _, _ in watched(alarm)} for name, alarm in alarms(example).items()}
    depth = {("AWS/SQS", "ApproximateNumberOfMessagesVisible")}
    assert found == {
        "DeadLettersAlarm": depth,
        "EventDeadLettersAlarm": depth,
        "LagAlarm": {("ecr-relay", "age")},
        "BreakerAlarm": {("ecr-relay", "breaker_open")},
        "FailureRateAlarm": {("ecr-relay", "failed"), ("ecr-relay", "arrived")},
        "NoCopiesAlarm": depth
        | {
            ("ecr-relay", "arrived"),
            ("AWS/SQS", "ApproximateNumberOfMessagesDelayed"),
            ("AWS/SQS", "ApproximateNumberOfMessagesNotVisible"),
        },
        "ConsumerErrorsAlarm": {("AWS/Lambda", "Errors")},
        "ConsumerThrottlesAlarm": {("AWS/Lambda", "Throttles")},
        "ReconcileErrorsAlarm": {("AWS/Lambda", "Errors")},
        "ReconcileFailuresAlarm": {("ecr-relay", "reconcile_failures")},
        "DifferencesAlarm": {("ecr-relay", "differences")},
        "EvictionsAlarm": {("ecr-relay", "evicted")},
        "ConflictsAlarm": {("ecr-relay", "conflicts")},
        "HeldDeletesAlarm": {("ecr-relay", "held")},
    }


def test_what_is_watched_is_of_this_stack(example: Synthesized) -> None:
    parts = {f"<{name}>" for name in example.resources("AWS::Lambda::Function")}
    parts |= {f"<{name}.QueueName>" for name in example.resources("AWS::SQS::Queue")}
    for alarm in alarms(example).values():
        for (namespace, _), of, _ in watched(alarm):
            if namespace == "ecr-relay":
                assert of == {"stack": "ecr-relay"}
            else:
                assert set(of.values()) <= parts
                assert len(of) == 1


def test_the_lag_grows_while_nothing_arrives(out: Path) -> None:
    synthesized = synthesize(BASE + "deployment = { alarm_lag_minutes = 90 }", out)
    alarm = alarms(synthesized)["LagAlarm"]
    assert (alarm["Threshold"], alarm["Statistic"], unit("age")) == (90 * 60_000, "Maximum", "Milliseconds")


def test_the_expressions(example: Synthesized) -> None:
    def expression(name: str) -> str:
        found: str = next(entry["Expression"] for entry in alarms(example)[name]["Metrics"] if "Expression" in entry)
        return found

    assert expression("FailureRateAlarm") == "IF(failed + arrived >= 10, 100 * failed / (failed + arrived), 0)"
    assert expression("NoCopiesAlarm") == "IF(FILL(arrived, 0) < 1 AND visible + delayed + inflight >= 0.9, 1, 0)"
    assert alarms(example)["NoCopiesAlarm"]["EvaluationPeriods"] == 6


def test_no_alarm_without_an_action_and_none_for_want_of_data(example: Synthesized) -> None:
    topic = example.output("AlarmTopic")
    for name, alarm in alarms(example).items():
        assert alarm["AlarmActions"] == [topic], name
        assert alarm["TreatMissingData"] == "notBreaching", name
        assert alarm["ComparisonOperator"] == "GreaterThanThreshold", name


def test_every_alarm_says_what_to_do_and_where_the_runbook_says_more(example: Synthesized) -> None:
    headings = {anchor(heading): heading for heading in re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)}
    for name, alarm in alarms(example).items():
        _, _, link = alarm["AlarmDescription"].partition(" Runbook: docs/operating.md#")
        assert headings[link] == name
        assert len(alarm["AlarmDescription"]) <= 1024
        assert f"[{name}](#{link})" in RUNBOOK
    # And it knows no alarm that there is not.
    assert {heading for heading in headings.values() if re.match(r"\w+Alarm\b", heading)} == set(alarms(example))


def test_an_alarm_links_the_runbook_where_it_is_read(out: Path) -> None:
    url = "https://git.example.com/ecr-relay/blob/main/docs/operating.md?plain=1"
    synthesized = synthesize(BASE + f'deployment = {{ runbook_url = "{url}" }}', out)
    for name, alarm in alarms(synthesized).items():
        assert alarm["AlarmDescription"].endswith(f" Runbook: {url}#{name.lower()}")


def test_only_over_tls_and_only_by_this_accounts_alarms(example: Synthesized) -> None:
    topic = example.output("AlarmTopic")
    _, policy = example.one("AWS::SNS::TopicPolicy")
    assert policy["Topics"] == [topic]
    allow, deny = sorted(policy["PolicyDocument"]["Statement"], key=lambda statement: str(statement["Effect"]))
    assert allow["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert allow["Action"] == "sns:Publish"
    assert allow["Condition"] == {"StringEquals": {"aws:SourceAccount": "111122223333"}}
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert not example.resources("AWS::SNS::Subscription")


def test_an_email_address(out: Path) -> None:
    synthesized = synthesize(BASE + 'deployment = { alarm_email = "oncall@example.com" }', out)
    _, subscription = synthesized.one("AWS::SNS::Subscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "oncall@example.com")
    assert subscription["TopicArn"] == synthesized.output("AlarmTopic")


def test_a_topic_that_is_there_already(out: Path) -> None:
    topic = "arn:aws:sns:us-east-1:111122223333:oncall"
    synthesized = synthesize(BASE + f'deployment = {{ alarm_topic_arn = "{topic}" }}', out)
    assert not synthesized.resources("AWS::SNS::Topic")
    assert {tuple(alarm["AlarmActions"]) for alarm in alarms(synthesized).values()} == {(topic,)}
    assert synthesized.output("AlarmTopic") == topic


@pytest.mark.parametrize(
    ("deployment", "message"),
    [
        ('alarm_email = "nobody"', r"deployment.alarm_email: 'nobody' does not match"),
        ('alarm_topic_arn = "oncall"', r"deployment.alarm_topic_arn: 'oncall' does not match"),
        (
            'alarm_email = "a@b.c", alarm_topic_arn = "arn:aws:sns:us-east-1:111122223333:oncall"',
            "subscribe it to alarm_topic_arn yourself",
        ),
    ],
)
def test_who_is_told_is_checked(out: Path, deployment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        synthesize(BASE + f"deployment = {{ {deployment} }}", out)


def widgets(synthesized: Synthesized) -> list[Any]:
    _, dashboard = synthesized.one("AWS::CloudWatch::Dashboard")
    assert dashboard["DashboardName"] == "ecr-relay"
    found: list[Any] = json.loads(resolved(dashboard["DashboardBody"]))["widgets"]
    return found


def graphed(synthesized: Synthesized) -> set[Source]:
    """(namespace, name) of every metric on the dashboard, those found by a search included."""
    found: set[Source] = set()
    for widget in widgets(synthesized):
        for row in widget["properties"].get("metrics", ()):
            if isinstance(row[0], dict):
                search = re.fullmatch(
                    r"SEARCH\('\{(.+),stack,destination\} stack=\"ecr-relay\" MetricName=\"(\w+)\"', '\w+', 300\)",
                    row[0]["expression"],
                )
                assert search, row
                found.add((search[1], search[2]))
            else:
                found.add((row[0], row[1]))
    return found


def test_the_dashboard_shows_lag_throughput_failures_and_queues(example: Synthesized) -> None:
    shown = graphed(example)
    ours = {name for namespace, name in shown if namespace == "ecr-relay"}
    assert set(FAILURES.values()) | {"lag", "age", "copied", "retagged", "skipped", "joined", "slots"} <= ours
    assert ("AWS/SQS", "ApproximateAgeOfOldestMessage") in shown
    [status] = [widget for widget in widgets(example) if widget["type"] == "alarm"]
    assert len(status["properties"]["alarms"]) == len(alarms(example))


def test_no_metric_of_ours_that_is_not_measured(example: Synthesized) -> None:
    watching = {source for alarm in alarms(example).values() for source, _, _ in watched(alarm)}
    named = {name for namespace, name in watching | graphed(example) if namespace == "ecr-relay"}
    assert named <= OURS
    # `tests/unit/test_handlers.py` and `test_told.py` hold OURS to what the programs write.
    documented = set(re.findall(r"`(\w+)`", RUNBOOK.partition("## Metrics and dashboard")[2].partition("## Events")[0]))
    assert documented >= OURS


def test_the_table_of_the_last_failures(example: Synthesized) -> None:
    [table] = [widget for widget in widgets(example) if widget["type"] == "log"]
    query = table["properties"]["query"]
    group, _ = example.one("AWS::Logs::LogGroup", "Consumer")
    assert query.startswith(f"SOURCE '<{group}>' | fields @timestamp, destination, repository, tag, class, reason")
    assert '| filter message = "failed"' in query
