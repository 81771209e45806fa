"""The rule that puts a push to the source into the copy queue."""

from typing import Any, Final

from aws_cdk import CfnResource, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from ecr_relay.config import EcrSource
from ecr_relay.messages import detail_types
from stack.queues import Queues

_NAME_LIMIT: Final = 64
"""Characters of a rule's name and of a bus policy's statement id (EventBridge API reference)."""


def named(scope: Construct, suffix: str) -> str:
    """A name on a bus, which the stack may share with others."""
    return f"{Stack.of(scope).stack_name[: _NAME_LIMIT - len(suffix) - 1]}-{suffix}"


def pattern(source: EcrSource) -> dict[str, Any]:
    """What of a registry's events asks for a copy, if its configuration does."""
    detail: dict[str, list[Any]] = {
        "action-type": ["PUSH", *(["REPLICATE"] if source.replicas else [])],
        "result": ["SUCCESS"],
    }
    if source.pull_through:
        # Its event says by one field what the others say by those two.
        absent = {"exists": False}
        detail = {key: [*values, absent] for key, values in detail.items()} | {"sync-status": ["SUCCESS", absent]}
    return {
        "source": ["aws.ecr"],
        "detail-type": list(detail_types(source)),
        "account": [source.account],
        "region": [source.region],
        "detail": detail,
    }


class PushRule(Construct):
    """Successful pushes to the source's registry, as raw events, into the copy queue.

    No repository in the pattern, although rules select by repository: which are wanted changes without a deployment,
    and the event's `resources` is empty, so that an ARN never matches. Events of another account or region come by
    way of the forwarder's rule there to this account's default bus, which lets that account put them.
    """

    def __init__(self, scope: Construct, id: str, *, source: EcrSource, queues: Queues) -> None:
        super().__init__(scope, id)
        stack = Stack.of(self)
        name = named(self, "push")
        rule = events.CfnRule(
            self,
            "Rule",
            name=name,
            description="Pushes to the source registry, into the copy queue of ecr-relay",
            event_pattern=pattern(source),
            targets=[
                events.CfnRule.TargetProperty(
                    id="CopyQueue",
                    arn=queues.copy.queue_arn,
                    dead_letter_config=events.CfnRule.DeadLetterConfigProperty(arn=queues.event_dead_letters.queue_arn),
                )
            ],
        )
        # EventBridge does not retry where it may not deliver, so the queue policies come before the rule. They name it
        # by its name, and not by reference, or each would wait for the other.
        arn = stack.format_arn(service="events", resource="rule", resource_name=name)
        for queue in (queues.copy, queues.event_dead_letters):
            let_deliver(queue, arn)
            rule.node.add_dependency(queue)
        if source.account != stack.account:
            self._admit(source.account)

    def _admit(self, account: str) -> None:
        """Let an account put events on our bus. As a whole: its forwarder's role may not be there yet."""
        stack = Stack.of(self)
        bus = stack.format_arn(service="events", resource="event-bus", resource_name="default")
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:{stack.partition}:iam::{account}:root"},
            "Action": "events:PutEvents",
            "Resource": bus,
        }
        # Not CfnEventBusPolicy, which warns of a property that it was not given.
        CfnResource(
            self,
            "FromSource",
            type="AWS::Events::EventBusPolicy",
            properties={"StatementId": named(self, "source"), "Statement": statement},
        )


def let_deliver(queue: sqs.Queue, rule_arn: str) -> None:
    """Let that rule, and no other, put events into `queue`."""
    queue.add_to_resource_policy(
        iam.PolicyStatement(
            actions=["sqs:SendMessage"],
            principals=[iam.ServicePrincipal("events.amazonaws.com")],
            resources=[queue.queue_arn],
            conditions={"ArnEquals": {"aws:SourceArn": rule_arn}},
        )
    )
