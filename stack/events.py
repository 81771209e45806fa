"""The rule that puts a push to the source into the copy queue."""

from typing import Final

from aws_cdk import Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from ecr_relay.config import EcrSource
from stack.queues import Queues

_NAME_LIMIT: Final = 64
"""Characters of a rule's name (EventBridge quotas)."""


class PushRule(Construct):
    """Successful pushes to the source's registry, as raw events, into the copy queue.

    No repository in the pattern, although rules select by repository: which are wanted changes without a deployment,
    and the event's `resources` is empty, so that an ARN never matches. Events of another account or region come by
    way of a rule there that forwards them to this account's default bus.
    """

    def __init__(self, scope: Construct, id: str, *, source: EcrSource, queues: Queues) -> None:
        super().__init__(scope, id)
        stack = Stack.of(self)
        name = f"{stack.stack_name[: _NAME_LIMIT - len('-push')]}-push"
        rule = events.CfnRule(
            self,
            "Rule",
            name=name,
            description="Pushes to the source registry, into the copy queue of ecr-relay",
            event_pattern={
                "source": ["aws.ecr"],
                "detail-type": ["ECR Image Action"],
                "account": [source.account],
                "region": [source.region],
                "detail": {"action-type": ["PUSH"], "result": ["SUCCESS"]},
            },
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
            _let_deliver(queue, arn)
            rule.node.add_dependency(queue)


def _let_deliver(queue: sqs.Queue, rule_arn: str) -> None:
    queue.add_to_resource_policy(
        iam.PolicyStatement(
            actions=["sqs:SendMessage"],
            principals=[iam.ServicePrincipal("events.amazonaws.com")],
            resources=[queue.queue_arn],
            conditions={"ArnEquals": {"aws:SourceArn": rule_arn}},
        )
    )
