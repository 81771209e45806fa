"""How a push comes to the consumer, and an alarm to somebody."""

import json
from collections.abc import Iterator
from typing import Final

from ecr_relay.config import EcrSource
from ecr_relay.operate.deployment import Deployment
from ecr_relay.operate.doctor.check import Check
from ecr_relay.operate.pause import consumer_enabled, paused
from ecr_relay.operate.shapes import at

_RECEIVES: Final = 3
_AGAIN: Final = "Deploy the stack again: it was changed by hand"


def configuration(deployment: Deployment) -> Iterator[Check]:
    config = deployment.config
    destinations = ", ".join(destination.name for destination in config.destinations)
    yield Check(name="configuration", result="fine", finding=f"{config.source.id} to {destinations}")


def push_events(deployment: Deployment) -> Iterator[Check]:
    """EventBridge itself is asked whether a rule that feeds the copy queue matches a push to the source."""
    events, source = deployment.client("events"), deployment.config.source
    if not isinstance(source, EcrSource):
        return  # it sends none, and is polled
    name = "push events"
    sample = json.dumps(_push(source))
    rules = events.list_rule_names_by_target(TargetArn=deployment.queue_arn(deployment.outputs.queue_url))["RuleNames"]
    disabled = []
    for rule in [events.describe_rule(Name=rule) for rule in rules]:
        pattern = rule.get("EventPattern")
        if pattern and events.test_event_pattern(EventPattern=pattern, Event=sample)["Result"]:
            if rule.get("State") == "ENABLED":
                elsewhere = deployment.sqs.meta.region_name != source.region
                forwarded = f"; {source.region} must forward them to here" if elsewhere else ""
                yield Check(name=name, result="fine", finding=f"a push to {source.id} comes to the queue{forwarded}")
                return
            disabled.append(rule["Name"])
    finding = f"rule {disabled[0]} is disabled" if disabled else f"no EventBridge rule matches a push to {source.id}"
    yield Check(name=name, result="fault", finding=f"{finding}: only the reconcile finds what is pushed", remedy=_AGAIN)


def _push(source: EcrSource) -> dict[str, object]:
    """As ECR sends it (ECR user guide, events); the digest is no image's."""
    return {
        "version": "0",
        "id": "00000000-0000-0000-0000-000000000000",
        "detail-type": "ECR Image Action",
        "source": "aws.ecr",
        "account": source.account,
        "time": "2027-01-15T08:00:00Z",
        "region": source.region,
        "resources": [],
        "detail": {
            "result": "SUCCESS",
            "repository-name": "ecr-relay/doctor",
            "image-digest": f"sha256:{0:064}",
            "action-type": "PUSH",
            "image-tag": "doctor",
            "manifest-media-type": "application/vnd.oci.image.manifest.v1+json",
        },
    }


def cluster(deployment: Deployment) -> Iterator[Check]:
    """Whether there is one to run copy tasks on: one that was named is somebody else's to keep."""
    name = deployment.outputs.cluster.rpartition("/")[2]
    found = deployment.ecs.describe_clusters(clusters=[deployment.outputs.cluster])["clusters"]
    status = found[0]["status"] if found else "missing"
    named = deployment.config.deployment.cluster is not None
    yield Check(
        name="cluster",
        result="fine" if status == "ACTIVE" else "fault",
        finding=f"ECS cluster {name} is {status}" + ("" if status == "ACTIVE" else ": no copy task can run"),
        remedy=None
        if status == "ACTIVE"
        else f"Make it (`aws ecs create-cluster --cluster-name {name}`), or name another in [deployment]"
        if named
        else _AGAIN,
    )


def redrive(deployment: Deployment) -> Iterator[Check]:
    outputs = deployment.outputs
    answer = deployment.sqs.get_queue_attributes(QueueUrl=outputs.queue_url, AttributeNames=["RedrivePolicy"])
    policy = json.loads(answer.get("Attributes", {}).get("RedrivePolicy", "{}"))
    target, receives = policy.get("deadLetterTargetArn"), int(policy.get("maxReceiveCount", 0))
    right = target == deployment.queue_arn(outputs.dead_letter_queue_url) and receives == _RECEIVES
    yield Check(
        name="redrive policy",
        result="fine" if right else "fault",
        finding=f"{receives} receives, then {(target or 'nowhere').rpartition(':')[2]}",
        remedy=None if right else _AGAIN,
    )


def consuming(deployment: Deployment) -> Iterator[Check]:
    held = paused(deployment)
    for name, since in held.items():
        yield Check(
            name=f"{name}: paused",
            result="warning",
            finding=f"since {at(since):%Y-%m-%d %H:%M} UTC: its messages wait, and are not lost",
            remedy=f"`ecr-relay resume --destination {name}`",
        )
    on = consumer_enabled(deployment)
    yield Check(
        name="consuming",
        result="fine" if on else "fault",
        finding="messages are received" if on else "paused: pushes wait, for seven days at the most",
        remedy=None if on else "`ecr-relay resume`",
    )


def alarm_topic(deployment: Deployment) -> Iterator[Check]:
    """Whether anybody hears an alarm: of the stack's own topic, or the one that it was told to use."""
    named = deployment.config.deployment.alarm_topic_arn
    pages = deployment.client("cloudformation").get_paginator("list_stack_resources")
    resources = [one for page in pages.paginate(StackName=deployment.stack) for one in page["StackResourceSummaries"]]
    own = [one["PhysicalResourceId"] for one in resources if one["ResourceType"] == "AWS::SNS::Topic"]
    topics = [named] if named else own
    if not topics:
        yield Check(name="alarm topic", result="warning", finding="the stack has none", remedy=_AGAIN)
    sns = deployment.client("sns")
    for topic in topics:
        found = [
            entry
            for page in sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
            for entry in page["Subscriptions"]
        ]
        pending = sum(not entry["SubscriptionArn"].startswith("arn:") for entry in found)
        confirmed = len(found) - pending
        yield Check(
            name="alarm topic",
            result="fine" if confirmed and not pending else "warning",
            finding=f"subscriptions: {confirmed} confirmed, {pending} not",
            remedy="Follow the link in the mail that SNS has sent"
            if pending
            else None
            if confirmed
            else f"Nobody hears an alarm: `aws sns subscribe --topic-arn {topic} --protocol email ...`",
        )
