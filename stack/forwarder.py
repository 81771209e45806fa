"""A second, small stack: next to a source in another account or region, it forwards pushes to the relay."""

from aws_cdk import CfnOutput, Duration, Environment, LegacyStackSynthesizer, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from ecr_relay.config import EcrSource, RelayConfig
from ecr_relay.errors import ConfigError
from stack.events import let_deliver, named, pattern
from stack.permissions import acknowledge, allow


class ForwarderStack(Stack):
    """ECR's events reach only the default bus of the registry's own account and region (EventBridge user guide), so a
    rule there sends them on to the default bus of the relay's, as a role that may do nothing else.

    Needs no bootstrapped account: nothing is uploaded for it, and it is deployed as whoever deploys. Raises ConfigError
    where nothing is to forward.
    """

    def __init__(self, scope: Construct, *, config: RelayConfig) -> None:
        source, (account, region) = config.source, config.home
        if not isinstance(source, EcrSource):
            raise ConfigError(f"source: {source.host} sends no events, so there is nothing to forward")
        if (source.account, source.region) == (account, region):
            raise ConfigError("deployment: the relay runs where its source is, so it needs no forwarder")
        super().__init__(
            scope,
            f"{config.deployment.stack_name}-forwarder",
            env=Environment(account=source.account, region=source.region),
            description=f"ecr-relay: forwards pushes to the relay in account {account}, {region}",
            synthesizer=LegacyStackSynthesizer(),
        )
        # W3005, as in the relay's stack: a dependency on a queue stands for one on its policy.
        self.template_options.metadata = {"cfn-lint": {"config": {"ignore_checks": ["W3005"]}}}
        bus = f"arn:{self.partition}:events:{region}:{account}:event-bus/default"
        name = named(self, "rule")
        arn = self.format_arn(service="events", resource="rule", resource_name=name)
        dead_letters = self._dead_letters(arn)
        role = self._role(arn)
        allow(role, ["events:PutEvents"], bus)
        rule = events.CfnRule(
            self,
            "Rule",
            name=name,
            description="Pushes to this registry, to the bus of the ecr-relay that copies them",
            event_pattern=pattern(source),
            targets=[
                events.CfnRule.TargetProperty(
                    id="Relay",
                    arn=bus,
                    role_arn=role.role_arn,
                    dead_letter_config=events.CfnRule.DeadLetterConfigProperty(arn=dead_letters.queue_arn),
                )
            ],
        )
        # EventBridge does not retry what it may not do, so permissions come first.
        rule.node.add_dependency(dead_letters, role)
        CfnOutput(self, "DeadLetterQueueUrl", value=dead_letters.queue_url)

    def _dead_letters(self, rule_arn: str) -> sqs.Queue:
        queue = sqs.Queue(
            self,
            "DeadLetters",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=Duration.days(14),
        )
        acknowledge(queue, "SQS3", "it is the dead-letter queue of the EventBridge rule's target")
        let_deliver(queue, rule_arn)
        cloudwatch.Alarm(
            self,
            "DeadLettersAlarm",
            metric=queue.metric_approximate_number_of_messages_visible(period=Duration.minutes(1), statistic="Maximum"),
            threshold=0,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            alarm_description="Pushes could not be forwarded to the relay's bus: does its policy admit this account? "
            "The relay's next reconcile finds those images.",
        )
        return queue

    def _role(self, rule_arn: str) -> iam.Role:
        """Of this rule alone (EventBridge user guide, cross-service confused deputy prevention)."""
        return iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal(
                "events.amazonaws.com",
                conditions={
                    "StringEquals": {"aws:SourceAccount": self.account},
                    "ArnEquals": {"aws:SourceArn": rule_arn},
                },
            ),
        )
