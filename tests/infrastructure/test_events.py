"""The rule's pattern against events as ECR words them (tests/events)."""

import json
from typing import Any

import pytest
from moto.events.models import EventPattern

from ecr_relay.messages import KNOWN, PUSH_DETAIL_TYPES, PushEvent, parse
from stack.bundling import ROOT
from tests.infrastructure.template import Synthesized

EVENTS = ROOT / "tests" / "events"

WANTED = {
    "push",
    "push-artifact",
    "push-index",
    "push-index-child",
    "push-referrer",
    "push-referrer-artifact",
    "push-without-tag",
}
ASKED_FOR = {"replication", "pull-through"}
"""By `replicas` and `pull_through`."""
NAMES = sorted(path.stem for path in EVENTS.glob("*.json"))
HOME = {"account": "444455556666", "region": "us-west-2"}
"""Of the source in FAR."""


def of(synthesized: Synthesized, within: str) -> EventPattern:
    _, rule = synthesized.one("AWS::Events::Rule", within)
    pattern: EventPattern = EventPattern.load(json.dumps(rule["EventPattern"]))
    return pattern


@pytest.fixture(scope="module")
def pattern(example: Synthesized) -> EventPattern:
    return of(example, "Pushes")


def event(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_pushes_that_succeeded_and_nothing_else(pattern: EventPattern, name: str) -> None:
    assert pattern.matches_event(event(name)) is (name in WANTED)


@pytest.mark.parametrize("name", NAMES)
def test_replicas_and_what_a_cache_fetched_if_asked_for(far: Synthesized, forwarder: Synthesized, name: str) -> None:
    """And the forwarder sends on what the relay's own rule takes."""
    for rule in (of(far, "Pushes"), of(forwarder, "Rule")):
        assert rule.matches_event(event(name) | HOME) is (name in WANTED | ASKED_FOR)
        assert not rule.matches_event(event(name))


@pytest.mark.parametrize("name", sorted(WANTED | ASKED_FOR))
def test_the_consumer_takes_what_the_rule_lets_through_for_a_push(name: str) -> None:
    pushed = parse(json.dumps(event(name)))
    assert isinstance(pushed, PushEvent)
    assert (pushed.tag is None) is (
        name in {"push-index-child", "push-referrer", "push-referrer-artifact", "push-without-tag"}
    )


def test_the_rule_lets_through_every_kind_that_the_consumer_takes_for_a_push(
    example: Synthesized, far: Synthesized
) -> None:
    for synthesized, kinds in ((example, PUSH_DETAIL_TYPES), (far, KNOWN)):
        _, rule = synthesized.one("AWS::Events::Rule", "Pushes")
        assert tuple(rule["EventPattern"]["detail-type"]) == kinds


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
    assert {key: value for key, value in target.items() if key != "Id"} == {
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


def schedules(synthesized: Synthesized) -> dict[str, Any]:
    """What the reconcile is started with, by schedule."""
    name, _ = synthesized.one("AWS::Lambda::Function", "Reconcile")
    found = {}
    for rule in synthesized.resources("AWS::Events::Rule").values():
        if "ScheduleExpression" in rule:
            [target] = rule["Targets"]
            assert target["Arn"] == {"Fn::GetAtt": [name, "Arn"]}
            found[rule["ScheduleExpression"]] = json.loads(target["Input"])
    permissions = synthesized.resources("AWS::Lambda::Permission")
    assert len(permissions) == len(found)
    assert all("SourceArn" in permission for permission in permissions.values())
    return found


def test_schedules_of_the_reconcile(example: Synthesized) -> None:
    assert schedules(example) == {"cron(0 3 * * ? *)": {"action": "start"}, "rate(5 minutes)": {"action": "resume"}}


def test_a_source_that_sends_no_events_is_asked(oci: Synthesized) -> None:
    assert schedules(oci) == {"rate(15 minutes)": {"action": "start"}, "rate(5 minutes)": {"action": "resume"}}
    assert not [rule for rule in oci.resources("AWS::Events::Rule").values() if "EventPattern" in rule]


def test_only_a_source_of_another_account_is_let_in(example: Synthesized, far: Synthesized) -> None:
    assert not example.resources("AWS::Events::EventBusPolicy")
    _, policy = far.one("AWS::Events::EventBusPolicy")
    assert policy == {
        "StatementId": "ecr-relay-source",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::444455556666:root"},
            "Action": "events:PutEvents",
            "Resource": "arn:aws:events:us-east-1:111122223333:event-bus/default",
        },
    }
