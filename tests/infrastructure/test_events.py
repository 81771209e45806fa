"""The rule's pattern against events as ECR words them (tests/events)."""

import json
from typing import Any

import pytest
from moto.events.models import EventPattern

from ecr_relay.messages import PUSH_DETAIL_TYPES, PushEvent, parse
from stack.bundling import ROOT
from tests.infrastructure.template import Synthesized

EVENTS = ROOT / "tests" / "events"

WANTED = {"push", "push-artifact", "push-index", "push-index-child", "push-without-tag"}


@pytest.fixture(scope="module")
def pattern(example: Synthesized) -> EventPattern:
    _, rule = example.one("AWS::Events::Rule", "Pushes")
    pattern: EventPattern = EventPattern.load(json.dumps(rule["EventPattern"]))
    return pattern


def event(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(path.stem for path in EVENTS.glob("*.json")))
def test_pushes_that_succeeded_and_nothing_else(pattern: EventPattern, name: str) -> None:
    assert pattern.matches_event(event(name)) is (name in WANTED)


@pytest.mark.parametrize("name", sorted(WANTED))
def test_the_consumer_takes_what_the_rule_lets_through_for_a_push(name: str) -> None:
    pushed = parse(json.dumps(event(name)))
    assert isinstance(pushed, PushEvent)
    assert (pushed.tag is None) is (name in {"push-index-child", "push-without-tag"})


def test_the_rule_lets_through_every_kind_that_the_consumer_takes_for_a_push(example: Synthesized) -> None:
    _, rule = example.one("AWS::Events::Rule", "Pushes")
    assert tuple(rule["EventPattern"]["detail-type"]) == PUSH_DETAIL_TYPES


@pytest.mark.parametrize("change", [{"account": "444455556666"}, {"region": "eu-west-1"}, {"source": "my.app"}])
def test_not_of_another_registry(pattern: EventPattern, change: dict[str, str]) -> None:
    assert not pattern.matches_event(event("push") | change)


def test_no_resources_in_the_pattern_since_the_event_has_none(example: Synthesized) -> None:
    _, rule = example.one("AWS::Events::Rule", "Pushes")
    assert "resources" not in rule["EventPattern"]
    assert event("push")["resources"] == []


def test_raw_into_the_copy_queue_and_its_own_dead_letter_queue(example: Synthesized) -> None:
    name, rule = example.one("AWS::Events::Rule", "Pushes")
    [target] = rule["Targets"]
    queue, dead = example.output("QueueUrl")["Ref"], example.output("EventDeadLetterQueueUrl")["Ref"]
    assert target.pop("Id")
    assert target == {
        "Arn": {"Fn::GetAtt": [queue, "Arn"]},
        "DeadLetterConfig": {"Arn": {"Fn::GetAtt": [dead, "Arn"]}},
    }
    assert rule.get("State", "ENABLED") == "ENABLED"
    # A delivery that is not permitted is not tried again, so both queues' policies come first ...
    policies = {
        logical_id: policy
        for logical_id, policy in example.resources("AWS::SQS::QueuePolicy").items()
        if policy["Queues"] in ([{"Ref": queue}], [{"Ref": dead}])
    }
    assert len(policies) == 2
    assert set(policies) <= set(example.body["Resources"][name]["DependsOn"])
    # ... and permit this rule, by its name, and none else.
    arn = f"arn:aws:events:us-east-1:111122223333:rule/{rule['Name']}"
    for policy in policies.values():
        [statement] = [s for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Allow"]
        assert statement["Principal"] == {"Service": "events.amazonaws.com"}
        assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": arn}}
        assert statement["Action"] == "sqs:SendMessage"


def test_schedules_of_the_reconcile(example: Synthesized) -> None:
    name, _ = example.one("AWS::Lambda::Function", "Reconcile")
    schedules = {}
    for rule in example.resources("AWS::Events::Rule").values():
        if "ScheduleExpression" in rule:
            [target] = rule["Targets"]
            assert target["Arn"] == {"Fn::GetAtt": [name, "Arn"]}
            schedules[rule["ScheduleExpression"]] = json.loads(target["Input"])
    assert schedules == {"cron(0 3 * * ? *)": {"action": "start"}, "rate(5 minutes)": {"action": "resume"}}
    permissions = example.resources("AWS::Lambda::Permission")
    assert len(permissions) == len(schedules)
    assert all("SourceArn" in permission for permission in permissions.values())
